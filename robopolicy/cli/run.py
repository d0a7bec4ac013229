"""Run a policy in real time: inference in its own process, commands through the safety filter."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from robopolicy import robots
from robopolicy.cli._enter_key import EnterKey
from robopolicy.cli._run import RunFolder
from robopolicy.cli._run_reranking import describe, reranking
from robopolicy.cli._selection import Asked
from robopolicy.core.errors import ConfigError
from robopolicy.core.goals import without
from robopolicy.core.provenance import create_run
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.environments import make_env_for
from robopolicy.evaluation.goals import GoalPlant, load_goals
from robopolicy.runtime import (
    Bundle,
    ChunkScheduler,
    RunConfig,
    RunResult,
    SafetyConfig,
    SafetyFilter,
    SchedulerConfig,
    WorkerConfig,
    load_bundle,
    run_realtime,
)
from robopolicy.runtime.control.monitors import Monitors
from robopolicy.runtime.control.preconditions import check_names, check_plant
from robopolicy.runtime.control.realtime import RealtimeConfig
from robopolicy.runtime.control.stop_signals import REASONS, StopSignals
from robopolicy.runtime.inference.supervisor import RestartConfig, SupervisedClient
from robopolicy.runtime.inference.worker_client import Endpoint

#: Exit codes of a run that a signal ended, as shells give them.
EXIT = {reason: 128 + number for number, reason in REASONS.items()}


@dataclass(frozen=True)
class Args:
    """What to run. A server's token comes from ROBOPOLICY_TOKEN, never from here.

    Args:
        output: a new folder for ``realtime.json``, the commands sent, and ``report.html`` where the extra
            "viz" is installed.
        bundle: exported policy.
        connect: ws:// or wss:// address of ``robopolicy serve`` instead of a bundle.
        env: the simulated task; its robot file gives the limits.
        episodes: how many.
        seed: of the first episode's reset; also keys the policy's noise.
        duration_s: longest episode [s].
        digest: refuse the bundle or server unless this is its digest.
        instruction: what to do, in words.
        goal: what to reach, as STORE#EPISODE: what the last step of that episode saw.
        mode: how chunks are joined, see ``SchedulerConfig``.
        candidates: per request; the best by ``select`` is executed.
        select: scores to choose by, as NAME or NAME=WEIGHT: critic, consistency=0.5, random_pick ...; by the
            critic where there is one, unless said otherwise.
        score: an option of a score, as NAME.OPTION=VALUE.
        critic: a bundle whose critic judges, instead of the policy's own.
        temperature: 0 takes the best candidate; larger chooses closer to uniformly, in the scores' unit.
        pessimism: over the critic's members: min (as trained), mean, or std.
        deadline_ms: from a request to its choice; fewer candidates are drawn where more would take longer; 0
            sets none. Four fifths of a policy period unless said otherwise [ms].
        threads: of the inference.
        provider: inference engine: auto, cpu, cuda or tensorrt.
        worker_python: interpreter of the inference process; empty takes this one.
        restarts: of a lost worker within a minute, before it is a fault.
        spare: keep a second worker ready to take over; it costs its memory.
        max_failures: failed inferences in a row that are a fault.
        when_starved: where no chunk comes in time: "tail" brakes gently, "stop" as fast as allowed.
        on_fault: "stop" after the episode, or in a simulation, which resets, go on with the "next" one; the
            exit code is 1 either way.
        deadman: "enter": the Enter key, pressed at least every ``deadman_s``, in a terminal; "none" suits a
            simulation.
        deadman_s: how long one press counts [s].
        clock_jump_s: a tick this late is a fault [s]; a simulated arm waits for its commands, a real one does
            not: see ``RunConfig``.
        report: write the page as well, where its packages are installed.
        priority: of the loop under SCHED_FIFO, where the system permits; 0 leaves its scheduling alone.
    """

    output: Path
    bundle: Path | None = None
    connect: str = ""
    env: str = "lift"
    episodes: int = 10
    seed: int = 2_000_000
    duration_s: float = 12.0
    digest: str = ""
    instruction: str = ""
    goal: str = ""
    mode: Literal["replace", "ensemble", "real_time_chunking"] = "replace"
    candidates: int = 1
    select: tuple[str, ...] = ()
    score: tuple[str, ...] = ()
    critic: Path | None = None
    temperature: float = 0.0
    pessimism: Literal["", "min", "mean", "std"] = ""
    deadline_ms: float | None = None
    threads: int = 1
    provider: str = "auto"
    worker_python: str = ""
    restarts: int = 0
    spare: bool = False
    max_failures: int = 1
    when_starved: Literal["tail", "stop"] = "tail"
    on_fault: Literal["stop", "next"] = "stop"
    deadman: Literal["none", "enter"] = "none"
    deadman_s: float = 1.0
    clock_jump_s: float = 0.5
    report: bool = True
    priority: int = 10


def run(args: Args) -> int:
    console = Console()
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    if (args.bundle is None) == (not args.connect):
        raise ConfigError("give either --bundle or --connect")
    config, restarts = _config(args), RestartConfig(args.restarts, spare=args.spare)
    deadman = EnterKey(args.deadman_s) if args.deadman == "enter" else None
    endpoint = _endpoint(args)
    specs = endpoint.policy_specs
    worker = WorkerConfig(
        python=args.worker_python,
        threads=args.threads,
        provider=args.provider,
        max_candidates=args.candidates,
        **reranking(endpoint, Asked.of(args)),
    )
    goals = load_goals(args.goal, specs) if args.goal else {}
    env = make_env_for(args.env, without(specs, goals))
    robot = getattr(env.unwrapped, "robot", None) or robots.load(env.specs.robot)
    plant = env.plant(clock=time.monotonic_ns)
    if goals:
        plant = GoalPlant(plant, goals, specs)
    check_plant(plant, specs)
    check_names(specs, robot)
    scheduler = ChunkScheduler(specs, SchedulerConfig(mode=args.mode), limits=robot.limits)
    create_run(args.output, args, seed=args.seed, bundle_digest=endpoint.digest)
    safety_config = SafetyConfig.for_robot(robot)
    safety = SafetyFilter(robot.limits, plant.control_rate, safety_config)
    normalisers = endpoint.normalisers if isinstance(endpoint, Bundle) else None
    monitors = Monitors(specs, normalisers=normalisers, limits=robot.limits)
    facts = {
        "task": args.env,
        "robot": robot.name,
        "source": args.connect or str(args.bundle),
        "bundle_digest": endpoint.digest,
        "scheduler_config": to_tree(SchedulerConfig(mode=args.mode)),
        "safety_config": {k: v for k, v in to_tree(safety_config).items() if k != "robot"},
        "worker_config": to_tree(worker),
    }
    folder = RunFolder(args.output, facts, specs, control_rate=plant.control_rate, episodes=args.episodes)

    def play(client: SupervisedClient, episode: int) -> RunResult:
        if args.on_fault == "next":  # the simulated arm is elsewhere now
            safety.clear_latch()
        return run_realtime(
            plant,
            client,
            scheduler,
            safety,
            dataclasses.replace(config, episode=episode),
            monitors=monitors,
            deadman=deadman,
            on_tick=_stop_on_success(env),
        )

    try:
        with StopSignals() as stop, SupervisedClient(endpoint, worker, restarts) as client:
            if deadman is not None:
                deadman.begin(console, lambda: bool(stop.received))
            code = _episodes(args, env, folder, stop, partial(play, client), console)
    finally:  # a driver's error, say: what was run is kept
        env.close()
        summary = folder.finish()
    _conclude(args, summary, console)
    return code


def _episodes(
    args: Args,
    env: Any,
    folder: RunFolder,
    stop: StopSignals,
    play: Callable[[int], RunResult],
    console: Console,
) -> int:
    """Until one ends in a fault, unless told to go on, or a signal comes; the exit code."""
    code = 0
    # A thread that draws would take the loop's time.
    for episode in track(range(args.episodes), "real time", console=console, auto_refresh=False):
        env.reset(seed=args.seed + episode)
        if stop.received:
            return EXIT[stop.received]
        result = play(episode)
        folder.add(result, args.seed + episode)
        ended = result.signal or result.reason
        if ended == "hung up":
            console.file = io.StringIO()  # the terminal is gone
        if episode == 0 and result.realtime:
            console.print("granted: " + "; ".join(result.realtime))
        if result.fault:
            console.print(f"[bold red]fault[/] in episode {episode}: {result.reason}")
            code = 1
        if ended in EXIT:
            return EXIT[ended]
        if result.fault and (args.on_fault == "stop" or "not_at_rest" in result.faults):
            return code
    return code


def _conclude(args: Args, summary: dict[str, Any], console: Console) -> None:
    console.print(
        f"{summary['realtime_successes']}/{args.episodes} succeeded; lateness p99 "
        f"{summary['control_lateness_p99_ms']:.2f} ms at {summary['control_rate_hz']:.1f} Hz; inference p50 "
        f"{summary['inference_p50_ms']:.1f}, p99 {summary['inference_p99_ms']:.1f} ms"
    )
    if args.candidates > 1 and summary["decisions"]["decisions"]:
        console.print(describe(summary))
    if summary["faults"]:
        counts = ", ".join(f"{kind}: {count}" for kind, count in summary["faults"].items())
        console.print(f"faults: {counts}; {summary['restarts']} restarts")
    drawable = all(importlib.util.find_spec(name) for name in ("jinja2", "matplotlib"))
    if args.report and summary["episodes"] and drawable:
        from robopolicy.evaluation.run_report import write_run_report  # needs the extra "viz"

        console.print(f"report: {write_run_report(args.output)}")


def _endpoint(args: Args) -> Endpoint:
    if args.bundle is not None:
        return load_bundle(args.bundle, digest=args.digest or None)
    from robopolicy.runtime.remote import connect, read_token  # needs the extra "remote"

    return connect(args.connect, token=read_token(), expect_digest=args.digest)


def _config(args: Args) -> RunConfig:
    return RunConfig(
        args.duration_s,
        seed=args.seed,
        num_candidates=args.candidates,
        max_failures=args.max_failures,
        instruction=args.instruction,
        when_starved=args.when_starved,
        clock_jump_s=args.clock_jump_s,
        realtime=RealtimeConfig(priority=args.priority),
    )


def _stop_on_success(env: Any) -> Any:
    def on_tick(tick: int, deadline_ns: int, command: Any) -> str | None:
        return "success" if env.is_success else None

    return on_tick
