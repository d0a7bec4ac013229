"""A policy without any engine, for the tests of remote inference; and the layout its specs lead to."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest

from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Prefix, check_inputs
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.runtime.remote import WireLayout

DIGEST = "ab" * 32
TOKEN = "correct-horse-battery-staple"


def plain_specs(height: int = 4) -> PolicySpecs:
    """Two joints and a gripper, a camera, a depth image and switches at 10 Hz."""
    observation = {
        "joints": ArraySpec((3,), units=("rad", "rad", "m")),
        "scene": ArraySpec((height, 5 * height // 4, 3), "uint8", kind="image"),
        "range": ArraySpec((4, 5, 1), "uint16", units=("mm",), kind="depth"),
        "contact": ArraySpec((2,), "bool"),
    }
    action = ActionSpec((ActionPart("joint_position", ("a", "b")), ActionPart("gripper_opening", ("grip",))))
    specs = Specs(observation, action, policy_rate=10.0)
    return PolicySpecs(specs, Horizons(2, 8, 4), noise_shape=(8, 3), takes_prefix=True)


class Plain:
    """Every number of the inputs changes the result. ``hold`` blocks it, ``fail`` makes it raise."""

    def __init__(self, specs: PolicySpecs | None = None) -> None:
        self.policy_specs = specs or plain_specs()
        self.calls: list[tuple[int, int]] = []
        self.entered, self.hold = threading.Event(), threading.Event()
        self.hold.set()
        self.fail: BaseException | None = None
        self.scale = 1.0

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        self.calls.append(noise.shape[:2])
        batch, _ = check_inputs(self.policy_specs, observation, noise)
        self.entered.set()
        assert self.hold.wait(20)
        if self.fail is not None:
            raise self.fail
        mean = np.zeros((batch, 1, 1, 1), np.float32)
        for value in observation.values():
            weights = np.cos(np.arange(value[0].size, dtype=np.float32))
            mean[:, 0, 0, 0] += [row.reshape(-1).astype(np.float32) @ weights for row in value]
        if context.instruction:
            mean[:, 0, 0, 0] += [float(sum(text.encode())) for text in context.instruction]
        chunk = mean * np.float32(0.01) + noise * np.float32(0.1 * self.scale)
        if context.prefix is not None:
            chunk = chunk + context.prefix.action[:, None] * context.prefix.weight[:, None, :, None]
        return chunk.astype(np.float32)


def call_of(specs: PolicySpecs, seed: int = 0, batch: int = 1, n: int = 2, full: bool = False) -> Any:
    """Arguments of ``sample``; ``full`` with instructions and a prefix."""
    rng = np.random.default_rng(seed)
    horizon = specs.horizons.observation
    observation: dict[str, Any] = {}
    for name, spec in specs.specs.observation.items():
        shape = (batch, horizon, *spec.shape)
        if spec.dtype == "float32":
            observation[name] = rng.normal(size=shape).astype(np.float32)
        else:
            observation[name] = rng.integers(0, 2 if spec.dtype == "bool" else 256, shape).astype(spec.dtype)
    noise = rng.standard_normal((batch, n, *specs.noise_shape), dtype=np.float32)
    if not full:
        return observation, noise, NO_CONTEXT
    action = rng.normal(size=(batch, *specs.chunk_shape)).astype(np.float32)
    weight = rng.uniform(size=(batch, specs.horizons.prediction)).astype(np.float32)
    texts = tuple(f"lift the {i}. cube, bitte schön" for i in range(batch))
    return observation, noise, Context(texts, Prefix(action, weight))


def test_layout_depends_on_everything_that_is_sent_and_meant() -> None:
    specs = plain_specs()
    layout = WireLayout(specs, 2, 4)
    assert layout.fingerprint == WireLayout(specs, 5, 9).fingerprint  # limits are no part of a message
    others = [
        dataclasses.replace(specs, takes_prefix=False),
        dataclasses.replace(specs, horizons=Horizons(2, 8, 3)),
        dataclasses.replace(specs, noise_shape=(8, 4)),
        dataclasses.replace(specs, specs=dataclasses.replace(specs.specs, policy_rate=20.0)),
        dataclasses.replace(specs, specs=specs.specs.select(("joints", "scene"))),
    ]
    assert len({layout.fingerprint, *(WireLayout(other, 2, 4).fingerprint for other in others)}) == 6


def test_layout_bounds_what_may_be_sent() -> None:
    specs = plain_specs()
    layout = WireLayout(specs, 2, 4)
    windows = 2 * (3 * 4 + 60 + 2 * 20 + 2)
    assert layout.row.itemsize == windows + 4 * (8 * 3 + 8) + 512
    assert layout.request_bytes(2, 4) == layout.request_bytes(0, 0) + 2 * layout.row.itemsize + 8 * 96
    for batch, n in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match="max_batch and max_candidates"):
            WireLayout(specs, batch, n)
    with pytest.raises(ConfigError, match="lower max_batch"):
        WireLayout(specs, 1 << 20, 1)


@pytest.mark.parametrize("dtype", ["O", "S8", "M8[ns]", "complex64", "longdouble"])
def test_layout_has_plain_numbers_only(dtype: str) -> None:
    specs = plain_specs()
    bad = dataclasses.replace(specs.specs, observation={"x": ArraySpec((3,), dtype)})
    with pytest.raises(ConfigError, match="'x' has dtype"):
        WireLayout(dataclasses.replace(specs, specs=bad), 1, 1)
