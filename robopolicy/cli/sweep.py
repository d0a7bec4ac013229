"""Evaluate a policy at several delays, or values of a randomisation parameter, on the same seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from robopolicy.cli.eval import load_any
from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import Policy
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.campaign import JOURNAL, Campaign, check_environment, run_campaign
from robopolicy.evaluation.comparison import Report, compare
from robopolicy.evaluation.comparison_table import table
from robopolicy.evaluation.compensation import DelayCompensated
from robopolicy.evaluation.environments import parse_options
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.sweep import Sweep, draw_curve, sweep_delay, sweep_parameter

SWEEP_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Args:
    """What to vary. The first value is what the others are compared with.

    Args:
        policy: training run, saved policy, or bundle.
        output: a new folder for ``sweep.json``, ``sweep.png``, and an ``eval.json`` per value.
        delay: delays [s], as 0 0.05 0.1 0.15.
        delay_of: what is late: observation, inference or actuation.
        compensate: let the policy know the delay, so that it skips the actions that come too late.
        vary: instead of delays, a randomisation parameter and its values: friction=0.3,0.6,1.0.
        env, option, episodes, seed, noise_seed, num_envs, executor, workers, threads: as ``robopolicy eval``.
        alpha: intervals are at 1 - alpha.
        resume: go on with a sweep that was interrupted in ``output``.
    """

    policy: tyro.conf.Positional[Path]
    output: Path
    delay: tuple[float, ...] = ()
    delay_of: str = "observation"
    compensate: bool = False
    vary: str = ""
    env: str = "lift"
    option: tuple[str, ...] = ()
    episodes: int = 50
    seed: int = 1_000_000
    noise_seed: int = 0
    num_envs: int = 16
    executor: str = "processes"
    workers: int = 0
    threads: int = 1
    alpha: float = 0.05
    resume: bool = False


def run(args: Args) -> int:
    console = Console()
    sweep = _sweep(args)
    policy = load_any(args.policy, args.threads)
    runs = [(_campaign(args, s.options), _policy_for(args, policy, s.value)) for s in sweep.settings]
    for campaign, runner in runs:
        check_environment(campaign, runner)
    folders = [args.output / setting.folder for setting in sweep.settings]
    if not args.resume:
        create_run(args.output, args, seed=args.seed)
    elif not any((folder / JOURNAL).is_file() for folder in folders):
        raise ConfigError(f"nothing to resume: {args.output} holds no */{JOURNAL}")
    results: dict[str, Sequence[EpisodeResult]] = {}
    for setting, folder, (campaign, runner) in zip(sweep.settings, folders, runs):
        folder.mkdir(exist_ok=True)
        console.print(f"{sweep.parameter.removesuffix(' [ms]')}: {setting.label}")
        command = ("robopolicy", *sys.argv[1:])
        found = run_campaign(
            campaign, runner, folder, label=str(args.policy), command=command, console=console
        )
        results[setting.label] = found.episodes
    report = compare(results, confidence=1 - args.alpha)
    write_json(args.output / "sweep.json", as_tree(sweep, report, args))
    draw_curve(args.output / "sweep.png", sweep, report)
    found_table = table(report)
    found_table.columns[0].header = sweep.parameter
    console.print(found_table)
    console.print(f"see {args.output / 'sweep.png'}", soft_wrap=True)
    return 0


def _sweep(args: Args) -> Sweep:
    if bool(args.delay) == bool(args.vary):
        raise ConfigError("give either --delay or --vary")
    if args.compensate and not args.delay:
        raise ConfigError("--compensate goes with --delay")
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    if not 0 < args.alpha < 1:
        raise ConfigError(f"--alpha must lie in (0, 1), got {args.alpha}")
    options = parse_options(args.option)
    if args.vary:
        return sweep_parameter(args.vary, options)
    return sweep_delay(args.delay, args.delay_of, options)


def _policy_for(args: Args, policy: Policy, value: Any) -> Policy:
    return DelayCompensated(policy, float(value)) if args.compensate else policy


def _campaign(args: Args, options: Any) -> Campaign:
    return Campaign(
        env=args.env,
        options=options,
        seeds=tuple(range(args.seed, args.seed + args.episodes)),
        noise_seed=args.noise_seed,
        num_envs=args.num_envs,
        executor=args.executor,
        workers=args.workers,
    )


def as_tree(sweep: Sweep, report: Report, args: Args) -> dict[str, Any]:
    """Contents of ``sweep.json``: every value with its rate and interval, and the comparisons."""
    points = [
        {"value": setting.value, "label": setting.label, "results": setting.folder, **to_tree(row)}
        for setting, row in zip(sweep.settings, report.policies)
    ]
    return {
        "schema_version": SWEEP_SCHEMA_VERSION,
        "parameter": sweep.parameter,
        "compensated": args.compensate,
        "points": points,
        "comparisons": to_tree(report.comparisons),
        "cochran_p": report.cochran_p,
        "confidence": report.confidence,
    }
