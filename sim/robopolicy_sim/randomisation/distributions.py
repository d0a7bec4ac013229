"""What a value is drawn from: a constant, a range, a truncated normal, a beta or a list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import special

from robopolicy.core.errors import ConfigError, UnknownNameError

Value = float | int | str
_LEAST_MASS = 1e-6  # of a normal within its bounds; with less its tails are too coarse to draw from


class Distribution(Protocol):
    """Draws one value; one number of the generator at most, so that draws can be told apart by stream."""

    def draw(self, rng: np.random.Generator) -> Value: ...

    def extremes(self) -> tuple[Value, ...]:
        """Values that everything drawn lies between, or all of them where they are listed."""
        ...


@dataclass(frozen=True)
class Constant:
    """Always the same."""

    value: Value

    def draw(self, rng: np.random.Generator) -> Value:
        return self.value

    def extremes(self) -> tuple[Value, ...]:
        return (self.value,)


@dataclass(frozen=True)
class Uniform:
    """Anything from low to high, equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)

    def draw(self, rng: np.random.Generator) -> Value:
        return self.low + (self.high - self.low) * rng.random()

    def extremes(self) -> tuple[Value, ...]:
        return self.low, self.high


@dataclass(frozen=True)
class LogUniform:
    """Anything from low to high, factors equally likely; for scales, where halving is as far as doubling."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)
        if self.low <= 0:
            raise ConfigError(f"loguniform needs a positive range, got {self.low} to {self.high}")

    def draw(self, rng: np.random.Generator) -> Value:
        # exp(log(high)) may exceed high in the last digit
        value: float = self.low * (self.high / self.low) ** rng.random()
        return min(max(value, self.low), self.high)

    def extremes(self) -> tuple[Value, ...]:
        return self.low, self.high


@dataclass(frozen=True)
class Normal:
    """A normal distribution cut off at low and high, drawn by its inverse."""

    mean: float
    std: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)
        if not self.std > 0:
            raise ConfigError(f"normal needs std > 0, got {self.std}; use constant for none")
        if self._mass()[1] < _LEAST_MASS:
            raise ConfigError(
                f"hardly any of normal({self.mean}, {self.std}) lies in {self.low} to {self.high}"
            )

    def _mass(self) -> tuple[float, float]:
        below, above = (float(special.ndtr((v - self.mean) / self.std)) for v in (self.low, self.high))
        return below, above - below

    def draw(self, rng: np.random.Generator) -> Value:
        below, mass = self._mass()
        value = self.mean + self.std * float(special.ndtri(below + mass * rng.random()))
        return min(max(value, self.low), self.high)

    def extremes(self) -> tuple[Value, ...]:
        return self.low, self.high


@dataclass(frozen=True)
class Beta:
    """low + (high - low) * Beta(a, b); what DORAEMON adapts. Beta(1, 1) is uniform."""

    a: float
    b: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)
        if not (self.a > 0 and self.b > 0):
            raise ConfigError(f"beta needs a > 0 and b > 0, got {self.a}, {self.b}")

    def draw(self, rng: np.random.Generator) -> Value:
        return self.low + (self.high - self.low) * float(special.betaincinv(self.a, self.b, rng.random()))

    def extremes(self) -> tuple[Value, ...]:
        return self.low, self.high


@dataclass(frozen=True)
class Choice:
    """One of some values, equally likely."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("choice needs at least one value")

    def draw(self, rng: np.random.Generator) -> Value:
        return self.values[int(rng.random() * len(self.values))]

    def extremes(self) -> tuple[Value, ...]:
        return self.values


_FAMILIES: dict[str, tuple[type[Any], tuple[str, ...], int]] = {
    # family: class, names of its parameters, how many of them must be given
    "uniform": (Uniform, ("low", "high"), 2),
    "loguniform": (LogUniform, ("low", "high"), 2),
    "normal": (Normal, ("mean", "std", "low", "high"), 2),
    "beta": (Beta, ("a", "b", "low", "high"), 4),
}
FAMILIES = (*_FAMILIES, "choice", "constant")


def _ordered(low: float, high: float) -> None:
    if not low <= high:
        raise ConfigError(f"a range goes from low to high, got {low} to {high}")


def parse_distribution(tree: Any) -> Distribution:
    """A distribution from plain data.

    Args:
        tree: ``0.5`` or a text (constant), ``[0.5, 2]`` (uniform), or one entry of FAMILY: parameters, as
            ``{"normal": {"mean": 0, "std": 0.1}}``, ``{"loguniform": [0.5, 2]}`` or ``{"choice": [1, 2]}``.
    Raises:
        ConfigError, UnknownNameError: anything else; names the value and what there is.
    """
    if is_value(tree):
        return Constant(tree)
    if is_list(tree):
        if len(tree) != 2:
            raise ConfigError(
                f"a range is [low, high], got {list(tree)}; a list of values is {{choice: [...]}}"
            )
        return Uniform(*_numbers("uniform", tree))
    if not isinstance(tree, Mapping) or len(tree) != 1:
        raise ConfigError(f"expected a value, [low, high] or one of {', '.join(FAMILIES)}, got {tree!r}")
    (family, given), *_ = tree.items()
    if family == "constant" and is_value(given):
        return Constant(given)
    if family == "choice" and is_list(given) and all(is_value(v) for v in given):
        return Choice(tuple(given))
    if family not in _FAMILIES:
        if family in FAMILIES:
            raise ConfigError(f"{family} does not take {given!r}")
        raise UnknownNameError("distribution", str(family), FAMILIES)
    return _build(family, given)


def _build(family: str, given: Any) -> Distribution:
    cls, names, required = _FAMILIES[family]
    if is_list(given):
        given = dict(zip(names, given)) if len(given) <= len(names) else {}
    if not isinstance(given, Mapping) or not set(names[:required]) <= set(given) <= set(names):
        raise ConfigError(f"{family} takes {', '.join(names)} ({required} at least), got {given!r}")
    values = dict(zip(given, _numbers(family, list(given.values()))))
    made: Distribution = cls(**values)
    return made


def is_value(tree: Any) -> bool:
    return isinstance(tree, (int, float, str)) and not isinstance(tree, bool)


def is_list(tree: Any) -> bool:
    return isinstance(tree, Sequence) and not isinstance(tree, str)


def _numbers(family: str, values: Sequence[Any]) -> list[float]:
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and not math.isnan(v) for v in values):
        raise ConfigError(f"{family} takes numbers, got {list(values)}")
    return [float(v) for v in values]
