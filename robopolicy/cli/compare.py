"""Compare policies on the same seeds, or results that are already there."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape

from robopolicy.cli.eval import load_any
from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.campaign import JOURNAL, Campaign, check_environment, run_campaign
from robopolicy.evaluation.comparison import Report, compare
from robopolicy.evaluation.comparison_table import table
from robopolicy.evaluation.environments import parse_options
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.sequential import Evidence
from robopolicy.evaluation.sequential_run import compare_sequentially
from robopolicy.evaluation.stored import FILE_NAME, Evaluation, StoppingRule, read_evaluation

COMPARE_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Args:
    """What to compare. The first one is the baseline, every other one is compared with it.

    Args:
        policies: training runs, saved policies or bundles, which are evaluated now; or folders with an
            eval.json (or such files), which are read.
        output: a new folder for ``compare.json``, ``report.html``, and an ``eval.json`` per policy.
        env, option, episodes, seed, noise_seed, num_envs, executor, workers, threads: as ``robopolicy eval``.
        sequential: evaluate in batches and stop as soon as the policies are told apart; ``episodes`` is then
            the largest number.
        batch: episodes of each policy between two looks.
        margin: with ``sequential``, stop as well once the success rates differ by no more than this.
        alpha: chance of a false claim; intervals are at 1 - alpha.
        unpaired: stored results of different seeds, as real robots give them: a weaker test.
        resume: go on with a comparison that was interrupted in ``output``.
        report: write ``report.html``.
    """

    policies: tyro.conf.Positional[tuple[Path, ...]]
    output: Path
    env: str = "lift"
    option: tuple[str, ...] = ()
    episodes: int = 50
    seed: int = 1_000_000
    noise_seed: int = 0
    num_envs: int = 16
    executor: str = "processes"
    workers: int = 0
    threads: int = 1
    sequential: bool = False
    batch: int = 16
    margin: float = 0.0
    alpha: float = 0.05
    unpaired: bool = False
    resume: bool = False
    report: bool = True


def run(args: Args) -> int:
    console = Console()
    _check(args)
    labels = _labels(args.policies)
    if _stored(args.policies[0]):
        files = dict(zip(labels, (_file(path) for path in args.policies)))
        evaluations = {label: read_evaluation(file) for label, file in files.items()}
        _check_environments(evaluations, console)
        results = {label: evaluation.episodes for label, evaluation in evaluations.items()}
        report = compare(results, paired=not args.unpaired, confidence=1 - args.alpha)
        create_run(args.output, args)
    else:
        files = {n: args.output / f"{i}_{n.replace('/', '_')}" / FILE_NAME for i, n in enumerate(labels)}
        report = _simulate(args, files, console)
    write_json(args.output / "compare.json", as_tree(report, files, args))
    console.print(table(report))
    if args.report:
        from robopolicy.evaluation.eval_report import load_entries, write_evaluation_report

        entries = load_entries(list(files.values()), labels)
        write_evaluation_report(args.output / "report.html", entries, comparison=report)
        console.print(f"open {args.output / 'report.html'}", soft_wrap=True)
    return 0


def _simulate(args: Args, files: Mapping[str, Path], console: Console) -> Report:
    """Evaluate every policy into the folder of its file, all seeds at once or batch by batch."""
    policies = {label: load_any(path, args.threads) for label, path in zip(files, args.policies)}
    campaign = Campaign(
        env=args.env,
        options=parse_options(args.option),
        seeds=tuple(range(args.seed, args.seed + args.episodes)),
        noise_seed=args.noise_seed,
        num_envs=args.num_envs,
        executor=args.executor,
        workers=args.workers,
        stopping=StoppingRule("sequential", args.episodes, stopping_text(args)) if args.sequential else None,
    )
    for policy in policies.values():
        check_environment(campaign, policy)
    if not args.resume:
        create_run(args.output, args, seed=args.seed)
    elif not any((file.parent / JOURNAL).is_file() for file in files.values()):
        raise ConfigError(f"nothing to resume: {args.output} holds no */{JOURNAL}")
    for file in files.values():
        file.parent.mkdir(exist_ok=True)
    command = ("robopolicy", *sys.argv[1:])

    def evaluate(label: str, seeds: Sequence[int]) -> Sequence[EpisodeResult]:
        """All seeds from the first on; the folder's journal gives those that have run."""
        asked = dataclasses.replace(campaign, seeds=campaign.seeds[: campaign.seeds.index(seeds[-1]) + 1])
        folder = files[label].parent
        found = run_campaign(asked, policies[label], folder, label=label, command=command, console=console)
        return found.episodes[-len(seeds) :]

    if not args.sequential:
        results = {label: evaluate(label, campaign.seeds) for label in files}
        return compare(results, confidence=1 - args.alpha)
    return compare_sequentially(
        list(files),
        campaign.seeds,
        evaluate,
        batch=args.batch,
        alpha=args.alpha,
        margin=args.margin,
        on_batch=lambda evidence: console.print(_progress(evidence)),
    ).report


