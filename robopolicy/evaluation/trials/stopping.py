"""When trials may end early: once the policies are told apart, with error control that survives looking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.sequential import UNDECIDED, PairedSequence
from robopolicy.evaluation.stored import StoppingRule
from robopolicy.evaluation.trials.session import StopRule


def sequential_rule(policies: int, *, alpha: float = 0.05, margin: float = 0.0) -> StopRule:
    """Stop once every policy is told apart from the first, at alpha / (policies - 1) each.

    Args:
        alpha: chance of any false claim, however often one looks.
        margin: differences no larger than this do not matter; see ``PairedSequence``.
    """
    level = alpha / max(policies - 1, 1)

    def stop(blocks: Sequence[tuple[bool, ...]]) -> str:
        for other in range(1, policies):
            sequence = PairedSequence(alpha=level, margin=margin)
            for won in blocks:
                sequence.add(baseline=won[0], other=won[other])
            if sequence.evidence.decision == UNDECIDED:
                return ""
        return f"all policies told apart after {len(blocks)} blocks"

    return stop


@dataclass(frozen=True)
class Rule:
    """When to stop, for the session and for the report."""

    stop: StopRule
    declared: StoppingRule


def rule(policies: int, blocks: int, sequential: bool, *, alpha: float = 0.05, margin: float = 0.0) -> Rule:
    """A fixed number of blocks, or at most that many; ConfigError for a sequential test of one policy."""
    if not sequential:
        text = f"exactly {blocks} blocks of {policies} trials, decided beforehand"
        return Rule(lambda done: "", StoppingRule("fixed", blocks, text))
    if policies < 2:
        raise ConfigError("a sequential test needs at least two policies, got one")
    alike = f", or differs by no more than {margin:g}" if margin else ""
    each = f", {alpha / (policies - 1):.3g} for each" if policies > 2 else ""
    text = (
        f"until every policy is told apart from the first{alike}, at most {blocks} blocks of {policies} "
        f"trials; anytime-valid test, alpha {alpha:g}{each}"
    )
    stop = sequential_rule(policies, alpha=alpha, margin=margin)
    return Rule(stop, StoppingRule("sequential", blocks, text))
