"""Policies, critics and a clock for the tests of reranking: their costs and values are what a test says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs

OBSERVATION = {"joints": ArraySpec((2,), units=("rad", "rad"), names=("a", "b")), "goal": ArraySpec((1,))}
ACTION = ActionSpec((ActionPart("joint_position", ("a", "b")),))
HORIZONS = Horizons(observation=2, prediction=6, action=3)


def rerank_specs(**changes) -> PolicySpecs:
    specs = Specs(OBSERVATION, ACTION, 10.0)
    return dataclasses.replace(PolicySpecs(specs, HORIZONS, noise_shape=(6, 2)), **changes)


def rerank_normalisers(*, offset: float = 0.0, scale: float = 2.0) -> Normalisers:
    def affine(size: int) -> Affine:
        return Affine((offset,) * size, (scale,) * size)

    return Normalisers({"joints": affine(2), "goal": affine(1)}, affine(2))


def rerank_window(batch: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "joints": rng.normal(size=(batch, 2, 2)).astype(np.float32),
        "goal": rng.normal(size=(batch, 2, 1)).astype(np.float32),
    }


def rerank_noise(batch: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, k, 6, 2)).astype(np.float32)


class FakeClock:
    """[ns]; moves when somebody spends time."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def __call__(self) -> int:
        return self.now_ns


class FakePolicy:
    """The noise, shifted by the joints; takes as long as ``cost_ns`` says for that many candidates."""

    def __init__(self, clock: FakeClock | None = None, cost_ns: Callable[[int], int] = lambda n: 0) -> None:
        self.policy_specs = rerank_specs()
        self._clock, self.cost_ns = clock, cost_ns
        self.contexts: list[Context] = []
        self.counts: list[int] = []

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        self.contexts.append(context)
        self.counts.append(noise.shape[1])
        if self._clock is not None:
            self._clock.now_ns += self.cost_ns(noise.shape[1])
        return (noise + observation["joints"][:, None, -1:, :]).astype(np.float32)


class FakeCritic:
    """A member's value is the first number of a candidate, plus what the goal says, plus its bias."""

    def __init__(self, biases=(0.0, 0.5), clock: FakeClock | None = None, cost_ns=lambda n: 0) -> None:
        self.critic_specs = dataclasses.replace(
            rerank_specs(), specs=rerank_specs().specs.select(("goal",)), noise_shape=()
        )
        self.critic_normalisers = Normalisers({"goal": Affine((0.0,), (2.0,))}, rerank_normalisers().action)
        self._biases, self._clock, self.cost_ns = np.asarray(biases), clock, cost_ns
        self.seen: list[set[str]] = []
        self.counts: list[int] = []

    def values(self, observation: Arrays, candidates: Float32, context: Context = NO_CONTEXT) -> Float32:
        self.seen.append(set(observation))
        self.counts.append(candidates.shape[1])
        if self._clock is not None:
            self._clock.now_ns += self.cost_ns(candidates.shape[1])
        base = candidates[:, :, 0, 0] + observation["goal"][:, -1, :]
        return (base[..., None] + self._biases).astype(np.float32)
