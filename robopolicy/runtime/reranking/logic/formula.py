"""Formulas of signal temporal logic, on signals sampled at equal steps.

Times are whole steps here; ``parse`` converts seconds. A formula's ``horizon`` is how many steps after an
instant it looks at, at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

Numeric = Union["Number", "Signal", "Arithmetic", "Absolute"]
Formula = Union["Predicate", "Not", "Both", "Either", "Always", "Eventually", "Until"]


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Signal:
    """A named signal."""

    name: str


@dataclass(frozen=True)
class Arithmetic:
    """Two numbers joined by "+", "-", "*" or "/"."""

    sign: str
    left: Numeric
    right: Numeric


@dataclass(frozen=True)
class Absolute:
    """Its magnitude."""

    of: Numeric


@dataclass(frozen=True)
class Interval:
    """Steps from an instant, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class Predicate:
    """More is larger than less; whether strictly makes no difference to robustness."""

    more: Numeric
    less: Numeric

    @property
    def horizon(self) -> int:
        return 0


@dataclass(frozen=True)
class Not:
    """The opposite."""

    of: Formula

    @property
    def horizon(self) -> int:
        return self.of.horizon


@dataclass(frozen=True)
class Both:
    """Conjunction."""

    left: Formula
    right: Formula

    @property
    def horizon(self) -> int:
        return max(self.left.horizon, self.right.horizon)


@dataclass(frozen=True)
class Either:
    """Disjunction; ``a implies b`` is ``not a or b``."""

    left: Formula
    right: Formula

    @property
    def horizon(self) -> int:
        return max(self.left.horizon, self.right.horizon)


@dataclass(frozen=True)
class Always:
    """At every step of the interval."""

    of: Formula
    interval: Interval | None = None  # without one: from now as far as the signals go

    @property
    def horizon(self) -> int:
        return self.of.horizon + (self.interval.last if self.interval else 0)


@dataclass(frozen=True)
class Eventually:
    """At some step of the interval."""

    of: Formula
    interval: Interval | None = None  # without one: from now as far as the signals go

    @property
    def horizon(self) -> int:
        return self.of.horizon + (self.interval.last if self.interval else 0)


@dataclass(frozen=True)
class Until:
    """At some step of the interval the right holds, and at all from now to it, itself included, the left."""

    left: Formula
    right: Formula
    interval: Interval | None = None  # without one: from now as far as the signals go

    @property
    def horizon(self) -> int:
        return max(self.left.horizon, self.right.horizon) + (self.interval.last if self.interval else 0)


def signals_of(part: Formula | Numeric) -> set[str]:
    """Names of the signals it is about."""
    if isinstance(part, Signal):
        return {part.name}
    inner = (signals_of(value) for name, value in vars(part).items() if name in _PARTS)
    return set().union(*inner)


def is_open(formula: Formula) -> bool:
    """Whether some part of it looks as far as the signals go."""
    if isinstance(formula, Predicate):
        return False
    inner = (is_open(value) for name, value in vars(formula).items() if name in _PARTS)
    return getattr(formula, "interval", ...) is None or any(inner)


_PARTS = ("of", "left", "right", "more", "less")
