"""Small made-up episodes and specs, shared by the tests of the store, the windows, training and export."""

from __future__ import annotations

from typing import Any

import numpy as np

from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.schema import EPISODE_FIELDS

STEP_NS = 100_000_000  # 10 Hz
ACTION = ActionSpec((ActionPart("joint_position", ("a", "b")), ActionPart("gripper_opening", ("grip",))))
STATES = {
    "joints": ArraySpec((2,), units=("rad", "rad"), names=("a", "b")),
    "goal": ArraySpec((2,), units=("m", "rad"), angles=(1,)),
    "points": ArraySpec((3, 2), units=("m", "m")),
}
SCENE = ArraySpec((16, 16, 3), "uint8", kind="image")


def make_specs(*, image: bool = False, action: ActionSpec = ACTION) -> Specs:
    """Three states, one of them with an angle and one of rank two, and perhaps a camera, at 10 Hz."""
    return Specs({**STATES, "scene": SCENE} if image else dict(STATES), action, policy_rate=10.0)


def make_policy_specs(*, image: bool = False) -> PolicySpecs:
    return PolicySpecs(make_specs(image=image), Horizons(2, 8, 4))


def random_value(spec: ArraySpec, count: int, rng: np.random.Generator) -> np.ndarray:
    if spec.kind == "image":
        return rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8)
    return rng.uniform(-1, 1, (count, *spec.shape)).astype(spec.dtype)


def make_episode(specs: Specs, length: int = 12, seed: int = 0, **facts: Any) -> Episode:
    """Random signals; the first observation is sensed twice as often as the others, extras thrice."""
    rng = keyed_rng(seed, length)
    times = np.arange(length, dtype=np.int64) * STEP_NS
    observation = {}
    for index, (name, spec) in enumerate(specs.observation.items()):
        every = 2 if index == 0 else 1
        stamps = np.arange(length * every, dtype=np.int64) * (STEP_NS // every)
        observation[name] = Signal(random_value(spec, length * every, rng), stamps)
    force_times = np.arange(3 * length, dtype=np.int64) * (STEP_NS // 3) + 7
    return Episode(
        observation=observation,
        action=Signal(rng.uniform(-1, 1, (length, specs.action.dim)).astype(np.float32), times),
        extra={
            "force": Signal(rng.normal(size=(3 * length, 6)), force_times),
            "contacts": Signal(rng.integers(0, 5, length), times),
        },
        **{"instruction": "do it", "success": True, "seed": seed, "metadata": {"who": "test"}, **facts},
    )


def make_windows(specs: PolicySpecs, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Observation windows: each (batch, observation_horizon, *shape)."""
    rng, horizon = keyed_rng(seed), specs.horizons.observation
    return {
        name: random_value(spec, batch * horizon, rng).reshape(batch, horizon, *spec.shape)
        for name, spec in specs.specs.observation.items()
    }


def make_normalisers(specs: PolicySpecs, seed: int = 0) -> Normalisers:
    rng = keyed_rng(seed)
    observation = {n: random_value(s, 64, rng) for n, s in specs.specs.observation.items()}
    action = rng.uniform(-1, 1, (64, specs.specs.action.dim))
    return Normalisers.fit(specs.specs, observation, action, "min_max")


def assert_same_signal(first: Signal, second: Signal) -> None:
    assert first.value.dtype == second.value.dtype
    np.testing.assert_array_equal(first.value, second.value)
    np.testing.assert_array_equal(first.time_ns, second.time_ns)


def assert_same_episode(first: Episode, second: Episode) -> None:
    """Bit for bit, names, times and facts included."""
    for part in ("observation", "extra"):
        ours, theirs = getattr(first, part), getattr(second, part)
        assert set(ours) == set(theirs)
        for name in ours:
            assert_same_signal(ours[name], theirs[name])
    assert_same_signal(first.action, second.action)
    for fact in EPISODE_FIELDS:
        assert getattr(first, fact) == getattr(second, fact), fact
