"""The episodes: 150 steps, two states, a camera of 96 x 96 and actions; content is a function of the seed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Signal

STEPS, SIZE = 150, 96
SPECS = Specs(
    {
        "joints": ArraySpec((7,), units=("rad",) * 7),
        "gripper": ArraySpec((1,), units=("m",)),
        "camera": ArraySpec((SIZE, SIZE, 3), "uint8", kind="image"),
    },
    ActionSpec((ActionPart("joint_position", tuple(f"joint_{i}" for i in range(7))),)),
    policy_rate=50.0,
)
CAMERA = "observation/camera"


def content(seed: int) -> dict[str, Signal]:
    """Every signal of an episode."""
    rng = np.random.default_rng(seed)
    times = np.arange(STEPS, dtype=np.int64) * 20_000_000
    walk = rng.normal(0, 0.01, (STEPS, 15)).cumsum(axis=0).astype(np.float32)
    return {
        "observation/joints": Signal(walk[:, :7], times),
        "observation/gripper": Signal(walk[:, 7:8], times),
        CAMERA: Signal(_pictures(rng), times),
        "action": Signal(walk[:, 8:], times + 1),
    }


def raw_bytes() -> int:
    """Of one episode in memory."""
    return sum(s.value.nbytes + s.time_ns.nbytes for s in content(0).values())


def flat(seed: int) -> dict[str, NDArray[Any]]:
    """Name/value and name/time_ns to array."""
    parts = content(seed).items()
    return {f"{name}/{part}": array for name, s in parts for part, array in vars(s).items()}


def equal(seed: int, found: dict[str, NDArray[Any]]) -> bool:
    """Whether an episode was read as it was written."""
    return all(np.array_equal(found.get(name, np.empty(0)), array) for name, array in flat(seed).items())


def _pictures(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A window of the scene that moves along a line, at a brightness of its own."""
    scene = _scene()
    room = len(scene) - SIZE
    ends = rng.integers(0, room, (2, 2))
    path = np.linspace(ends[0], ends[1], STEPS).astype(int)
    frames = np.stack([scene[y : y + SIZE, x : x + SIZE] for y, x in path])
    return frames + np.uint8(rng.integers(0, 50))


@cache
def _scene() -> NDArray[np.uint8]:
    """(384, 384, 3): a few waves in steps of 8, so that they compress about as a real camera's frames do."""
    y, x = np.mgrid[:384, :384] / 384
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in ((2, 1, 0), (1, -3, 0.3), (5, 4, 0.6))]
    shade = np.stack([sum(w * k for w, k in zip(waves, row)) for row in np.eye(3) + 0.3], axis=-1)
    return (np.round((shade + 2.2) / 4.4 * 25).clip(0, 25) * 8).astype(np.uint8)
