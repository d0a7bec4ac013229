"""The scripted expert of ``lift`` over many seeds, and what a control tick of the simulator costs.

python benchmarks/lift_expert.py [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.progress import track

from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.tasks.lift import LiftEnv

NOISE = 0.005  # [rad], as ``robopolicy record`` executes by default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    count = 30 if given.quick else 200
    result: dict[str, float] = {"n": count}
    for name, noise in (("clean", 0.0), ("noisy", NOISE)):
        env, expert = LiftEnv(), LiftExpert(noise=noise)
        seconds = []
        for seed in track(range(count), f"{name} expert"):
            env.reset(seed=seed)
            expert.reset(env, seed)
            done = False
            while not done:
                _, _, terminated, truncated, info = env.step(expert.perturb(expert.act()))
                done = terminated or truncated
            if info["is_success"]:
                seconds.append(env.elapsed)
        result[f"{name}_successes"] = len(seconds)
        result[f"{name}_seconds_mean"] = float(np.mean(seconds))
    result.update(tick_cost(LiftEnv()))
    for key, value in result.items():
        print(f"{key:24} {value:g}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def tick_cost(env: LiftEnv, ticks: int = 3000) -> dict[str, float]:
    """Milliseconds of one control tick (10 ms simulated) holding still, and of one state observation."""
    env.reset(seed=0)
    held = env.simulation.last_command.copy()
    took = []
    for _ in range(ticks):
        started = time.perf_counter()
        env.command(held)
        took.append(time.perf_counter() - started)
    started = time.perf_counter()
    for _ in range(300):
        env.observation()
    observed = (time.perf_counter() - started) / 300
    return {
        "tick_ms_mean": float(np.mean(took)) * 1e3,
        "tick_ms_p99": float(np.percentile(took, 99)) * 1e3,
        "observation_ms": observed * 1e3,
    }


if __name__ == "__main__":
    main()
