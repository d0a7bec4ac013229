"""Forward kinematics of many postures at once, and the capsules they carry."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ShapeError
from robopolicy.core.geometry import Float, matrix_from_rpy, transform
from robopolicy.core.robot import Robot


class Kinematics:
    """What ``Robot.transform_tcp_to_base`` gives, for (n, num_joints) postures and for every joint's frame.

    Args:
        robot: its joints turn about their own z axes.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        origins = [transform(matrix_from_rpy(j.origin_rpy), j.origin_xyz) for j in robot.joints]
        self._fixed = np.stack(origins)[:, None]
        self._tool = np.append(np.asarray(robot.flange_to_tcp_xyz), 1.0)
        frames = {name: i for i, name in enumerate(("", *robot.joint_names))}
        self._frame = np.array([frames[c.joint] for c in robot.capsules], dtype=np.intp)
        ends = np.array([(c.start, c.end) for c in robot.capsules]).reshape(-1, 2, 3)
        self._ends = np.concatenate([ends, np.ones((len(ends), 2, 1))], axis=2)
        self._radius = np.array([c.radius for c in robot.capsules])
        self._by_frame = [np.flatnonzero(self._frame == i) for i in range(len(frames))]
        self._points = [self._ends[members].reshape(-1, 4).T.copy() for members in self._by_frame[1:]]

    @property
    def radius(self) -> Float:
        """(num_capsules,) [m]."""
        return self._radius

    @property
    def frame(self) -> NDArray[np.intp]:
        """(num_capsules,) the frame each is fixed to: 0 the base's, i that of the i-th joint from 1."""
        return self._frame

    def frames(self, joint_position: NDArray[Any]) -> list[Float]:
        """(n, num_joints) [rad] -> for each joint the (n, 4, 4) transform of its frame to the base frame.

        Raises:
            ShapeError: not (n, num_joints).
        """
        angles = np.asarray(joint_position, dtype=np.float64)
        if angles.ndim != 2 or angles.shape[1] != len(self._fixed):
            raise ShapeError(f"need (n, {len(self._fixed)}) joint positions, got {angles.shape}")
        turned = angles.T[..., None]
        cosine, sine = np.cos(turned), np.sin(turned)
        local = np.empty((len(self._fixed), len(angles), 4, 4))
        local[..., 0] = self._fixed[..., 0] * cosine + self._fixed[..., 1] * sine
        local[..., 1] = self._fixed[..., 1] * cosine - self._fixed[..., 0] * sine
        local[..., 2:] = self._fixed[..., 2:]
        poses = [local[0]]
        for step in local[1:]:
            poses.append(poses[-1] @ step)
        return poses

    def tool(self, frames: list[Float]) -> Float:
        """(n, 3) tool centre points in the base frame [m]."""
        point: Float = (frames[-1] @ self._tool)[:, :3]
        return point

    def capsules(self, frames: list[Float]) -> Float:
        """(n, num_capsules, 2, 3) both ends of every capsule in the base frame [m]."""
        count = len(frames[0])
        ends = np.empty((count, len(self._ends), 2, 3))
        ends[:, self._by_frame[0]] = self._ends[self._by_frame[0], :, :3]
        for frame, members, points in zip(frames, self._by_frame[1:], self._points):
            if len(members):
                there = (frame[:, :3] @ points).transpose(0, 2, 1)
                ends[:, members] = there.reshape(count, len(members), 2, 3)
        return ends

    def coordinate(self, frames: list[Float], axis: int) -> Float:
        """(n, num_capsules, 2) one coordinate, 0 to 2, of both ends of each in the base frame [m]."""
        count = len(frames[0])
        result = np.empty((count, len(self._ends), 2))
        result[:, self._by_frame[0]] = self._ends[self._by_frame[0], :, axis]
        for frame, members, points in zip(frames, self._by_frame[1:], self._points):
            if len(members):
                result[:, members] = (frame[:, axis] @ points).reshape(count, len(members), 2)
        return result

    def reach(self) -> Float:
        """(num_capsules, num_joints) how far a capsule moves at most per radian of a joint [m]."""
        steps = [float(np.linalg.norm(j.origin_xyz)) for j in self._robot.joints]
        result = np.zeros((len(self._ends), len(steps)))
        for i, number in enumerate(self._frame):
            own = float(np.max(np.linalg.norm(self._ends[i, :, :3], axis=1)))
            for joint in range(number):
                result[i, joint] = own + sum(steps[joint + 1 : number])
        return result
