"""Put a cube into a bin and let go of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import ArraySpec
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.observing import POSE_SPEC
from robopolicy_sim.poses import (
    body_to_base,
    closeness,
    is_at_rest,
    mocap_pose,
    nearest_square_yaw,
    pose_observations,
    set_mocap,
    upright,
    yaw_from_quat,
)

CUBE_SIZE = 0.04  # [m] edge, as in place.xml
BIN_RIM = 0.05  # [m] height of the walls
BIN_INSIDE = 0.13  # [m] between opposite walls
#: Where the centres of cube and bin may start, (x, y) [m] in the base frame.
PLACEMENT_LOWER = (0.38, -0.22)
PLACEMENT_UPPER = (0.65, 0.22)
APART = 0.18  # [m] at least, between the centres: room for the open fingers at every yaw
AWAY = 0.08  # [m] between tool and cube once it has been let go
_LIFTED = 0.03  # [m] above rest, where the reward for lifting is complete


class PlaceEnv(TaskEnv):
    """Cube and bin lie anywhere on 0.27 x 0.44 m of the table at any yaw, at least 18 cm apart.

    Both are squares from above, so the frame of each is the one of its four nearest to the direction from
    the base at the reset, as in ``lift``. Success: the cube lies still within the walls and the gripper has
    gone, for half a second.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction = "put the red cube into the blue bin"
    episode_seconds: ClassVar[float] = 15.0
    hold_seconds: ClassVar[float] = 0.5

    def task_specs(self) -> dict[str, ArraySpec]:
        return dict.fromkeys(("cube_pose", "cube_pose_in_tool", "bin_pose", "bin_pose_in_tool"), POSE_SPEC)

    def task_observation(self) -> dict[str, NDArray[Any]]:
        return {
            key: value
            for name in ("cube", "bin")
            for key, value in pose_observations(
                self.simulation, name, body_to_base(self.simulation, name)
            ).items()
        }

    def place(self, rng: np.random.Generator) -> None:
        while True:
            cube, target = rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER, size=(2, 2))
            if np.linalg.norm(cube - target) >= APART:
                break
        cube_yaw, bin_yaw = rng.uniform(-np.pi, np.pi, size=2)
        pose = upright((*cube, CUBE_SIZE / 2), nearest_square_yaw(cube, cube_yaw))
        self.simulation.data.joint("cube").qpos[:] = pose
        set_mocap(self.simulation, "bin", upright((*target, 0.0), nearest_square_yaw(target, bin_yaw)))

    def condition(self) -> bool:
        return self._is_inside() and is_at_rest(self.simulation, "cube") and self._tool_distance() > AWAY

    def reward(self) -> float:
        """Reach 0.25, lift 0.15, carry 0.35; from 0.8 to 1 inside the bin while the gripper goes away."""
        if self._is_inside():
            return 0.8 + 0.2 * min(self._tool_distance() / AWAY, 1.0)
        cube = self._cube_position()
        lifted = min(max((float(cube[2]) - CUBE_SIZE / 2) / _LIFTED, 0.0), 1.0)
        carried = closeness(float(np.linalg.norm(self._cube_to_bin()[:2])), 0.2)
        reached = closeness(self._tool_distance(), 0.2)
        return 0.25 * reached + 0.15 * lifted + 0.35 * lifted * carried

    def _cube_position(self) -> NDArray[np.float64]:
        position: NDArray[np.float64] = self.simulation.data.joint("cube").qpos[:3]
        return position

    def _cube_to_bin(self) -> NDArray[np.float64]:
        """(3,) from the bin's origin to the cube's centre [m], in the base frame."""
        return self._cube_position() - mocap_pose(self.simulation, "bin")[:3]

    def _is_inside(self) -> bool:
        x, y, z = map(float, self._cube_to_bin())
        if z > BIN_RIM or math.hypot(x, y) > BIN_INSIDE / math.sqrt(2):  # cheap, for it is asked every tick
            return False
        yaw = yaw_from_quat(mocap_pose(self.simulation, "bin")[3:])
        along = x * math.cos(yaw) + y * math.sin(yaw)
        across = y * math.cos(yaw) - x * math.sin(yaw)
        return max(abs(along), abs(across)) < BIN_INSIDE / 2

    def _tool_distance(self) -> float:
        tool = self.simulation.transform_tcp_to_base()[:3, 3]
        return float(np.linalg.norm(tool - self._cube_position()))
