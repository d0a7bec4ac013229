"""Independent Beta distributions on given ranges: density, entropy, divergence, and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from robopolicy.core.errors import ConfigError

Float = NDArray[np.float64]
_EDGE = 1e-12  # values are kept this far inside 0..1, where logarithms are finite


@dataclass(frozen=True)
class Betas:
    """One distribution per parameter: low + (high - low) * Beta(a, b), all in float64.

    Entropy and density are those on 0..1, so the largest entropy is 0, of the uniform distribution.

    Args:
        names: of the parameters.
        low, high: (dim,) ranges; a, b: (dim,) at least 1, so that nothing piles up at the edges.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.low), len(self.high), len(self.a), len(self.b)}
        if lengths != {len(set(self.names))} or not self.names:
            raise ConfigError(f"need one range and one a, b for each of the parameters {self.names}")
        for name, low, high, a, b in zip(self.names, self.low, self.high, self.a, self.b):
            if not low < high:
                raise ConfigError(f"{name} needs low < high, got {low} to {high}")
            if not min(a, b) >= 1:
                raise ConfigError(f"{name} needs a, b >= 1, got {a}, {b}")

    @classmethod
    def around(cls, ranges: Mapping[str, tuple[float, float, float]], concentration: float = 50.0) -> Betas:
        """Narrow distributions with their mode at a start: (low, start, high) of each parameter.

        Args:
            concentration: a + b - 2; the standard deviation is about half the range over its root.
        """
        share = []
        for name, (low, start, high) in ranges.items():
            if not low <= start <= high or not low < high:
                raise ConfigError(f"{name} needs low <= start <= high, got {low}, {start}, {high}")
            share.append((start - low) / (high - low))
        return cls(
            names=tuple(ranges),
            low=tuple(low for low, _, _ in ranges.values()),
            high=tuple(high for _, _, high in ranges.values()),
            a=tuple(1 + concentration * s for s in share),
            b=tuple(1 + concentration * (1 - s) for s in share),
        )

    @property
    def dim(self) -> int:
        return len(self.names)

    @property
    def parameters(self) -> Float:
        """(2 dim,) every a, then every b."""
        return np.array([*self.a, *self.b], dtype=np.float64)

    def replaced(self, parameters: Float) -> Betas:
        """The same ranges with other ``parameters``."""
        values = np.maximum(parameters, 1.0).tolist()
        return replace(self, a=tuple(values[: self.dim]), b=tuple(values[self.dim :]))

    def entropy(self) -> float:
        """In nats, at most 0."""
        a, b = np.split(self.parameters, 2)
        each = special.betaln(a, b) - (a - 1) * special.psi(a) - (b - 1) * special.psi(b)
        return float(np.sum(each + (a + b - 2) * special.psi(a + b)))

    def entropy_gradient(self) -> Float:
        """(2 dim,) with respect to ``parameters``."""
        a, b = np.split(self.parameters, 2)
        shared = (a + b - 2) * special.polygamma(1, a + b)
        return np.concatenate(
            [shared - (a - 1) * special.polygamma(1, a), shared - (b - 1) * special.polygamma(1, b)]
        )

    def kl(self, other: Betas) -> float:
        """KL(self || other) in nats; the ranges are taken to be the same."""
        (a, b), (a0, b0) = np.split(self.parameters, 2), np.split(other.parameters, 2)
        each = special.betaln(a0, b0) - special.betaln(a, b)
        each += (a - a0) * special.psi(a) + (b - b0) * special.psi(b)
        return float(np.sum(each + (a0 - a + b0 - b) * special.psi(a + b)))

    def kl_gradient(self, other: Betas) -> Float:
        """(2 dim,) of ``kl`` with respect to the ``parameters`` of self."""
        (a, b), (a0, b0) = np.split(self.parameters, 2), np.split(other.parameters, 2)
        shared = (a0 - a + b0 - b) * special.polygamma(1, a + b)
        return np.concatenate(
            [shared + (a - a0) * special.polygamma(1, a), shared + (b - b0) * special.polygamma(1, b)]
        )

    def log_density(self, values: Float) -> Float:
        """(n,) of (n, dim) values, on 0..1."""
        a, b = np.split(self.parameters, 2)
        x = self._unit(values)
        density: Float = np.sum((a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - special.betaln(a, b), axis=1)
        return density

    def log_density_gradient(self, values: Float) -> Float:
        """(n, 2 dim) with respect to ``parameters``."""
        a, b = np.split(self.parameters, 2)
        x, both = self._unit(values), special.psi(a + b)
        return np.concatenate(
            [np.log(x) - special.psi(a) + both, np.log1p(-x) - special.psi(b) + both], axis=1
        )

    def _unit(self, values: Float) -> Float:
        low, high = np.array(self.low), np.array(self.high)
        unit: Float = np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), _EDGE, 1 - _EDGE)
        return unit

    def quantiles(self, share: float) -> Float:
        """(dim,) values below which a share of the draws lies."""
        a, b = np.split(self.parameters, 2)
        low, high = np.array(self.low), np.array(self.high)
        quantiles: Float = low + (high - low) * special.betaincinv(a, b, share)
        return quantiles

    def sample(self, count: int, rng: np.random.Generator) -> Float:
        """(count, dim) draws."""
        a, b = np.split(self.parameters, 2)
        low, high = np.array(self.low), np.array(self.high)
        drawn: Float = low + (high - low) * rng.beta(a, b, size=(count, self.dim))
        return drawn

    def as_randomisation(self) -> dict[str, dict[str, dict[str, float]]]:
        """Plain data, as an environment's ``randomisation`` option takes it."""
        rows = zip(self.names, self.a, self.b, self.low, self.high)
        return {name: {"beta": {"a": a, "b": b, "low": low, "high": high}} for name, a, b, low, high in rows}
