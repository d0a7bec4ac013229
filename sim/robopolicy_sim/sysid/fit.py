"""Least squares of open-loop error with ``mujoco.sysid``, from a start found on a coarse grid."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.core.errors import MissingDependencyError
from robopolicy.core.geometry import Float
from robopolicy_sim.sysid.errors import IdentificationError
from robopolicy_sim.sysid.logs import Log
from robopolicy_sim.sysid.open_loop import OpenLoop
from robopolicy_sim.sysid.parameters import DELAY
from robopolicy_sim.sysid.unknowns import Unknown, parameters_at

#: Error of a good model [rad, m]: weighs data against belief, and joints against the gripper.
MODEL_ERROR = 1e-3
#: Errors this close in time [s] are counted as one: they come from the same missing piece of the model.
CORRELATED = 0.1
_STEP = 1e-4  # of finite differences, in the vector's units
_BROKEN = 1e3  # residual of a simulation that broke down
_GRID_KP = (0.0, -1.2, -2.4, -3.6)  # exponents: 1, 0.3, 0.09, 0.03 of the model's gain
_GRID_LAG = (0.0, 0.9, 1.8, 2.7)  # exponents of kv / kp: 1, 2.5, 6, 15 times the model's
_GRID_DELAY = (0.5, 4.0)  # [control ticks]


@dataclass(frozen=True)
class Fit:
    """Where the fit ended.

    Args:
        x: (n,) one element per unknown.
        jacobian: (rows, n) of the weighted residual of the data at x.
        residual: (rows,) itself.
        blocks: (rows,) int; rows of one second of one log share a number.
        iterations: that were made.
    """

    x: Float
    jacobian: Float
    residual: Float
    blocks: Any
    iterations: int


class Residual:
    """Weighted differences between prediction and measurement, as a function of the vector.

    Args:
        moving: which dimensions count, gripper last; the gripper only in logs where it moved freely.
    """

    def __init__(
        self, open_loop: OpenLoop, logs: Sequence[Log], found: list[Unknown], moving: list[bool]
    ) -> None:
        self._open_loop, self._logs, self._found = open_loop, logs, found
        self._columns = [np.flatnonzero([*moving[:-1], moving[-1] and log.gripper]) for log in logs]
        self._weights = [
            1.0 / (MODEL_ERROR * np.sqrt(max(CORRELATED / np.median(np.diff(log.times)), 1.0)))
            for log in logs
        ]
        seconds = [np.floor(log.times).astype(int) for log in logs]
        starts = np.cumsum([0, *(int(s[-1]) + 1 for s in seconds[:-1])])
        self.blocks = np.concatenate(
            [np.repeat(s + first, len(c)) for s, first, c in zip(seconds, starts, self._columns)]
        )

    def __call__(self, x: Float) -> Float:
        """(rows,) of the data; large and constant where the simulation breaks down."""
        errors = self.errors(x)
        parts = [
            (error[:, columns] * weight).ravel()
            for error, columns, weight in zip(errors, self._columns, self._weights)
        ]
        whole: Float = np.nan_to_num(np.concatenate(parts), nan=_BROKEN, posinf=_BROKEN, neginf=-_BROKEN)
        return whole

    def errors(self, x: Float) -> list[Float]:
        """(samples, dim) predicted minus measured, of each log [rad, m]."""
        parameters = parameters_at(x, self._found, self._open_loop.arm.robot.name)
        predicted = self._open_loop.predict(parameters, self._logs)
        return [p - log.measured for p, log in zip(predicted, self._logs)]

    def by_dimension(self, x: Float) -> Float:
        """(dim,) sum of squares of the weighted error of each dimension, over the logs in which it counts."""
        total = np.zeros(len(self._open_loop.servos))
        for error, columns, weight in zip(self.errors(x), self._columns, self._weights):
            with np.errstate(over="ignore", invalid="ignore"):
                squares = np.nan_to_num((error * weight) ** 2, nan=_BROKEN**2, posinf=_BROKEN**2)
            total[columns] += squares.sum(axis=0)[columns]
        return total


def start(residual: Residual, found: list[Unknown], names: Sequence[str]) -> Float:
    """Best point of a coarse grid over gain, lag and delay.

    A servo much stiffer than the real one tracks perfectly, so its gain has no gradient there; the grid
    leads out of that. Joints hardly move one another, so each takes its own best point.
    """
    x = np.array([unknown.start for unknown in found])
    place = {(unknown.kind, unknown.joint): i for i, unknown in enumerate(found)}
    delays = _GRID_DELAY if (DELAY, "") in place else (None,)
    gains = _GRID_KP if any(u.kind == "kp" for u in found) else (0.0,)
    lags = _GRID_LAG if any(u.kind == "kv" for u in found) else (0.0,)
    best: tuple[float, Float] = (np.inf, x)
    for delay in delays:
        lowest, chosen = np.full(len(names), np.inf), x.copy()
        for gain in gains:
            for lag in lags:
                trial = x.copy()
                if delay is not None:
                    trial[place[DELAY, ""]] = delay
                for unknown, i in zip(found, range(len(found))):
                    trial[i] = {"kp": gain, "kv": gain + lag}.get(unknown.kind, trial[i])
                squares = residual.by_dimension(trial)
                better = squares < lowest
                lowest = np.where(better, squares, lowest)
                for i, unknown in enumerate(found):
                    if not unknown.joint or better[list(names).index(unknown.joint)]:
                        chosen[i] = trial[i]
        if lowest.sum() < best[0]:
            best = (float(lowest.sum()), chosen)
    return np.clip(best[1], [u.lower for u in found], [u.upper for u in found])


def fit(residual: Residual, found: list[Unknown], x: Float, *, max_iterations: int = 30) -> Fit:
    """Minimise the residual and the distance from what is believed, by ``mujoco.sysid.optimize``.

    Raises:
        MissingDependencyError: ``mujoco[sysid]`` is not installed.
        IdentificationError: no finite point was reached.
    """
    try:
        from mujoco import minimize, sysid

        parameter_dict = sysid.ParameterDict
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            "identification needs mujoco[sysid]: pip install 'robopolicy[sysid]'"
        ) from error
    lower, upper = (np.array([getattr(u, side) for u in found]) for side in ("lower", "upper"))
    belief = np.array([u.belief for u in found])
    expected = np.array([u.start for u in found])
    parameters = parameter_dict()
    parameters.add(sysid.Parameter("x", expected, lower, upper))
    inside = 2e-3 * (upper - lower)  # the optimiser may get stuck where it starts at a bound
    parameters["x"].update_from_vector(np.clip(x, lower + inside, upper - inside))

    def columns(points: Float) -> Float:
        points = np.atleast_2d(points.T)
        rows = [np.append(residual(p), (p - expected) / belief) for p in points]
        return np.stack(rows, axis=1)

    def together(points: Float, _: Any) -> tuple[list[Float], None, None]:
        values = columns(points)
        return [values[:, 0] if points.ndim == 1 else values], None, None

    _, result = sysid.optimize(
        parameters, together, "mujoco", verbose=False,
        max_iters=max_iterations, x_scale="jac", eps=_STEP, xtol=1e-3, gtol=1e-3, output=io.StringIO(),
    )  # fmt: skip
    found_x = np.asarray(result.x, dtype=np.float64).ravel()
    if not np.isfinite(found_x).all():
        raise IdentificationError("the fit diverged; look at the logs' commands and measurements")
    at = residual(found_x)
    jacobian, _ = minimize.jacobian_fd(
        lambda points: np.stack([residual(p) for p in np.atleast_2d(points.T)], axis=1),
        found_x[:, None], at[:, None], _STEP, 0, [lower[:, None], upper[:, None]],
    )  # fmt: skip
    return Fit(found_x, np.asarray(jacobian), at, residual.blocks, len(result.extras.get("objective", [])))
