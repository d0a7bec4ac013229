"""Where candidates would take the tool."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float, matrix_from_rpy
from robopolicy.core.robot import Robot
from robopolicy.core.specs import ActionPart, ActionSpec, Specs
from robopolicy.runtime.reranking.dimensions import arm_of

_SPACES = ("joint_position", "ee_pose")


class ToolPath:
    """Commanded positions of the tool centre point.

    Args:
        robot: for joints; by default the one that the specs name.
    Raises:
        ConfigError: no arm among the action's parts, or several; an arm that is commanded by increments or
            relative to the observation, whose start is not known here; a robot with other joints.
    """

    def __init__(self, specs: Specs, robot: Robot | None = None) -> None:
        part, at = _arm(specs.action)
        self.robot = robot = arm_of(specs, robot)
        self.frame = part.frame
        self._joints: list[tuple[int, Float, Float]] = []  # action index, rotation, origin; flange to base
        self._point = np.arange(at.start, at.start + 3)
        if part.space == "ee_pose":
            return
        if robot is None or set(robot.joint_names) != set(part.names):
            has = "no robot is known" if robot is None else f"{robot.name} has {robot.joint_names}"
            raise ConfigError(f"the tool's position follows from the joints {part.names}, but {has}")
        self.frame = robot.base_frame
        self._tool = np.array(robot.flange_to_tcp_xyz)
        for joint in reversed(robot.joints):
            index = at.start + part.names.index(joint.name)
            self._joints.append((index, matrix_from_rpy(joint.origin_rpy), np.array(joint.origin_xyz)))

    def __call__(self, actions: NDArray[Any]) -> Float:
        """(..., action_dim) absolute commands -> (3, ...) tool positions in ``frame`` [m].

        Forward kinematics of the point alone, from the flange to the base, p <- R (Rz(q) p) + o, which is
        far less work than the frames of ``Kinematics``.
        """
        if not self._joints:
            return np.moveaxis(actions[..., self._point], -1, 0).astype(np.float64)
        flat = np.asarray(actions, np.float64).reshape(-1, actions.shape[-1])
        point = np.repeat(self._tool[:, None], len(flat), axis=1)
        for index, rotation, origin in self._joints:
            cosine, sine = np.cos(flat[:, index]), np.sin(flat[:, index])
            x, y = point[0], point[1]
            turned = np.stack([cosine * x - sine * y, sine * x + cosine * y, point[2]])
            point = rotation @ turned + origin[:, None]
        return point.reshape(3, *actions.shape[:-1])


def _arm(action: ActionSpec) -> tuple[ActionPart, slice]:
    found = [(part, at) for part, at in action.slices() if part.space in _SPACES]
    spaces = [f"{part.reference} {part.space}" for part in action.parts]
    if len(found) != 1 or found[0][0].reference != "absolute":
        raise ConfigError(
            f"the tool's position is known of one arm commanded in absolute {' or '.join(_SPACES)}, not of "
            f"{', '.join(spaces)}"
        )
    return found[0]
