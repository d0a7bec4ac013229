"""How strange real observations look to a policy, next to the simulated ones it knows.

Distances are those of Mahalanobis with Ledoit and Wolf's shrunk covariance, in a space that belongs to the
policy: its own features where it offers them, otherwise what it does (its action chunks and how far its
candidates disagree). They are given as a ratio to the distance of held-out simulated observations, so that
policies with features of other sizes and scales can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.policy import Arrays, Policy, draw_noise, keyed_rng

Array = NDArray[np.float64]

BATCH = 16
SPACES = ("auto", "features", "behaviour")
#: A feature that spans less than this in simulation is not rescaled.
MINIMUM_DEVIATION = 1e-9


@runtime_checkable
class FeaturePolicy(Protocol):
    """A policy that shows how it sees an observation; optional."""

    def features(self, observation: Arrays) -> NDArray[np.float32]:
        """Observation windows, each (batch, observation_horizon, *shape), to (batch, features)."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """What simulated features are like.

    Args:
        mean, deviation: (features,) by which features are standardised.
        covariance: (features, features) of the standardised ones, shrunk.
        shrinkage: 0 (the sample's own covariance) to 1 (a multiple of the identity).
    """

    mean: Array
    deviation: Array
    covariance: Array
    shrinkage: float

    @staticmethod
    def fit(features: Array) -> Gaussian:
        """Of (n, features); ConfigError with fewer than two rows."""
        values = _finite(features)
        if len(values) < 2:
            raise ConfigError(f"a covariance needs at least two observations, got {len(values)}")
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        deviation = np.where(deviation < MINIMUM_DEVIATION, 1.0, deviation)
        covariance, shrinkage = ledoit_wolf((values - mean) / deviation)
        return Gaussian(mean, deviation, covariance, shrinkage)

    def distance(self, features: Array) -> Array:
        """(n, features) -> (n,) Mahalanobis distance over sqrt(features): about 1 for what was fitted."""
        values = _finite(features)
        if values.shape[1] != len(self.mean):
            raise ShapeError(f"features must be (n, {len(self.mean)}), got {values.shape}")
        centred = (values - self.mean) / self.deviation
        whitened = linalg.solve_triangular(
            linalg.cholesky(self.covariance, lower=True), centred.T, lower=True
        )
        distances: Array = np.sqrt((whitened**2).mean(axis=0))
        return distances


def ledoit_wolf(centred: Array) -> tuple[Array, float]:
    """Covariance shrunk towards a multiple of the identity, by as much as loses least on average.

    Args:
        centred: (n, features), mean 0.
    Returns:
        (features, features) (1 - s) S + s m I, positive definite, and s in [0, 1].
    Raises:
        ConfigError: no feature varies.
    Source: Ledoit and Wolf 2004, "A well-conditioned estimator", eq. 14 and lemmas 3.2 to 3.4.
    """
    n, size = centred.shape
    sample = centred.T @ centred / n
    m = float(np.trace(sample)) / size
    if m <= 0:
        raise ConfigError("the features of all simulated observations are the same")
    spread = float(((sample - m * np.eye(size)) ** 2).sum())
    # sum over rows of |x x^T - S|^2, without building the products
    error = float(((centred**2).sum(axis=1) ** 2).sum() / n - (sample**2).sum()) / n
    shrinkage = 1.0 if spread <= 0 else min(max(error / spread, 0.0), 1.0)
    shrinkage = max(shrinkage, 1e-6)  # exactly linear features would leave it singular
    return (1 - shrinkage) * sample + shrinkage * m * np.eye(size), shrinkage


def choose_space(policy: Policy, space: str = "auto") -> str:
    """ "features" or "behaviour"; "auto" takes features where the policy has them.

    Raises:
        ConfigError: another name, or features of a policy that has none.
    """
    if space not in SPACES:
        raise ConfigError(f"space {space!r} is not one of {SPACES}")
    has_features = isinstance(policy, FeaturePolicy)
    if space == "features" and not has_features:
        raise ConfigError(f"{type(policy).__name__} offers no features; use 'behaviour'")
    return "features" if has_features and space != "behaviour" else "behaviour"


def policy_features(
    policy: Policy, observation: Arrays, *, space: str = "auto", candidates: int = 8, seed: int = 0
) -> Array:
    """Where observations lie in a space of the policy's own.

    Its ``features`` (``FeaturePolicy``), or, through ``sample`` alone, its behaviour: the mean of its
    candidate chunks, and the log of their standard deviation per action dimension. All observations meet the
    same noise, so that they differ by themselves alone.

    Args:
        observation: windows, each (n, observation_horizon, *shape).
        space: as ``choose_space``.
        candidates: chunks per observation, at least 2; for behaviour.
        seed: of their noise.
    Returns:
        (n, features).
    """
    chosen = choose_space(policy, space)
    if candidates < 2:
        raise ConfigError(f"disagreement needs at least 2 candidates, got {candidates}")
    count = len(next(iter(observation.values())))
    noise = draw_noise(policy.policy_specs, candidates, keyed_rng(seed))
    parts = []
    for first in range(0, count, BATCH):
        rows = [min(i, count - 1) for i in range(first, first + BATCH)]  # padded: rows depend on batch size
        part = {name: value[rows] for name, value in observation.items()}
        if chosen == "features" and isinstance(policy, FeaturePolicy):
            found = np.asarray(policy.features(part), dtype=np.float64)
        else:
            found = _behaviour(policy.sample(part, np.stack([noise] * BATCH)).astype(np.float64))
        parts.append(found[: count - first])
    return np.concatenate(parts)


def _behaviour(chunks: Array) -> Array:
    """(batch, n, prediction_horizon, action_dim) -> (batch, features)."""
    mean = chunks.mean(axis=1).reshape(len(chunks), -1)
    disagreement = np.log(chunks.std(axis=1).mean(axis=1) + 1e-6)
    return np.concatenate([mean, disagreement], axis=1)


@dataclass(frozen=True)
class Strangeness:
    """Distances in one policy's space.

    Args:
        held_out: (n,) of simulated observations that the Gaussian was not fitted to.
        real: (m,) of the real ones.
    """

    held_out: Array
    real: Array

    @property
    def ratio(self) -> float:
        """Mean distance of real over that of held-out simulated observations: 1 is as if simulated."""
        return float(self.real.mean() / self.held_out.mean())


def measure_strangeness(*, fitted: Array, held_out: Array, real: Array) -> Strangeness:
    """Features, each (n, features), of three sets of observations."""
    gaussian = Gaussian.fit(fitted)
    return Strangeness(held_out=gaussian.distance(held_out), real=gaussian.distance(real))


def _finite(features: Array) -> Array:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ShapeError(f"features must be (n > 0, features), got {values.shape}")
    if not np.isfinite(values).all():
        raise NonFiniteValueError(f"{int((~np.isfinite(values)).sum())} features are not finite")
    return values
