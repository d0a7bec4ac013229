"""What a policy is: a pure function from observations and noise to candidate action chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.specs import PolicySpecs

Arrays = Mapping[str, NDArray[Any]]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Prefix:
    """What a new chunk should agree with: the actions that will have been sent when it arrives.

    Args:
        action: (batch, prediction_horizon, action_dim) in the action spec's units; finite everywhere.
        weight: (batch, prediction_horizon) from 1 (bound) to 0 (free).
    Source: real-time chunking (Black et al. 2025), soft masks of section 4.2.
    """

    action: Float32
    weight: Float32

    def check(self, specs: PolicySpecs, batch: int) -> None:
        """Raise ShapeError, NonFiniteValueError or ConfigError unless it fits the specs."""
        expected = (batch, *specs.chunk_shape)
        if self.action.shape != expected or self.weight.shape != expected[:2]:
            raise ShapeError(
                f"a prefix needs actions {expected} and weights {expected[:2]}, got {self.action.shape} "
                f"and {self.weight.shape}"
            )
        if not np.isfinite(self.action).all():
            raise NonFiniteValueError("the prefix has non-finite actions")
        if not ((self.weight >= 0) & (self.weight <= 1)).all():
            raise ConfigError(f"prefix weights must lie in 0..1, got {self.weight}")


@dataclass(frozen=True)
class Context:
    """What else a policy may condition on; policies ignore what they do not know.

    Args:
        instruction: one text per batch row, or empty.
        prefix: actions to agree with; only a policy whose specs say ``takes_prefix`` heeds it.
        past: (batch, action_start, action_dim) what was done at the older instants of the observation
            window, oldest first, in the action spec's units: what the first actions of a chunk should repeat.
            NaN where the episode had not begun; None where nobody has kept it.
    """

    instruction: tuple[str, ...] = ()
    prefix: Prefix | None = None
    past: Float32 | None = None


NO_CONTEXT = Context()


@runtime_checkable
class Policy(Protocol):
    """Torch policies, ONNX bundles and callables all satisfy this; evaluation cannot tell them apart.

    All randomness enters as ``noise``, so the same observation and noise give the same candidates
    whatever runs them, and the caller decides how noise is keyed.
    """

    @property
    def policy_specs(self) -> PolicySpecs:
        """Observations, action, horizons, and the shape of one candidate's noise."""
        ...

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """Draw candidate action chunks.

        Args:
            observation: each (batch, observation_horizon, *shape), in physical units.
            noise: (batch, n, *noise_shape) standard normal.
            context: the instruction; policies without language ignore it.
        Returns:
            (batch, n, prediction_horizon, action_dim) commands in the action spec's units.
        Raises:
            SpecError, ShapeError, NonFiniteValueError: an input breaks the specs.
        """
        ...


def keyed_rng(*key: int) -> np.random.Generator:
    """A generator that depends on the key alone, for example (seed, episode, step).

    Keys of different length differ: a seed sequence alone would take (3, 5) for (3, 5, 0).
    """
    return np.random.default_rng(np.random.SeedSequence((len(key), *key)))


def draw_noise(specs: PolicySpecs, num_candidates: int, rng: np.random.Generator) -> Float32:
    """(num_candidates, *noise_shape) standard normal noise for one observation."""
    if num_candidates < 1:
        raise ConfigError(f"num_candidates must be >= 1, got {num_candidates}")
    return rng.standard_normal((num_candidates, *specs.noise_shape), dtype=np.float32)


def draw_candidates(
    policy: Policy,
    observation: Arrays,
    num_candidates: int,
    *,
    rng: np.random.Generator,
    instruction: str = "",
    prefix: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Float32:
    """Candidates for one observation window.

    Args:
        observation: each (observation_horizon, *shape).
        num_candidates: n.
        rng: source of randomness; never global.
        prefix: actions (prediction_horizon, action_dim) and weights (prediction_horizon,), see ``Prefix``.
    Returns:
        (n, prediction_horizon, action_dim).
    """
    noise = draw_noise(policy.policy_specs, num_candidates, rng)
    batch = {name: value[None] for name, value in observation.items()}
    bound = None if prefix is None else Prefix(*(np.asarray(part, np.float32)[None] for part in prefix))
    context = Context((instruction,) if instruction else (), bound)
    candidates: Float32 = policy.sample(batch, noise[None], context)[0]
    return candidates


def check_inputs(specs: PolicySpecs, observation: Arrays, noise: Float32) -> tuple[int, int]:
    """Hold a call of ``Policy.sample`` against its specs; returns (batch, n)."""
    specs.specs.check_observation(observation)
    if noise.ndim != 2 + len(specs.noise_shape) or noise.shape[2:] != specs.noise_shape:
        raise ShapeError(f"noise must be (batch, n, {specs.noise_shape}), got {noise.shape}")
    batch = noise.shape[0]
    for name, spec in specs.specs.observation.items():
        expected = (batch, specs.horizons.observation, *spec.shape)
        if observation[name].shape != expected:
            raise ShapeError(f"observation {name!r} must be {expected}, got {observation[name].shape}")
    if not np.isfinite(noise).all():
        raise NonFiniteValueError("noise has non-finite values")
    return batch, noise.shape[1]
