"""Observations that are zero throughout: a sensor that was never connected, a topic nobody published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.signals import states
from robopolicy.datasets.quality.summaries import Summary, listed, measured


def measure(name: str, episode: Episode, specs: Specs) -> dict[str, bool]:
    """Whether each state is zero in every sample."""
    return {key: not signal.value.any() for key, signal, _ in states(episode, specs)}


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """Zero in all episodes, or in some although others show that it need not be.

    A single number is let off in the second case: a gripper that stays closed reads zero.
    """
    seen = measured(summaries, "zeros")
    for key in specs.observation:
        told = [(name, zero[key]) for name, zero in seen if key in zero]
        zero = [name for name, is_zero in told if is_zero]
        if not zero:
            continue
        if len(zero) == len(told):
            yield Finding(
                "warning", "zeros", "", key, "every sample of every episode is zero: not connected?"
            )
        elif specs.observation[key].num_features > 1:
            message = f"zero throughout in {len(zero)} of {len(told)} episodes: {listed(zero)}"
            episode = zero[0] if len(zero) == 1 else ""
            yield Finding("warning", "zeros", episode, key, message)
