"""Run a bundle in real time: policy in its own process, commands through the safety filter."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from robopolicy import robots
from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.environments import make_env_for
from robopolicy.runtime import (
    ChunkScheduler,
    RunConfig,
    RunResult,
    SafetyConfig,
    SafetyFilter,
    SchedulerConfig,
    WorkerClient,
    WorkerConfig,
    load_bundle,
    percentile_ms,
    run_realtime,
)
from robopolicy.runtime.preconditions import check_plant

HEAVY = ("torch", "diffusers", "zarr")


@dataclass(frozen=True)
class Args:
    """What to run.

    Args:
        bundle: exported policy.
        output: a new folder for ``realtime.json`` and the commands sent.
        env: the simulated task; its robot file gives the limits.
        episodes: how many.
        seed: of the first episode's reset; also keys the policy's noise.
        duration_s: longest episode [s].
        digest: refuse the bundle unless this is its digest.
        threads: of the inference.
        worker_python: interpreter of the inference process; empty takes this one.
    """

    bundle: Path
    output: Path
    env: str = "lift"
    episodes: int = 10
    seed: int = 2_000_000
    duration_s: float = 12.0
    digest: str = ""
    threads: int = 1
    worker_python: str = ""


def run(args: Args) -> int:
    console = Console()
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    bundle = load_bundle(args.bundle, digest=args.digest or None)
    env = make_env_for(args.env, bundle.policy_specs)
    robot = getattr(env.unwrapped, "robot", None) or robots.load(env.specs.robot)
    plant = env.plant(clock=time.monotonic_ns)
    check_plant(plant, bundle.policy_specs)
    create_run(args.output, args, seed=args.seed, bundle_digest=bundle.digest)
    scheduler = ChunkScheduler(bundle.policy_specs, SchedulerConfig())
    safety = SafetyFilter(robot.limits, plant.control_rate, SafetyConfig.for_robot(robot))
    results: list[RunResult] = []
    with WorkerClient(bundle, WorkerConfig(python=args.worker_python, threads=args.threads)) as client:
        for episode in track(range(args.episodes), "real time", console=console):
            env.reset(seed=args.seed + episode)
            config = RunConfig(args.duration_s, seed=args.seed, episode=episode)
            result = run_realtime(plant, client, scheduler, safety, config, on_tick=_stop_on_success(env))
            results.append(result)
            if result.fault:
                console.print(f"[bold red]fault[/] in episode {episode}: {result.reason}")
                break
    env.close()
    summary = summarise_runs(results, args.episodes, plant.control_rate)
    write_json(args.output / "realtime.json", summary)
    first = results[0]
    arrays: dict[str, Any] = {"references": first.references, "commands": first.commands}
    pooled = {"lateness_ns": _pool(results, "lateness_ns"), "inference_ns": _pool(results, "inference_ns")}
    np.savez(args.output / "first_episode.npz", time_ns=first.time_ns, **arrays, **pooled)
    console.print(
        f"{summary['realtime_successes']}/{args.episodes} succeeded; lateness p99 "
        f"{summary['control_lateness_p99_ms']:.2f} ms at {summary['control_rate_hz']:.1f} Hz; inference p50 "
        f"{summary['inference_p50_ms']:.1f}, p99 {summary['inference_p99_ms']:.1f} ms"
    )
    return 1 if results[-1].fault else 0


def summarise_runs(results: list[RunResult], episodes: int, control_rate: float) -> dict[str, Any]:
    """Figures over all episodes: pooled percentiles, counts, and the rate that was really achieved [Hz]."""
    lateness, inference = _pool(results, "lateness_ns"), _pool(results, "inference_ns")
    spans = sum(float(r.time_ns[-1] - r.time_ns[0]) * 1e-9 for r in results if len(r.time_ns) > 1)
    periods = sum(len(r.time_ns) - 1 for r in results if len(r.time_ns) > 1)
    return {
        "realtime_episodes": episodes,
        "realtime_successes": sum(r.reason == "success" for r in results),
        "control_rate_hz": periods / spans if spans else 0.0,
        "control_rate_asked_hz": control_rate,
        "control_lateness_p50_ms": percentile_ms(lateness, 50),
        "control_lateness_p99_ms": percentile_ms(lateness, 99),
        "control_lateness_max_ms": percentile_ms(lateness, 100),
        "missed_ticks": sum(r.missed_ticks for r in results),
        "ticks": len(lateness),
        "inference_p50_ms": percentile_ms(inference, 50),
        "inference_p99_ms": percentile_ms(inference, 99),
        "delay_p95_ms": percentile_ms(_pool(results, "delay_ns"), 95),
        "reasons": [r.reason for r in results],
        "interventions": [to_tree(r.interventions) for r in results],
        "scheduler": [to_tree(r.scheduler) for r in results],
        "heavy_modules_loaded": [name for name in HEAVY if name in sys.modules],
    }


def _pool(results: list[RunResult], name: str) -> Any:
    return np.concatenate([getattr(r, name) for r in results])


def _stop_on_success(env: Any) -> Any:
    def on_tick(tick: int, deadline_ns: int, command: Any) -> str | None:
        return "success" if env.is_success else None

    return on_tick
