"""Widen randomisation until a policy just keeps a success rate: how much it can bear (DORAEMON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from robopolicy.cli.eval import load_any
from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.betas import Betas
from robopolicy.evaluation.campaign import Campaign, available_cores, check_environment
from robopolicy.evaluation.doraemon import DoraemonConfig
from robopolicy.evaluation.doraemon_run import Iteration, draw_progress, run_doraemon
from robopolicy.evaluation.environments import EnvRecipe, parse_options
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.rollout import evaluate
from robopolicy.evaluation.sweep import with_entries


@dataclass(frozen=True)
class Args:
    """What to widen, and how far.

    Args:
        policy: training run, saved policy, or bundle; it stays as it is.
        output: a new folder for ``doraemon.jsonl``, ``doraemon.json`` and ``doraemon.png``.
        vary: randomisation parameters as NAME=LOW:START:HIGH, several: mass:cube=0.2:1:5
            delay_observation=0:0:0.3.
        iterations: of evaluating and adapting; episodes: of each iteration.
        concentration: of the first distributions about their start; more is narrower.
        config: the success rate to keep, and the size of a step.
        env, option, seed, noise_seed, num_envs, executor, workers, threads: as ``robopolicy eval``.
    """

    policy: tyro.conf.Positional[Path]
    output: Path
    vary: tuple[str, ...]
    iterations: int = 15
    episodes: int = 100
    concentration: float = 50.0
    config: DoraemonConfig = field(default_factory=DoraemonConfig)
    env: str = "lift"
    option: tuple[str, ...] = ()
    seed: int = 2_000_000
    noise_seed: int = 0
    num_envs: int = 16
    executor: str = "processes"
    workers: int = 0
    threads: int = 1


def run(args: Args) -> int:
    console = Console()
    if args.episodes < 1 or args.iterations < 1:
        raise ConfigError(f"--episodes and --iterations must be >= 1, got {args.episodes}, {args.iterations}")
    betas = Betas.around(parse_ranges(args.vary), args.concentration)
    policy = load_any(args.policy, args.threads)
    options = parse_options(args.option)
    first = Campaign(args.env, (args.seed,), with_entries(options, "randomisation", betas.as_randomisation()))
    check_environment(first, policy)
    create_run(args.output, args, seed=args.seed)

    def episodes_of(current: Betas, iteration: int) -> Sequence[EpisodeResult]:
        """Fresh seeds in every iteration, so that none of them is fitted to."""
        start = args.seed + iteration * args.episodes
        return evaluate(
            policy,
            EnvRecipe(args.env, with_entries(options, "randomisation", current.as_randomisation())),
            range(start, start + args.episodes),
            noise_seed=args.noise_seed,
            num_envs=args.num_envs,
            executor=args.executor,
            workers=args.workers or available_cores(),
            console=console,
        )

    log = args.output / "doraemon.jsonl"
    done = run_doraemon(
        betas, episodes_of, args.iterations, args.config, log, lambda i: console.print(describe(i))
    )
    write_json(args.output / "doraemon.json", as_tree(done, args))
    draw_progress(args.output / "doraemon.png", done, betas, args.config.success)
    console.print(f"see {args.output / 'doraemon.png'}", soft_wrap=True)
    return 0


def parse_ranges(texts: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """NAME=LOW:START:HIGH texts as a mapping; ConfigError shows the one that is none."""
    ranges: dict[str, tuple[float, float, float]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        try:
            low, start, high = (float(value) for value in listed.split(":"))
        except ValueError as error:
            raise ConfigError(f"--vary takes NAME=LOW:START:HIGH, got {text!r}") from error
        if name in ranges:
            raise ConfigError(f"{name} is given twice")
        ranges[name] = (low, start, high)
    if not ranges:
        raise ConfigError("--vary needs at least one NAME=LOW:START:HIGH")
    return ranges


def describe(iteration: Iteration) -> str:
    """One line for the terminal."""
    i = iteration
    ranges = ", ".join(f"{name} {i.low[name]:.3g}..{i.high[name]:.3g}" for name in i.low)
    return (
        f"{i.iteration}: success {i.successes}/{i.episodes}, entropy {i.entropy:.2f}, {i.outcome} "
        f"(KL {i.kl:.3f}, effective sample {i.ess:.0f}); {ranges}"
    )


def as_tree(iterations: Sequence[Iteration], args: Args) -> dict[str, Any]:
    """Contents of ``doraemon.json``: every iteration, and the widest that kept the rate."""
    kept = [i for i in iterations if i.successes >= args.config.success * i.episodes]
    widest = max(kept, key=lambda i: i.entropy, default=None)
    return {"schema_version": 1, "iterations": to_tree(list(iterations)), "widest": to_tree(widest)}
