"""Open a drawer by its handle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float, transform
from robopolicy.core.specs import ArraySpec
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.observing import POSE_SPEC
from robopolicy_sim.poses import closeness, pose_observations, set_mocap, upright

TRAVEL = 0.15  # [m] of the drawer, as in drawer.xml
OPEN = 0.12  # [m] that count as open
AJAR = 0.03  # [m] it may be open at the start
#: Where the middle of the cabinet's front may stand, (x, y) [m] in the base frame.
PLACEMENT_LOWER = (0.57, -0.15)
PLACEMENT_UPPER = (0.65, 0.15)
TURN = np.radians(20.0)  # [rad] it may be turned away from facing the arm, either way


class DrawerEnv(TaskEnv):
    """The cabinet stands anywhere on 8 x 30 cm, within 20 degrees of facing the arm; the drawer is up to
    3 cm ajar. Success: open by 12 of its 15 cm for half a second.

    The handle's frame lies in the middle of its bar: x into the cabinet, y along the bar.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction = "open the drawer"
    episode_seconds: ClassVar[float] = 12.0
    hold_seconds: ClassVar[float] = 0.5

    def task_specs(self) -> dict[str, ArraySpec]:
        return {
            "handle_pose": POSE_SPEC,
            "handle_pose_in_tool": POSE_SPEC,
            "drawer_opening": ArraySpec((1,), units=("m",), names=("drawer",)),
        }

    def task_observation(self) -> dict[str, NDArray[Any]]:
        opening = np.array([self._opening()])
        return {**pose_observations(self.simulation, "handle", self._handle()), "drawer_opening": opening}

    def place(self, rng: np.random.Generator) -> None:
        xy = rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER)
        yaw = np.arctan2(xy[1], xy[0]) + rng.uniform(-TURN, TURN)
        set_mocap(self.simulation, "cabinet", upright((*xy, 0.0), yaw))
        self.simulation.data.joint("drawer").qpos[0] = rng.uniform(0.0, AJAR)

    def condition(self) -> bool:
        return self._opening() >= OPEN

    def reward(self) -> float:
        """A quarter for closeness of the tool to the handle, the rest for how far the drawer is open."""
        tool = self.simulation.transform_tcp_to_base()[:3, 3]
        distance = float(np.linalg.norm(tool - self._handle()[:3, 3]))
        return 0.25 * closeness(distance, 0.2) + 0.75 * min(max(self._opening() / OPEN, 0.0), 1.0)

    def _opening(self) -> float:
        return float(self.simulation.data.joint("drawer").qpos[0])

    def _handle(self) -> Float:
        """(4, 4) pose of the handle in the base frame; needs up-to-date kinematics."""
        site = self.simulation.data.site("handle")
        return transform(site.xmat.reshape(3, 3), site.xpos)
