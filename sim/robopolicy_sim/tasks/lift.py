"""Lift a cube 5 cm off the table and hold it there for one second."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import ArraySpec
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.observing import POSE_SPEC

CUBE_SIZE = 0.04  # [m] edge, as in lift.xml
LIFT_HEIGHT = 0.05  # [m] above rest
#: Where the cube's centre may start, (x, y) [m] in the base frame: 0.3 m deep, 0.4 m wide.
PLACEMENT_LOWER = (0.35, -0.20)
PLACEMENT_UPPER = (0.65, 0.20)


def quarter_turn(angle: float) -> float:
    """The same angle of a square, within -45..45 degrees [rad]."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4


class LiftEnv(TaskEnv):
    """The cube lies anywhere on 0.3 x 0.4 m of the table at any yaw.

    All six sides look alike, so no camera could tell the cube's four upright yaws apart. Its frame is
    therefore the one nearest to the direction from the base to the cube at the reset (within 45 degrees),
    and stays with the cube.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction: ClassVar[str] = "lift the cube"
    episode_seconds: ClassVar[float] = 10.0
    hold_seconds: ClassVar[float] = 1.0

    def task_specs(self) -> dict[str, ArraySpec]:
        return {"cube_pose": POSE_SPEC, "cube_pose_in_tool": POSE_SPEC}

    def task_observation(self) -> dict[str, NDArray[Any]]:
        in_base, in_tool = self.simulation.body_poses_9d("cube")
        return {"cube_pose": in_base, "cube_pose_in_tool": in_tool}

    def place(self, rng: np.random.Generator) -> None:
        xy = rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER)
        yaw = rng.uniform(-np.pi, np.pi)
        azimuth = np.arctan2(xy[1], xy[0])
        nearest = azimuth + quarter_turn(yaw - azimuth)
        quat_wxyz = [np.cos(nearest / 2), 0.0, 0.0, np.sin(nearest / 2)]
        self.simulation.data.joint("cube").qpos[:] = [*xy, CUBE_SIZE / 2, *quat_wxyz]

    def condition(self) -> bool:
        return self._height() >= LIFT_HEIGHT

    def reward(self) -> float:
        """A quarter for closeness of the tool, half for height, the last quarter while the cube is up."""
        distance = math.dist(self.simulation.tool_position(), self._cube_position())
        lifted = min(max(self._height() / LIFT_HEIGHT, 0.0), 1.0)
        return 0.25 * (1.0 - math.tanh(5.0 * distance)) + 0.5 * lifted + 0.25 * self.condition()

    def _cube_position(self) -> NDArray[np.float64]:
        position: NDArray[np.float64] = self.simulation.data.joint("cube").qpos[:3]
        return position

    def _height(self) -> float:
        """Of the cube's centre above rest [m]."""
        return float(self._cube_position()[2]) - CUBE_SIZE / 2
