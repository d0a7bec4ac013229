"""How jerkily a candidate would move the arm, its join to what was done before included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from robopolicy.core.critic import Critic
from robopolicy.core.errors import ConfigError, ShapeError, UnknownNameError
from robopolicy.core.geometry import Float
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.dimensions import Indices, judged, kinds
from robopolicy.runtime.reranking.situation import Situation

ORDERS = {"acceleration": 2, "jerk": 3}


@dataclass(frozen=True)
class Config:
    """What is judged.

    Args:
        order: "acceleration" or "jerk".
        dimensions: names of the action dimensions, of one unit; by default all but grippers, which the
            scheduler paces, and the rotation entries of poses, whose unit is another.
        executed_only: leave out the steps that are not executed before the policy is asked again.
    """

    order: str = "jerk"
    dimensions: tuple[str, ...] = ()
    executed_only: bool = True

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise UnknownNameError("order", self.order, ORDERS)


def build(
    config: Config, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> Smoothness:
    """ConfigError where nothing is left to judge, units differ, or the steps are too few."""
    return Smoothness(config, specs)


class Smoothness:
    """A ``Score``: minus the mean squared acceleration or jerk of the commands.

    -mean_kd (D^m a_kd * policy_rate^m)^2 with D^m the finite difference of order m, 2 or 3, over time; the
    unit is (rad/s^2)^2 or (rad/s^3)^2 for joints. The executed actions follow on those done before
    (``Context.past``), else on the joints as measured, so that a candidate which starts with a jump pays for
    it; differences that reach back to what is not known are left out. Increments are differences already:
    theirs are of order m - 1.

    Numbers are large: independent noise of 0.01 rad at 10 Hz is a jerk of 45 rad/s^3, -2000 here. Weights of
    1e-5 to 1e-3 balance a critic's return.

    Source: Flash and Hogan 1985, the jerk of a movement as its cost; finite differences.
    """

    name = "smoothness"

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        action, horizons = specs.specs.action, specs.horizons
        names = config.dimensions or _without_grippers(specs)
        self._dims = dims = judged(action, names)[: len(names)]  # none named here means none
        found = {kinds(action)[i] for i in dims}
        units = {action.units[i] for i in dims}
        if len(units) != 1 or len(found) != 1 or (found == {"delta"} and units == {"1"}):
            listed = [f"{action.names[i]} [{kinds(action)[i]}, {action.units[i]}]" for i in dims]
            raise ConfigError(
                f"smoothness adds up dimensions of one unit and reference, not {', '.join(listed) or 'any'}; "
                f"choose by dimensions=... among {list(action.names)}"
            )
        (self._kind,), (unit,) = found, units
        order = ORDERS[config.order]
        self.unit = f"({unit}/s^{order})^2"
        self._factor = specs.specs.policy_rate**order
        self._differences = order - (self._kind == "delta")
        self._stop = horizons.action_stop if config.executed_only else horizons.prediction
        self._start = horizons.action_start
        if self._stop - self._start <= self._differences:
            raise ConfigError(
                f"{config.order} takes {self._differences + 1} actions, got {self._stop - self._start}; "
                "order=acceleration takes fewer, executed_only=false judges more"
            )
        self._shape = (horizons.action_start, action.dim)
        self._measured = _measured(specs, dims) if self._kind == "absolute" else []
        # The instants at which the commands before were reached; "start" knows none of a single observation.
        self._instants = slice(min(self._start, 1), None)
        if action.reached == "start":
            self._instants = slice(0, self._start)
            self._measured = self._measured if self._start else []

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """(batch, n); ShapeError where the past is not (batch, action_start, action_dim)."""
        coming = candidates[:, :, self._start : self._stop, self._dims].astype(np.float64)
        before = self._before(len(candidates), situation)
        known: NDArray[np.bool_] = np.all(np.isfinite(before), axis=-1)
        shape = (*coming.shape[:2], *before.shape[1:])
        path = np.concatenate([np.broadcast_to(before[:, None], shape), coming], axis=2)
        squares = np.mean((np.diff(path, self._differences, axis=2) * self._factor) ** 2, axis=-1)
        present = np.concatenate([known, np.ones((len(known), coming.shape[2]), np.bool_)], axis=1)
        windows = sliding_window_view(present, self._differences + 1, axis=1)
        counted: NDArray[np.bool_] = np.all(windows, axis=-1)
        total = np.where(counted[:, None], squares, 0.0).sum(axis=-1)
        result: NDArray[np.float64] = 0.0 - total / counted.sum(axis=-1)[:, None]
        return result

    def _before(self, batch: int, situation: Situation) -> Float:
        """(batch, steps, dimensions) commands before the first executed one, oldest first; NaN unknown."""
        before = np.full((batch, max(self._start, 1), len(self._dims)), np.nan)
        past = situation.context.past
        if past is not None and past.shape != (batch, *self._shape):
            raise ShapeError(f"past actions must be {(batch, *self._shape)}, got {past.shape}")
        if past is not None and self._start and self._kind != "relative":
            before[:] = past[:, :, self._dims]
        for place, key, column in self._measured:
            seen = situation.observation[key][:, self._instants, column]
            before[..., place] = np.where(np.isnan(before[..., place]), seen, before[..., place])
        return before


def _without_grippers(specs: PolicySpecs) -> tuple[str, ...]:
    parts = specs.specs.action.parts
    return tuple(
        name
        for part in parts
        if part.space != "gripper_opening"
        for name in (part.names[:3] if part.space in ("ee_pose", "ee_delta") else part.names)
    )


def _measured(specs: PolicySpecs, dims: Indices) -> list[tuple[int, str, int]]:
    """Joints whose positions are observed: place among the judged dimensions, observation, its column."""
    action = specs.specs.action
    joints = {n for part in action.parts if part.space == "joint_position" for n in part.names}
    columns = {
        name: (key, column)
        for key, spec in specs.specs.observation.items()
        if len(spec.shape) == 1 and set(spec.units) == {"rad"}
        for column, name in enumerate(spec.names)
    }
    names = [action.names[i] for i in dims]
    return [(place, *columns[n]) for place, n in enumerate(names) if n in joints and n in columns]
