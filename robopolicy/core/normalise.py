"""Affine normalisers fitted on a dataset: physical units to roughly [-1, 1] and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, ShapeError, SpecError
from robopolicy.core.policy import Arrays, Float32
from robopolicy.core.specs import ArraySpec, Specs

#: A dimension that spans less than this in the data carries no information; it is only centred.
MINIMUM_RANGE = 1e-6
MODES = ("min_max", "gaussian")


def expand_angles(value: NDArray[Any], angles: tuple[int, ...]) -> NDArray[Any]:
    """Replace wrapping dimensions [rad] by their cosines, and append their sines.

    Args:
        value: (..., dim).
        angles: indices of the last axis.
    Returns:
        (..., dim + len(angles)); continuous where the angle jumps at 2 pi.
    """
    if not angles:
        return value
    columns = list(angles)
    cosines = value.astype(np.result_type(value, np.float32))  # whole numbers would cut the cosines
    cosines[..., columns] = np.cos(value[..., columns])
    return np.concatenate([cosines, np.sin(value[..., columns])], axis=-1)


@dataclass(frozen=True)
class Affine:
    """normalised = (value - offset) / scale, per dimension of the last axis."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale):
            raise SpecError(f"{len(self.offset)} offsets but {len(self.scale)} scales")
        if not all(s > 0 for s in self.scale) or not np.isfinite([*self.offset, *self.scale]).all():
            raise SpecError(f"scales must be positive and finite, got {self.scale}")

    @classmethod
    def fit(cls, values: NDArray[Any], mode: str = "min_max") -> Affine:
        """Fit on (count, dim) samples; "min_max" maps onto [-1, 1], "gaussian" to unit variance."""
        if values.ndim != 2 or not len(values):
            raise ShapeError(f"need (count > 0, dim) samples, got {values.shape}")
        data = values.astype(np.float64)
        if mode == "min_max":
            low, high = data.min(axis=0), data.max(axis=0)
            offset, scale = (low + high) / 2, (high - low) / 2
        elif mode == "gaussian":
            offset, scale = data.mean(axis=0), data.std(axis=0)
        else:
            raise ConfigError(f"normaliser mode {mode!r} is not one of {MODES}")
        scale = np.where(scale < MINIMUM_RANGE, 1.0, scale)
        return cls(tuple(offset.tolist()), tuple(scale.tolist()))

    def forward(self, value: NDArray[Any]) -> NDArray[np.float32]:
        if value.shape[-1] != len(self.offset):
            raise ShapeError(f"normaliser of {len(self.offset)} dimensions given {value.shape}")
        result: Float32 = ((value - np.asarray(self.offset)) / np.asarray(self.scale)).astype(np.float32)
        return result

    def inverse(self, value: NDArray[Any]) -> NDArray[np.float32]:
        if value.shape[-1] != len(self.offset):
            raise ShapeError(f"normaliser of {len(self.offset)} dimensions given {value.shape}")
        result: Float32 = (value * np.asarray(self.scale) + np.asarray(self.offset)).astype(np.float32)
        return result


@dataclass(frozen=True)
class Normalisers:
    """One affine map per state observation and one for actions. Images stay uint8: the network
    scales them, so that they travel as bytes."""

    observation: Mapping[str, Affine]
    action: Affine

    @classmethod
    def fit(cls, specs: Specs, observation: Arrays, action: NDArray[Any], mode: str) -> Normalisers:
        """Fit on every frame of a dataset: each observation (count, *shape), action (count, dim).

        ``mode`` is for observations. Actions always map onto [-1, 1]: samplers clip there.
        """
        maps = {
            name: Affine.fit(_flatten(spec, observation[name]), mode)
            for name, spec in specs.observation.items()
            if spec.kind == "state"
        }
        return cls(maps, Affine.fit(action, "min_max"))

    def observations(self, specs: Specs, observation: Arrays) -> dict[str, NDArray[Any]]:
        """Network inputs: states flattened to (..., features) float32, images as they are."""
        return {
            name: self.observation[name].forward(_flatten(spec, observation[name]))
            if spec.kind == "state"
            else observation[name]
            for name, spec in specs.observation.items()
        }


def _flatten(spec: ArraySpec, value: NDArray[Any]) -> NDArray[Any]:
    lead = value.shape[: value.ndim - len(spec.shape)]
    expanded = expand_angles(value, spec.angles)
    return expanded.reshape(*lead, -1)
