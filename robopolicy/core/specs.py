"""What observations and actions mean: names, shapes, units, frames. Saved beside every artifact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.horizons import Horizons

#: Units of one number of each action space; a tuple gives one per dimension, a string is shared.
ACTION_SPACES: dict[str, str | tuple[str, ...]] = {
    "joint_position": "rad",
    "joint_delta": "rad",
    "ee_pose": ("m", "m", "m", "1", "1", "1", "1", "1", "1"),
    "ee_delta": ("m", "m", "m", "1", "1", "1", "1", "1", "1"),
    "gripper_opening": "m",
    "planar_position": "px",
    "normalised": "1",
}
#: Spaces that count from the previous command; rotation' = delta @ rotation in the part's frame.
DELTAS = ("joint_delta", "ee_delta")
REFERENCES = ("absolute", "relative")
OBSERVATION_KINDS = ("state", "image", "depth")
REACHED = ("end", "start")


@dataclass(frozen=True)
class ArraySpec:
    """One named array of an observation, at one instant.

    Args:
        shape: of one sample, at least one axis; images are (height, width, 3), red, green, blue; depth is
            (height, width, 1).
        dtype: numpy name; images are ``uint8`` in 0..255, depth is ``uint16`` (REP-118: 0 is "no reading").
        units: one per element of the last axis of a state ("rad", "m", "px", "1"); empty for images; the
            unit of one count for depth ("mm").
        names: one per element of the last axis (joint names, say); may be empty.
        kind: "state", "image" or "depth".
        angles: indices of the last axis that wrap at 2 pi [rad]; policies see their cosine and sine.
    Raises:
        SpecError: units or names disagree with the shape, or an unknown kind.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    kind: str = "state"
    angles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in OBSERVATION_KINDS:
            raise SpecError(f"kind {self.kind!r} is not one of {OBSERVATION_KINDS}")
        try:
            np.dtype(self.dtype)
        except TypeError as error:
            raise SpecError(f"{self.dtype!r} is not a numpy dtype") from error
        if not self.shape or min(self.shape) < 1:
            raise SpecError(f"a shape needs at least one axis and no empty one, got {self.shape}")
        if self.kind == "image" and (len(self.shape) != 3 or self.shape[-1] != 3 or self.dtype != "uint8"):
            raise SpecError(f"an image is uint8 (height, width, 3), got {self.dtype} {self.shape}")
        if self.kind == "depth" and (len(self.shape) != 3 or self.shape[-1] != 1 or self.dtype != "uint16"):
            raise SpecError(f"depth is uint16 (height, width, 1), got {self.dtype} {self.shape}")
        size = self.shape[-1]
        for what in ("units", "names"):
            given = getattr(self, what)
            if given and len(given) != size:
                raise SpecError(f"{len(given)} {what} for a last axis of {size}: {given}")
        if any(not 0 <= i < size for i in self.angles):
            raise SpecError(f"angle indices {self.angles} outside 0..{size - 1}")

    @property
    def num_features(self) -> int:
        """Network inputs of one state: its elements, and one more for every wrapping angle."""
        return math.prod(self.shape[:-1]) * (self.shape[-1] + len(self.angles))

    def check(self, name: str, value: NDArray[Any]) -> None:
        """Raise ShapeError unless the trailing axes of ``value`` are this spec's shape; SpecError for
        an image of another dtype, since 0..1 floats would be read as black."""
        tail = value.shape[max(value.ndim - len(self.shape), 0) :]
        if tail != self.shape:
            raise ShapeError(f"observation {name!r} must end in shape {self.shape}, got {value.shape}")
        if self.kind == "image" and value.dtype != np.uint8:
            raise SpecError(
                f"observation {name!r} is an image and must be uint8 in 0..255, got {value.dtype}"
            )


