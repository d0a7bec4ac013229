"""Put the red cube on the green one and let go of it."""

from __future__ import annotations

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
    nearest_square_yaw,
    pose_observations,
    upright,
)

RED_SIZE = 0.04  # [m] edge, as in stack.xml
GREEN_SIZE = 0.05  # [m]
#: Where the centres of both cubes may start, (x, y) [m] in the base frame.
PLACEMENT_LOWER = (0.38, -0.20)
PLACEMENT_UPPER = (0.65, 0.20)
APART = 0.13  # [m] at least, between the centres: room for the open fingers at every yaw
AWAY = 0.08  # [m] between tool and red cube once it has been let go
_HEIGHT_ERROR = 0.005  # [m]
_LIFTED = 0.03  # [m] above rest, where the reward for lifting is complete


class StackEnv(TaskEnv):
    """Both cubes lie anywhere on 0.27 x 0.4 m of the table at any yaw, at least 13 cm apart.

    The frame of each is the one of its four nearest to the direction from the base at the reset, as in
    ``lift``. Success: the red cube lies still on the green one, the green one still on the table, and the
    gripper has gone, for half a second.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction = "put the red cube on the green cube"
    episode_seconds: ClassVar[float] = 15.0
    hold_seconds: ClassVar[float] = 0.5

    def task_specs(self) -> dict[str, ArraySpec]:
        names = ("red_cube_pose", "red_cube_pose_in_tool", "green_cube_pose", "green_cube_pose_in_tool")
        return dict.fromkeys(names, POSE_SPEC)

    def task_observation(self) -> dict[str, NDArray[Any]]:
        red, green = (body_to_base(self.simulation, name) for name in ("red_cube", "green_cube"))
        return {
            **pose_observations(self.simulation, "red_cube", red),
            **pose_observations(self.simulation, "green_cube", green),
        }

    def place(self, rng: np.random.Generator) -> None:
        while True:
            red, green = rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER, size=(2, 2))
            if np.linalg.norm(red - green) >= APART:
                break
        for name, size, xy in (("red_cube", RED_SIZE, red), ("green_cube", GREEN_SIZE, green)):
            yaw = nearest_square_yaw(xy, rng.uniform(-np.pi, np.pi))
            self.simulation.data.joint(name).qpos[:] = upright((*xy, size / 2), yaw)

    def condition(self) -> bool:
        return (
            self._is_stacked()
            and is_at_rest(self.simulation, "red_cube")
            and is_at_rest(self.simulation, "green_cube")
            and self._tool_distance() > AWAY
        )

    def reward(self) -> float:
        """Reach 0.25, lift 0.15, carry 0.35; from 0.8 to 1 while the gripper leaves the finished stack."""
        if self._is_stacked() and self._tool_distance() > RED_SIZE / 2:
            return 0.8 + 0.2 * min(self._tool_distance() / AWAY, 1.0)
        red, offset = self._position("red_cube"), self._offset()
        lifted = min(max((float(red[2]) - RED_SIZE / 2) / _LIFTED, 0.0), 1.0)
        carried = closeness(float(np.linalg.norm(offset)), 0.2)
        reached = closeness(self._tool_distance(), 0.2)
        return 0.25 * reached + 0.15 * lifted + 0.35 * lifted * carried

    def _position(self, name: str) -> NDArray[np.float64]:
        position: NDArray[np.float64] = self.simulation.data.joint(name).qpos[:3]
        return position

    def _offset(self) -> NDArray[np.float64]:
        """(3,) from where the red cube's centre belongs to where it is [m], in the base frame."""
        offset = self._position("red_cube") - self._position("green_cube")
        offset[2] -= (RED_SIZE + GREEN_SIZE) / 2
        return offset

    def _is_stacked(self) -> bool:
        """The red cube's centre is over the green cube, one on the other, the green one on the table."""
        if self._position("red_cube")[2] < GREEN_SIZE:  # nearly always so; the rest is asked every tick
            return False
        x, y, z = self._offset()
        raised = self._position("green_cube")[2] - GREEN_SIZE / 2
        return bool(np.hypot(x, y) < GREEN_SIZE / 2 and max(abs(z), abs(raised)) < _HEIGHT_ERROR)

    def _tool_distance(self) -> float:
        tool = self.simulation.transform_tcp_to_base()[:3, 3]
        return float(np.linalg.norm(tool - self._position("red_cube")))
