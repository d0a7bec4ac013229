"""What is kept of an episode once it has left memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Summary:
    """One episode in a few numbers.

    Args:
        name: of the episode.
        length: actions.
        duration: first to last action [s].
        instruction, success: as in ``Episode``.
        measures: what each check's ``measure`` returned, by the check's name; empty when the action is
            unusable.
    """

    name: str
    length: int
    duration: float
    instruction: str = ""
    success: bool | None = None
    measures: Mapping[str, Any] = field(default_factory=dict)


def measured(summaries: Sequence[Summary], check: str) -> list[tuple[str, Any]]:
    """Episode names and what ``check`` measured, episodes without a measure left out."""
    return [(s.name, s.measures[check]) for s in summaries if check in s.measures]


def listed(names: Sequence[str], at_most: int = 5) -> str:
    """Names for a message, the first few of them."""
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"
