"""Open-loop error of a model on logs it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy_sim.sysid.logs import Log

_EVERY = 5  # samples between two at which the tool's place is computed


@dataclass(frozen=True)
class Accuracy:
    """Root mean square errors over logs.

    Args:
        joints: joint name to error [rad]; the gripper's, where it moved freely [m].
        arm: over all joints [rad].
        tool_mm: distance between predicted and measured place of the tool [mm].
    """

    joints: dict[str, float]
    arm: float
    tool_mm: float


def accuracy(robot: Robot, logs: Sequence[Log], predicted: Sequence[Float]) -> Accuracy:
    """Compare predictions, (samples, num_joints + 1) per log, with what was measured."""
    errors = [p - log.measured for p, log in zip(predicted, logs)]
    arm = np.concatenate([e[:, :-1] for e in errors])
    joints = dict(zip(robot.joint_names, np.sqrt(np.mean(arm**2, axis=0)).tolist()))
    free = [e[:, -1] for e, log in zip(errors, logs) if log.gripper]
    if free:
        joints[robot.gripper.name] = float(np.sqrt(np.mean(np.concatenate(free) ** 2)))
    squares = [
        float(np.sum((_tool(robot, p) - _tool(robot, m)) ** 2))
        for rows, log in zip(predicted, logs)
        for p, m in zip(rows[::_EVERY, :-1], log.measured[::_EVERY, :-1])
    ]
    return Accuracy(joints, float(np.sqrt(np.mean(arm**2))), 1e3 * float(np.sqrt(np.mean(squares))))


def _tool(robot: Robot, joints: Float) -> Float:
    return robot.transform_tcp_to_base(joints)[:3, 3]
