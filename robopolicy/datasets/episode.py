"""One episode in memory: named signals, each with its own timestamps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.specs import Specs

#: Real recordings are on the recorder's monotonic clock; "frame_index" says that times were made up.
CLOCKS = ("monotonic", "simulation", "frame_index")


@dataclass(frozen=True)
class Signal:
    """Samples of one quantity.

    Args:
        value: (count, *shape).
        time_ns: (count,) int64, strictly increasing, on the episode's clock [ns].
    """

    value: NDArray[Any]
    time_ns: NDArray[np.int64]


@dataclass(frozen=True)
class Episode:
    """One demonstration or rollout, reset to end.

    Args:
        observation: name to signal; rates may differ.
        action: the commands, one per policy step; their times define the episode's steps.
        instruction: what was asked, in words.
        success: None when nobody judged it.
        seed: that reset the environment, if any.
        clock: of every ``time_ns``: one of ``CLOCKS``.
        wall_minus_clock_ns: Unix time minus that clock [ns], None when unknown.
        extra: further signals that no policy sees; ``data/README.md`` reserves some names.
        metadata: JSON-able facts about this episode.
    """

    observation: Mapping[str, Signal]
    action: Signal
    instruction: str = ""
    success: bool | None = None
    seed: int | None = None
    clock: str = "monotonic"
    wall_minus_clock_ns: int | None = None
    extra: Mapping[str, Signal] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.action.value)

    def signals(self) -> Iterator[tuple[str, Signal]]:
        """Every signal under the name that a store gives it."""
        for key, signal in self.observation.items():
            yield f"observation/{key}", signal
        yield "action", self.action
        for key, signal in self.extra.items():
            yield f"extra/{key}", signal

    def check(self, specs: Specs, where: str) -> None:
        """Hold every signal against the specs.

        Args:
            where: how messages name this episode, for example "episode 12".
        Raises:
            SpecError: a key is missing or unknown, or a dtype is off; ShapeError: a shape or length is off;
            NonFiniteValueError: NaN or infinity, with episode, key and frame.
        """
        if self.clock not in CLOCKS:
            raise SpecError(f"{where}: clock {self.clock!r} is not one of {CLOCKS}")
        if set(self.observation) != set(specs.observation):
            raise SpecError(
                f"{where}: observations {sorted(self.observation)} are not {sorted(specs.observation)}"
            )
        shapes: dict[str, tuple[Signal, tuple[int, ...]]] = {
            "action": (self.action, (specs.action.dim,))
        }  # first: its times are used below
        shapes.update(
            {name: (self.observation[name], spec.shape) for name, spec in specs.observation.items()}
        )
        for name, (signal, shape) in shapes.items():
            if signal.value.shape[1:] != shape:
                raise ShapeError(f"{where}, {name}: expected frames of {shape}, got {signal.value.shape[1:]}")
            check_signal(signal, f"{where}, {name}")
            if signal.time_ns[0] > self.action.time_ns[0]:
                raise SpecError(f"{where}, {name}: its first sample comes after the first action")
        for name, spec in specs.observation.items():
            dtype = self.observation[name].value.dtype
            fits = dtype == np.uint8 if spec.kind == "image" else np.can_cast(dtype, spec.dtype, "same_kind")
            if not fits:
                raise SpecError(f"{where}, {name}: {dtype} values do not fit {spec.dtype}")
        for name, signal in self.extra.items():
            check_signal(signal, f"{where}, {name}")


def check_signal(signal: Signal, where: str) -> None:
    """Non-empty, one time per sample, strictly increasing, finite; errors name the frame."""
    count = len(signal.value)
    if count == 0:
        raise ShapeError(f"{where}: no samples")
    if signal.time_ns.shape != (count,):
        raise ShapeError(f"{where}: {count} samples but times of shape {signal.time_ns.shape}")
    backwards = np.flatnonzero(np.diff(signal.time_ns) <= 0)
    if backwards.size:
        raise SpecError(f"{where}, frame {backwards[0] + 1}: time does not increase")
    if np.issubdtype(signal.value.dtype, np.floating):
        bad = np.flatnonzero(~np.isfinite(signal.value.reshape(count, -1)).all(axis=1))
        if bad.size:
            raise NonFiniteValueError(f"{where}, frame {bad[0]}: non-finite value {signal.value[bad[0]]}")
