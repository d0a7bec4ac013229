"""Whether an arm's coming commands keep its tool in the workspace and its body off itself and the walls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float, segment_distance
from robopolicy.core.kinematics import Kinematics
from robopolicy.core.robot import Robot
from robopolicy.runtime.safety.config import SafetyConfig

_ROUNDING = 1e-9  # [m]
_FEW = 60  # gaps that are computed without asking first which of them must be


class CartesianGuard:
    """Judges paths of joint positions tick by tick. From outside a bound, paths may lead inwards only.

    Distances between capsules are computed where they can be short. A capsule moves by at most its reach for
    each radian of a joint before it, so a gap known in one posture bounds it in others.

    Args:
        robot: without capsules only its tool is watched.
        dt: between commands [s].
    """

    def __init__(self, robot: Robot, config: SafetyConfig, dt: float) -> None:
        self._kinematics = kinematics = Kinematics(robot)
        self._lower = np.array(robot.workspace_lower)
        self._upper = np.array(robot.workspace_upper)
        self._step = config.tool_speed * dt * (1.0 + 1e-9)
        moving = np.flatnonzero(kinematics.frame > 0)
        tool = np.array([capsule.tool for capsule in robot.capsules], dtype=np.bool_)
        self._moving = moving
        self._from_walls = (kinematics.radius + np.where(tool, config.tool_clearance, config.link_clearance))[
            moving
        ]
        walls = ((config.enclosure_lower, 1.0), (config.enclosure_upper, -1.0))
        self._walls = [
            (axis, sign, at[axis]) for at, sign in walls for axis in range(3) if np.isfinite(at[axis])
        ]
        self._pairs = np.array(robot.pairs, dtype=np.intp).reshape(-1, 2)
        self._every = np.arange(len(self._pairs))
        self._apart = kinematics.radius[self._pairs].sum(axis=1) + config.link_clearance
        self._leverage = _leverage(kinematics, self._pairs)
        self._known_at: Float = np.zeros(len(robot.joints))  # the posture that _known_gap is of
        self._known_gap: Float = np.full(len(self._pairs), -np.inf)

    def refusal(self, path: Float) -> str:
        """Why a path must not be begun; empty where it may.

        Args:
            path: (n, num_joints) joint positions, the first of them where the arm is [rad].
        """
        frames = self._kinematics.frames(path)
        tool = self._kinematics.tool(frames)
        steps = tool[1:] - tool[:-1]
        if np.einsum("ij,ij->i", steps, steps).max(initial=0.0) > self._step**2:
            return "tool_speed"
        if _leaves(np.concatenate([tool - self._lower, self._upper - tool], axis=1)):
            return "workspace"
        if not len(self._pairs):
            return ""
        for axis, sign, at in self._walls:
            room = sign * (self._kinematics.coordinate(frames, axis)[:, self._moving] - at)
            if _leaves(room.min(axis=2) - self._from_walls):
                return "clearance"
        return "self_collision" if self._collides(path, frames) else ""

    def speed_excess(self, before: Float, after: Float) -> float:
        """Speed of the tool between two postures, (num_joints,) each, over its limit [-]."""
        tool = self._kinematics.tool(self._kinematics.frames(np.stack([before, after])))
        return float(np.linalg.norm(tool[1] - tool[0])) / self._step

    def _collides(self, path: Float, frames: list[Float]) -> bool:
        doubtful = self._doubtful(path)
        if not doubtful.any():
            return False
        ends = self._kinematics.capsules(frames)
        if np.count_nonzero(doubtful) > _FEW:
            self._known_at = path[0].copy()
            self._known_gap = self._gaps(ends, np.zeros_like(self._every), self._every)
            doubtful = self._doubtful(path)
        doubtful[0] = doubtful.any(axis=0)
        rows, pairs = np.nonzero(doubtful)
        gap = self._gaps(ends, rows, pairs)
        first = np.zeros(len(self._pairs))
        first[pairs[rows == 0]] = gap[rows == 0]
        return bool((gap < np.minimum(first[pairs], 0.0) - _ROUNDING).any())

    def _gaps(self, ends: Float, rows: NDArray[np.intp], pairs: NDArray[np.intp]) -> Float:
        one, other = self._pairs[pairs].T
        gap: Float = segment_distance(ends[rows, one], ends[rows, other]) - self._apart[pairs]
        return gap

    def _doubtful(self, path: Float) -> NDArray[np.bool_]:
        """(n, pairs) where the gap is not known to be left open."""
        moved = np.abs(path - self._known_at) @ self._leverage
        doubtful: NDArray[np.bool_] = moved > self._known_gap
        return doubtful


def _leaves(room: Float) -> bool:
    """Whether room, (n, ...), becomes less than none, or than it is at first where it is less already."""
    return bool((room[1:] < np.minimum(room[0], 0.0) - _ROUNDING).any())


def _leverage(kinematics: Kinematics, pairs: NDArray[np.intp]) -> Float:
    """(num_joints, pairs) how much nearer a radian of a joint brings two capsules at most [m]."""
    reach, frame = kinematics.reach(), kinematics.frame
    result = np.zeros((reach.shape[1], len(pairs)))
    for k, (i, j) in enumerate(pairs):
        near, far = (i, j) if frame[i] <= frame[j] else (j, i)
        between = slice(frame[near], frame[far])  # the joints that move one of them and not the other
        result[between, k] = reach[far, between]
    return result
