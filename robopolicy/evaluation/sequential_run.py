"""Evaluate policies batch by batch on the same seeds, and stop as soon as they are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.comparison import (
    Comparison,
    Report,
    adjust,
    compare_pair,
    pair_up,
    policy_row,
)
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.sequential import BETTER, UNDECIDED, WORSE, Evidence, PairedSequence

SEQUENTIAL = "betting e-process (anytime-valid)"


@dataclass(frozen=True)
class SequentialRun:
    """Episodes as far as they went, and the report on them.

    In the report the confidence sequence stands for the interval of each difference (all of them together
    at 1 - alpha), and p-values hold whenever one stops. The policies' own intervals are those of a fixed
    number of episodes, and a difference at the moment of stopping is on average a little too large.
    """

    results: Mapping[str, tuple[EpisodeResult, ...]]
    report: Report


def compare_sequentially(
    names: Sequence[str],
    seeds: Sequence[int],
    run: Callable[[str, Sequence[int]], Sequence[EpisodeResult]],
    *,
    batch: int = 16,
    alpha: float = 0.05,
    margin: float = 0.0,
    on_batch: Callable[[Mapping[str, Evidence]], None] | None = None,
) -> SequentialRun:
    """Evaluate in batches; a policy stops once it is told apart from the first one, all when seeds run out.

    With several policies each is tested at alpha / (policies - 1), so that the chance of any false claim
    stays below alpha at all times; final p-values are adjusted by Holm, which is valid at any time too.

    Args:
        names: the baseline first.
        seeds: at most these, in this order; they must not be chosen by looking at outcomes.
        run: (name, seeds) to results; called with ``batch`` seeds at a time.
    Raises:
        ConfigError: fewer than two policies, no seeds, a seed twice, or a batch below 1.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"a comparison needs at least two policies of different names, got {list(names)}")
    if not seeds or len(set(seeds)) < len(seeds) or batch < 1:
        raise ConfigError(f"need different seeds and batch >= 1, got {len(seeds)} seeds, batch {batch}")
    baseline, *others = names
    results: dict[str, list[EpisodeResult]] = {name: [] for name in names}
    level = alpha / len(others)
    sequences = {other: PairedSequence(alpha=level, margin=margin) for other in others}
    for first in range(0, len(seeds), batch):
        open_ones = [name for name in others if _open(sequences[name])]
        if not open_ones:
            break
        part = seeds[first : first + batch]
        for name in (baseline, *open_ones):
            results[name].extend(run(name, part))
        for name in open_ones:
            for b, o in pair_up(baseline=results[baseline][first:], other=results[name][first:]):
                sequences[name].add(baseline=b.success, other=o.success)
        if on_batch is not None:
            on_batch({name: sequence.evidence for name, sequence in sequences.items()})
    found = adjust([_comparison(results, baseline, other, sequences[other]) for other in others])
    report = Report(
        policies=tuple(policy_row(name, episodes, 1 - alpha) for name, episodes in results.items()),
        comparisons=tuple(_settle(comparison, alpha) for comparison in found),
        cochran_p=None,
        confidence=1 - alpha,
    )
    return SequentialRun({name: tuple(episodes) for name, episodes in results.items()}, report)


def _open(sequence: PairedSequence) -> bool:
    return not sequence.pairs or sequence.evidence.decision == UNDECIDED


def _comparison(
    results: Mapping[str, Sequence[EpisodeResult]], baseline: str, other: str, sequence: PairedSequence
) -> Comparison:
    """The paired comparison with the figures that stay valid although the test chose when to stop."""
    evidence = sequence.evidence
    return dataclasses.replace(
        compare_pair(results, baseline, other),
        test=SEQUENTIAL,
        difference_interval=evidence.interval,
        p_value=evidence.p_value,
        odds_ratio_interval=None,  # this and those of means assume a number of pairs fixed beforehand
        means={},
        decision=evidence.decision,
    )


def _settle(comparison: Comparison, alpha: float) -> Comparison:
    """Holm's correction may tell apart what the cruder alpha / comparisons of the stopping rule did not."""
    if comparison.decision != UNDECIDED or comparison.p_adjusted > alpha:
        return comparison
    return dataclasses.replace(comparison, decision=BETTER if comparison.difference > 0 else WORSE)
