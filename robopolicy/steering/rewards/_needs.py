"""Which signals a reward looks at, so that only those are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def needs(*, observations: tuple[str, ...] = (), extras: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Decorates a reward: its episodes hold these observations (cameras decoded) and extras."""

    def told(function: F) -> F:
        function.needed_observations = observations  # type: ignore[attr-defined]
        function.needed_extras = extras  # type: ignore[attr-defined]
        return function

    return told


def needed(function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Observations and extras that a reward looks at; without ``needs`` none."""
    return getattr(function, "needed_observations", ()), getattr(function, "needed_extras", ())
