"""Rank checkpoints for the real robot by simulated success and by how real observations look to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robopolicy.cli.eval import load_any
from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import Policy
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.serial import to_tree
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.checkpoint_choice import Candidate, Ranked, rank_checkpoints
from robopolicy.evaluation.instructed import InstructedPolicy
from robopolicy.evaluation.observations import Sample, sample_windows
from robopolicy.evaluation.ood import (
    SPACES,
    Strangeness,
    choose_space,
    measure_strangeness,
    policy_features,
)
from robopolicy.evaluation.stored import read_evaluation

CHOICE_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Args:
    """What to choose from.

    Args:
        checkpoints: training runs, saved policies or bundles.
        results: the eval.json (or its folder) of each, in the same order.
        real: store of real observations; they are never acted on, and serve every checkpoint alike.
        simulated: store of simulated observations that the checkpoints know, best what they were trained on;
            one for all, or one each.
        output: a new folder for ``choice.json``.
        windows: observations to take from each store.
        space: where distances are measured: features (the policy's encoder), behaviour (its action chunks and
            how far they disagree), or auto, which takes features where a policy offers them.
        candidates: action chunks per observation, for behaviour.
        seed: of the sample and of the candidates' noise.
        instruction: what checkpoints that follow instructions are told, in simulation and for real alike.
        threads: of the inference on a CPU.
    """

    checkpoints: tyro.conf.Positional[tuple[Path, ...]]
    results: tuple[Path, ...]
    real: str
    simulated: tuple[str, ...]
    output: Path
    windows: int = 512
    space: str = "auto"
    candidates: int = 8
    seed: int = 0
    instruction: str = ""
    threads: int = 1


def run(args: Args) -> int:
    console = Console()
    _check(args)
    evaluations = [read_evaluation(path) for path in args.results]
    environments = sorted({e.environment.name for e in evaluations})
    if len(environments) > 1:
        raise ConfigError(f"simulated success of different environments cannot be compared: {environments}")
    stores = [EpisodeStore.open(where) for where in args.simulated]
    stores = stores * len(args.checkpoints) if len(stores) == 1 else stores
    real_store, candidates, spaces = EpisodeStore.open(args.real), [], {}
    episode = None
    for path, evaluation, store in zip(args.checkpoints, evaluations, stores):
        policy: Policy = load_any(path, args.threads)
        if args.instruction:
            policy = InstructedPolicy(policy, args.instruction)
        real = sample_windows(real_store, policy.policy_specs, args.windows, seed=args.seed)
        outcomes = {e.seed: e.success for e in evaluation.episodes}
        candidates.append(Candidate(str(path), outcomes, _strangeness(policy, store, real, args)))
        spaces[str(path)] = choose_space(policy, args.space)
        episode = real.episode
        console.print(f"measured {path}", soft_wrap=True, markup=False, highlight=False)
    assert episode is not None
    ranking = rank_checkpoints(candidates, episode, seed=args.seed)
    create_run(args.output, args, seed=args.seed)
    tree = {
        "schema_version": CHOICE_SCHEMA_VERSION,
        "environment": environments[0],
        "score": "simulated success rate * min(1, 1 / ood_ratio)",
        "spaces": spaces,
        "real_observations": len(episode),
        "ranking": to_tree(ranking),
    }
    write_json(args.output / "choice.json", tree)
    console.print(table(ranking))
    return 0


def _strangeness(policy: Policy, store: EpisodeStore, real: Sample, args: Args) -> Strangeness:
    """Half of the simulated episodes say what is usual, the other half how far usual ones lie."""
    if len(store.names) < 2:
        raise ConfigError(f"{store.where} needs at least two episodes, one is held out; it has {store.names}")
    count = max(args.windows // 2, 2)
    samples = [
        sample_windows(store, policy.policy_specs, count, names=store.names[half::2], seed=args.seed)
        for half in (0, 1)
    ]
    fitted, held_out, seen = (
        policy_features(
            policy, sample.observation, space=args.space, candidates=args.candidates, seed=args.seed
        )
        for sample in (*samples, real)
    )
    return measure_strangeness(fitted=fitted, held_out=held_out, real=seen)


def table(ranking: list[Ranked]) -> Table:
    """Best first."""
    result = Table(caption="score = simulated success * min(1, 1 / OOD ratio); try the first ones for real")
    columns = ("", "checkpoint", "simulated success", "OOD ratio", "score", "first in", "by success alone")
    for header in columns:
        result.add_column(header, justify="left" if header == "checkpoint" else "right")
    for row in ranking:
        low, high = row.success_interval
        score_low, score_high = row.score_interval
        cells = [
            str(row.place),
            row.name,
            f"{row.successes}/{row.count} = {row.success_rate:.3f} [{low:.3f}, {high:.3f}]",
            f"{row.ood_ratio:.2f}",
            f"{row.score:.3f} [{score_low:.3f}, {score_high:.3f}]",
            f"{row.best_share:.0%}",
            str(row.simulated_place),
        ]
        result.add_row(*(Text(cell) for cell in cells))
    return result


def _check(args: Args) -> None:
    count = len(args.checkpoints)
    if count < 2:
        raise ConfigError(
            f"a choice needs at least two checkpoints, got {[str(p) for p in args.checkpoints]}"
        )
    if len(args.results) != count:
        raise ConfigError(f"{count} checkpoints need as many --results, got {len(args.results)}")
    if len(args.simulated) not in (1, count):
        raise ConfigError(
            f"--simulated takes one store, or one for each of {count}, got {len(args.simulated)}"
        )
    if args.space not in SPACES:
        raise ConfigError(f"--space {args.space!r} is not one of {SPACES}")
    if args.windows < 4:
        raise ConfigError(f"--windows must be >= 4, got {args.windows}")