def stopping_text(args: Args) -> str:
    """The rule of a sequential comparison, for the record."""
    alike = f", or until rates differ by no more than {args.margin:g}" if args.margin else ""
    return (
        f"batches of {args.batch} up to {args.episodes} episodes, until told apart from the first policy at "
        f"alpha {args.alpha:g} by an anytime-valid test{alike}"
    )


def as_tree(report: Report, files: Mapping[str, Path], args: Args) -> dict[str, Any]:
    """Contents of ``compare.json``: the report, and where the episodes are."""
    return {
        "schema_version": COMPARE_SCHEMA_VERSION,
        "results": {label: str(file) for label, file in files.items()},
        "stopping": stopping_text(args) if args.sequential else "fixed number of episodes",
        **to_tree(report),
    }


def _progress(evidence: Mapping[str, Evidence]) -> str:
    parts = [
        f"{escape(name)}: {e.difference:+.2f} after {e.pairs}, p {e.p_value:.2g}, {e.decision}"
        for name, e in evidence.items()
    ]
    return "; ".join(parts)


def _check(args: Args) -> None:
    if len(args.policies) < 2:
        raise ConfigError(f"a comparison needs at least two policies, got {[str(p) for p in args.policies]}")
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    if not 0 < args.alpha < 1:
        raise ConfigError(f"--alpha must lie in (0, 1), got {args.alpha}")
    stored = [path for path in args.policies if _stored(path)]
    if stored and len(stored) < len(args.policies):
        others = [str(path) for path in args.policies if path not in stored]
        raise ConfigError(
            f"{[str(p) for p in stored]} hold results, {others} are policies to run; give only one kind"
        )
    if stored and (args.sequential or args.resume):
        raise ConfigError("--sequential and --resume run new episodes; stored results only need reading")
    if args.unpaired and not stored:
        raise ConfigError("--unpaired is for stored results; policies that run here run on the same seeds")


def _check_environments(evaluations: Mapping[str, Evaluation], console: Console) -> None:
    """Other environments are refused; other options and early stops are told, for there are good reasons."""
    environments = {label: e.environment.name for label, e in evaluations.items()}
    if len(set(environments.values())) > 1:
        raise ConfigError(f"results of different environments cannot be compared: {environments}")
    options = {label: dict(e.environment.options) for label, e in evaluations.items()}
    if any(o != next(iter(options.values())) for o in options.values()):
        console.print(f"[yellow]note:[/] other options of the environment: {escape(str(options))}")
    if any(e.stopping.kind != "fixed" for e in evaluations.values()):
        console.print("[yellow]note:[/] some were stopped by their outcomes; p-values here assume a fixed n")


def _stored(path: Path) -> bool:
    return path.is_file() or (path / FILE_NAME).is_file()


def _file(path: Path) -> Path:
    return path if path.is_file() else path / FILE_NAME


def _labels(paths: Sequence[Path]) -> list[str]:
    """Names of the folders, or whole paths where names are not enough."""
    names = [path.resolve().parent.name if path.is_file() else path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ConfigError(f"the same policy is given twice: {names}")
    return names
