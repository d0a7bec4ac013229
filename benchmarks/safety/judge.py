"""The independent judge: finite differences of what was sent, and where that put the arm.

Nothing here is shared with the filter. The tolerance is 1e-6 of each limit, for rounding: a position of 6 rad
is held to 4e-16, so its third difference is wrong by up to 8 * 4e-16 = 4e-15 rad, which at 1000 Hz is 7e-9 of
the UR5e's jerk limit. Positions are allowed 1e-6 of their range, clearances 1e-6 m.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.robot import Limits, Robot

Float = NDArray[np.float64]
TOLERANCE = 1e-6


def count_joint_violations(sent: Float, limits: Limits, dt: float, first: int) -> Counter[str]:
    """Numbers out of limits in (ticks, dim) commands; positions from row ``first`` on, which were sent."""
    found: Counter[str] = Counter()
    room = TOLERANCE * (limits.upper - limits.lower)
    inside = (sent[first:] >= limits.lower - room) & (sent[first:] <= limits.upper + room)
    found["non_finite"] += int((~np.isfinite(sent)).sum())
    found["position"] += int((~inside).sum())
    difference = sent
    for name in ("velocity", "acceleration", "jerk"):
        difference = (difference[1:] - difference[:-1]) / dt
        limit = getattr(limits, name) * (1 + TOLERANCE)
        found[name] += int((~(np.abs(difference) <= limit)).sum())
    return +found


class ArmJudge:
    """Where an arm's tool and capsules are, by the textbook.

    Args:
        tool_speed [m/s], clearance and tool_clearance [m], table [m]: what the filter was told to keep.
    """

    def __init__(
        self, robot: Robot, *, tool_speed: float, clearance: float, tool_clearance: float, table: float
    ) -> None:
        self._robot, self._speed = robot, tool_speed
        self._clearance, self._tool_clearance, self._table = clearance, tool_clearance, table

    def count(self, sent: Float, dt: float) -> Counter[str]:
        """Commands, (ticks, num_joints), that break a Cartesian bound; from a start that breaks none."""
        robot, found = self._robot, Counter[str]()
        joints = ["", *robot.joint_names]
        frames = self._frames(sent)
        tool = frames[-1] @ np.append(robot.flange_to_tcp_xyz, 1.0)
        tool = tool[:, :3]
        speed = np.linalg.norm(np.diff(tool, axis=0), axis=1) / dt
        found["tool_speed"] += int((speed > self._speed * (1 + TOLERANCE)).sum())
        lower, upper = np.array(robot.workspace_lower), np.array(robot.workspace_upper)
        outside = (tool < lower - TOLERANCE) | (tool > upper + TOLERANCE)
        found["workspace"] += int(outside.any(axis=1).sum())
        ends = []
        for capsule in robot.capsules:
            frame = frames[joints.index(capsule.joint)]
            ends.append(
                tuple(frame[:, :3, :3] @ np.array(p) + frame[:, :3, 3] for p in (capsule.start, capsule.end))
            )
            if capsule.joint:
                lowest = np.minimum(ends[-1][0][:, 2], ends[-1][1][:, 2]) - capsule.radius
                least = self._table + (self._tool_clearance if capsule.tool else self._clearance)
                found["clearance"] += int((lowest < least - TOLERANCE).sum())
        touching = {*robot.touching, *((b, a) for a, b in robot.touching)}
        for i, one in enumerate(robot.capsules):
            for j, other in enumerate(robot.capsules[:i]):
                if one.part == other.part or (one.part, other.part) in touching:
                    continue
                gap = distance(ends[i], ends[j]) - one.radius - other.radius
                found["self_collision"] += int((gap < self._clearance - TOLERANCE).sum())
        return +found

    def _frames(self, sent: Float) -> list[Float]:
        pose = np.broadcast_to(np.eye(4), (len(sent), 4, 4))
        frames = [pose]
        for number, joint in enumerate(self._robot.joints):
            roll, pitch, yaw = (np.full(len(sent), angle) for angle in joint.origin_rpy)
            fixed = _about(2, yaw) @ _about(1, pitch) @ _about(0, roll)
            fixed[:, :3, 3] = joint.origin_xyz
            pose = pose @ fixed @ _about(2, sent[:, number])
            frames.append(pose)
        return frames


def _about(axis: int, angle: Float) -> Float:
    """(n,) -> (n, 4, 4) rotation about a coordinate axis."""
    result = np.zeros((len(angle), 4, 4))
    result[:, [0, 1, 2, 3], [0, 1, 2, 3]] = 1.0
    i, j = (axis + 1) % 3, (axis + 2) % 3
    result[:, i, i] = result[:, j, j] = np.cos(angle)
    result[:, i, j], result[:, j, i] = -np.sin(angle), np.sin(angle)
    return result


def distance(first: tuple[Float, Float], second: tuple[Float, Float]) -> Float:
    """(n,) distance of segments given by their ends, (n, 3) each: from an end, or between two insides."""
    a, b = first
    c, d = second
    best = np.min([_to_point(c, d, a), _to_point(c, d, b), _to_point(a, b, c), _to_point(a, b, d)], axis=0)
    normal = np.cross(b - a, d - c)
    size = np.einsum("ni,ni->n", normal, normal)
    skew = size > 1e-18
    safe = np.where(skew, size, 1.0)
    s = np.einsum("ni,ni->n", np.cross(c - a, d - c), normal) / safe
    t = np.einsum("ni,ni->n", np.cross(c - a, b - a), normal) / safe
    crossing = skew & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    between = np.abs(np.einsum("ni,ni->n", c - a, normal)) / np.sqrt(safe)
    return np.where(crossing, np.minimum(between, best), best)


def _to_point(start: Float, end: Float, point: Float) -> Float:
    along = end - start
    length = np.maximum(np.einsum("ni,ni->n", along, along), 1e-300)
    share = np.clip(np.einsum("ni,ni->n", point - start, along) / length, 0.0, 1.0)
    result: Float = np.linalg.norm(start + share[:, None] * along - point, axis=1)
    return result
