"""How punctual the control loop is while inference, physics and a camera run beside it.

python benchmarks/control_loop.py [--bundle DIR] [--seconds S] [--rates HZ ...] [--json FILE] [--quick]

The loop of ``run_realtime`` drives a simulated arm that another process steps in real time, a third one
renders a camera at 30 Hz, and the inference worker computes without a pause. Beside each rate stands the idle
machine: the same sleep, and nothing else. A period is missed when its tick begins more than a period late.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from looping.busy import BusyClient
from looping.world import World
from rich.console import Console
from rich.table import Table

from robopolicy import robots
from robopolicy.evaluation.environments import make_env
from robopolicy.runtime import (
    Bundle,
    ChunkScheduler,
    RunConfig,
    SafetyConfig,
    SafetyFilter,
    SchedulerConfig,
    WorkerClient,
    WorkerConfig,
    load_bundle,
    run_realtime,
)
from robopolicy.runtime.clock import monotonic_ns, sleep_until_ns
from robopolicy.runtime.control.preconditions import garbage_collection_off
from robopolicy.runtime.control.realtime import USUAL, RealtimeConfig, applied
from robopolicy.runtime.control.ticker import Ticker

WARM_UP_S = 1.0  # first ticks that do not count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="for states of --env; one of random weights by default")
    parser.add_argument("--env", default="lift")
    parser.add_argument("--rates", type=float, nargs="+", default=[100.0, 250.0, 500.0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of the first rate; others: a tenth")
    parser.add_argument("--candidates", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", type=int, default=0, help="of the inference worker")
    parser.add_argument("--realtime", choices=("on", "off", "both"), default="on")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="10 s of each rate")
    given = parser.parse_args()
    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as scratch:
        bundle = load_bundle(given.bundle) if given.bundle else untrained(given.env, Path(scratch))
        for number, rate in enumerate(given.rates):
            seconds = 10.0 if given.quick else given.seconds / (1 if number == 0 else 10)
            for realtime in {"on": (True,), "off": (False,), "both": (True, False)}[given.realtime]:
                rows.append(measure(given, bundle, rate, seconds, realtime=realtime))
                console.print(f"{rate:g} Hz: {rows[-1]['reason']}; {'; '.join(rows[-1]['granted'])}")
    console.print(as_table(rows))
    if given.json:
        asked = rows[0]
        head = {key: asked[key] for key in ("rate_hz", "missed", "lateness_p99_ms", "inference_busy")}
        given.json.write_text(json.dumps({**head, "bundle": bundle.digest, "rows": rows}, indent=2) + "\n")


def untrained(env_name: str, folder: Path) -> Bundle:
    """The default policy with random weights, for the states of a task."""
    from evaluation.policies import save_untrained

    from robopolicy.export.bundle import export_bundle

    env = make_env(env_name)
    saved = save_untrained(folder / "saved", env, tuple(env.specs.observation))
    env.close()
    export_bundle(saved, folder / "bundle")
    return load_bundle(folder / "bundle")


def measure(
    given: argparse.Namespace, bundle: Bundle, rate: float, seconds: float, *, realtime: bool
) -> dict[str, Any]:
    """One row: the loaded loop, and the idle one for a tenth of its time."""
    config = RealtimeConfig() if realtime else USUAL
    idle_s = max(seconds / 10, 5.0)
    idle = idle_lateness_ms(rate, idle_s, config)
    specs = bundle.policy_specs
    robot = robots.load(specs.specs.robot)
    worker = WorkerConfig(
        threads=given.threads,
        max_candidates=given.candidates,
        nice=given.nice,
        hang_s=2.0,  # requests wait for the one before
    )
    scheduler = ChunkScheduler(specs, SchedulerConfig(replan_every=1), limits=robot.limits)
    safety = SafetyFilter(robot.limits, rate, SafetyConfig.for_robot(robot))
    run = RunConfig(seconds + WARM_UP_S, num_candidates=given.candidates, clock_jump_s=1.0, realtime=config)
    with World(given.env, specs.specs, rate) as world, WorkerClient(bundle, worker) as client:
        busy = BusyClient(client)
        result = run_realtime(world, busy, scheduler, safety, run)
    first = round(WARM_UP_S * rate)
    late = result.lateness_ns[first : result.ticks] * 1e-6
    span_s = float(result.time_ns[result.ticks - 1] - result.time_ns[0]) * 1e-9
    return {
        "rate_asked_hz": rate,
        "realtime": realtime,
        "granted": list(result.realtime),
        "reason": result.reason,
        "seconds": len(late) / rate,
        "rate_hz": (result.ticks - 1) / span_s,
        "missed": int((late > 1000 / rate).sum()) + result.missed_ticks,
        **percentiles("lateness", late),
        **percentiles("idle_lateness", idle),
        **percentiles("tick", result.busy_ns[first : result.ticks] * 1e-6),
        "inference_busy": busy.computing_ns * 1e-9 / span_s,
        "inference_ms": busy.computing_ns * 1e-6 / max(busy.answers, 1),
        "pictures_seen": world.pictures,
        "chunks": result.scheduler["accepted_chunks"],
    }


def idle_lateness_ms(rate: float, seconds: float, config: RealtimeConfig) -> np.ndarray:
    """(n,) lateness of a loop that only sleeps [ms]."""
    late = []
    with garbage_collection_off(), applied(config):
        ticker = Ticker(rate, monotonic_ns, sleep_until_ns, jump_s=60.0)
        while ticker.tick < seconds * rate:
            deadline_ns = ticker.wait()
            late.append(ticker.began_ns - deadline_ns)
            ticker.finish()
    return np.array(late) * 1e-6


def percentiles(name: str, values: np.ndarray) -> dict[str, float]:
    found = {f"p{p:g}": np.percentile(values, p) for p in (50, 99, 99.9)}
    return {f"{name}_{key}_ms": float(value) for key, value in {**found, "max": values.max()}.items()}


def as_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        *("asked", "real-time", "got", "missed", "lateness p50/p99/p99.9/max", "idle p50/p99/max"),
        *("tick p50/p99", "inference busy"),
    )
    for row in rows:
        late = [row[f"lateness_{key}_ms"] for key in ("p50", "p99", "p99.9", "max")]
        idle = [row[f"idle_lateness_{key}_ms"] for key in ("p50", "p99", "max")]
        table.add_row(
            f"{row['rate_asked_hz']:g} Hz, {row['seconds']:.0f} s",
            "on" if row["realtime"] else "off",
            f"{row['rate_hz']:.2f} Hz",
            str(row["missed"]),
            "/".join(f"{value:.2f}" for value in late) + " ms",
            "/".join(f"{value:.2f}" for value in idle) + " ms",
            f"{row['tick_p50_ms']:.2f}/{row['tick_p99_ms']:.2f} ms",
            f"{row['inference_busy']:.0%} ({row['inference_ms']:.0f} ms each)",
        )
    return table


if __name__ == "__main__":
    main()