@dataclass(frozen=True)
class ActionPart:
    """A run of action dimensions that share one action space.

    Args:
        space: a key of ``ACTION_SPACES``. Poses are position [m] and a 6-D rotation (the first two
            columns of the rotation matrix, Zhou et al. 2019).
        names: one per dimension (joint names, "x" "y" "z" "r0".."r5", a finger's name).
        reference: "absolute", or "relative": poses and positions to the state at the current
            observation, increments (``DELTAS``, always relative) to the previous command.
        frame: coordinate frame of poses, REP-105 style; empty for joints.
    """

    space: str
    names: tuple[str, ...]
    reference: str = "absolute"
    frame: str = ""

    def __post_init__(self) -> None:
        if self.space not in ACTION_SPACES:
            raise SpecError(f"action space {self.space!r} is not one of {sorted(ACTION_SPACES)}")
        if self.reference not in REFERENCES:
            raise SpecError(f"reference {self.reference!r} is not one of {REFERENCES}")
        if not self.names or len(set(self.names)) != len(self.names):
            raise SpecError(f"action names must be given and differ, got {self.names}")
        if self.space in DELTAS and self.reference != "relative":
            raise SpecError(f"{self.space} is always relative, got reference {self.reference!r}")
        units = ACTION_SPACES[self.space]
        if isinstance(units, tuple) and len(units) != len(self.names):
            raise SpecError(f"{self.space} has {len(units)} dimensions, got {len(self.names)} names")

    @property
    def units(self) -> tuple[str, ...]:
        units = ACTION_SPACES[self.space]
        return units if isinstance(units, tuple) else (units,) * len(self.names)


@dataclass(frozen=True)
class ActionSpec:
    """One command, as consecutive parts: an arm and a gripper, or two arms and two grippers.

    Args:
        parts: their names differ throughout.
        reached: when within its step a command is meant to be reached: at the "end", as interpolating
            controllers do, or at once, "start", as set-points that were sent and logged are.
    """

    parts: tuple[ActionPart, ...]
    reached: str = "end"

    def __post_init__(self) -> None:
        if not self.parts:
            raise SpecError("an action needs at least one part")
        if len(set(self.names)) != len(self.names):
            raise SpecError(f"action names must differ across parts, got {self.names}")
        if self.reached not in REACHED:
            raise SpecError(f"reached {self.reached!r} is not one of {REACHED}")

    @property
    def dim(self) -> int:
        return sum(len(part.names) for part in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.names)

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(unit for part in self.parts for unit in part.units)

    def slices(self) -> list[tuple[ActionPart, slice]]:
        """Each part with its place in the action vector."""
        stops = np.cumsum([len(part.names) for part in self.parts]).tolist()
        return [(p, slice(stop - len(p.names), stop)) for p, stop in zip(self.parts, stops)]


@dataclass(frozen=True)
class Specs:
    """The contract between data, policy, environment and robot.

    Args:
        observation: name of each array to its spec.
        action: meaning of one command.
        policy_rate: observations and actions per second [Hz].
        robot: name of a file in ``robopolicy.robots``, empty where there is none.
    """

    observation: Mapping[str, ArraySpec]
    action: ActionSpec
    policy_rate: float
    robot: str = ""

    def __post_init__(self) -> None:
        if not self.observation:
            raise SpecError("at least one observation is needed")
        if not self.policy_rate > 0:
            raise SpecError(f"policy_rate must be positive [Hz], got {self.policy_rate}")

    def select(self, keys: tuple[str, ...]) -> Specs:
        """The same contract over fewer observations; SpecError lists the keys when one is missing."""
        missing = [key for key in keys if key not in self.observation]
        if missing:
            raise SpecError(f"no observation {missing}; there are {sorted(self.observation)}")
        return dataclasses.replace(self, observation={k: self.observation[k] for k in keys})

    def check_observation(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """Raise SpecError, ShapeError or NonFiniteValueError unless every array fits its spec."""
        missing = sorted(set(self.observation) - set(observation))
        if missing:
            raise SpecError(f"observation lacks {missing}; it has {sorted(observation)}")
        for name, spec in self.observation.items():
            value = observation[name]
            spec.check(name, value)
            if spec.kind == "state" and not np.isfinite(value).all():
                raise NonFiniteValueError(f"observation {name!r} has non-finite values: {value}")

    def check_action(self, action: NDArray[Any]) -> None:
        """Raise ShapeError or NonFiniteValueError unless the last axis is one finite command."""
        if action.ndim < 1 or action.shape[-1] != self.action.dim:
            raise ShapeError(f"action must end in {self.action.dim} dimensions, got {action.shape}")
        if not np.isfinite(action).all():
            raise NonFiniteValueError(f"action has non-finite values: {action}")


@dataclass(frozen=True)
class PolicySpecs:
    """Specs of the data a policy was built for, plus its horizons and noise.

    Args:
        takes_prefix: whether it heeds ``Context.prefix``.
        instruction_dim: size of the embedded instruction that it conditions on; 0 for a policy without
            language.
    """

    specs: Specs
    horizons: Horizons = field(default_factory=Horizons)
    noise_shape: tuple[int, ...] = ()
    takes_prefix: bool = False
    instruction_dim: int = 0

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(prediction_horizon, action_dim)"""
        return self.horizons.prediction, self.specs.action.dim
