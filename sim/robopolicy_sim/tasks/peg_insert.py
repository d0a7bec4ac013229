"""Insert a square peg into a square hole with 1 mm of air on each side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.specs import ArraySpec
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.observing import POSE_SPEC
from robopolicy_sim.poses import body_to_base, nearest_square_yaw, pose_observations, set_mocap, upright

PEG_SIZE = 0.03  # [m] edge of its square section, as in peg_insert.xml
PEG_LENGTH = 0.08  # [m], likewise
HOLE_SIZE = 0.032  # [m] edge, likewise
BLOCK_HEIGHT = 0.05  # [m], likewise
DEPTH = 0.03  # [m] of the peg's end below the block's top that counts as inserted
#: Where the centres of peg and block may start, (x, y) [m] in the base frame.
PLACEMENT_LOWER = (0.36, -0.22)
PLACEMENT_UPPER = (0.62, 0.22)
APART = 0.16  # [m] at least, between the centres: room for the open fingers at every yaw
_STILL = 0.02  # [m/s] below which the peg is at rest
_CARRIED = BLOCK_HEIGHT + 0.01  # [m] height of the peg's end where the reward for lifting is complete


class PegInsertEnv(TaskEnv):
    """The peg stands upright anywhere on 0.26 x 0.44 m of the table at any yaw; the block is fixed likewise.

    A bevel of 8 mm leads into the hole. Success: the peg's end is 3 cm deep and the peg at rest for half a
    second, held or not. Peg and hole look alike from four sides, so their frames are those nearest to the
    direction from the base at the reset, as in ``lift``.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction: ClassVar[str] = "insert the red peg into the hole of the blue block"
    episode_seconds: ClassVar[float] = 15.0
    hold_seconds: ClassVar[float] = 0.5

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        data = self.simulation.data
        # Views, so that a control tick looks nothing up.
        self._tool = data.site(f"{self.robot.name}_tcp").xpos
        self._peg, self._block = data.body("peg"), data.body("block").xpos
        self._peg_velocity = data.joint("peg").qvel

    def task_specs(self) -> dict[str, ArraySpec]:
        return dict.fromkeys(("peg_pose", "peg_pose_in_tool", "hole_pose", "hole_pose_in_tool"), POSE_SPEC)

    def task_observation(self) -> dict[str, NDArray[Any]]:
        simulation = self.simulation
        hole = body_to_base(simulation, "block")
        hole[2, 3] = BLOCK_HEIGHT
        peg = body_to_base(simulation, "peg")
        return {**pose_observations(simulation, "peg", peg), **pose_observations(simulation, "hole", hole)}

    def place(self, rng: np.random.Generator) -> None:
        while True:
            peg, block = rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER, size=(2, 2))
            if np.linalg.norm(peg - block) >= APART:
                break
        peg_yaw, block_yaw = rng.uniform(-np.pi, np.pi, size=2)
        pose = upright((*peg, PEG_LENGTH / 2), nearest_square_yaw(peg, peg_yaw))
        self.simulation.data.joint("peg").qpos[:] = pose
        set_mocap(self.simulation, "block", upright((*block, 0.0), nearest_square_yaw(block, block_yaw)))

    def condition(self) -> bool:
        end = self._end()
        if BLOCK_HEIGHT - end[2] < DEPTH or self._sideways(end) > HOLE_SIZE / 2:
            return False
        return math.hypot(*self._peg_velocity[:3]) < _STILL

    def reward(self) -> float:
        """Reach 0.25, lift 0.15, over the hole 0.25, depth 0.25, inserted 0.1."""
        end = self._end()
        grasp = end + 0.75 * PEG_LENGTH * self._peg.xmat[[2, 5, 8]]
        reached = 1.0 - math.tanh(5.0 * math.dist(self._tool, grasp))
        sideways, depth = self._sideways(end), BLOCK_HEIGHT - float(end[2])
        over = sideways < HOLE_SIZE / 2
        if depth > 0.0 and over:
            return 0.65 + 0.25 * min(depth / DEPTH, 1.0) + 0.1 * (depth > DEPTH)
        lifted = 1.0 if over else min(max(float(end[2]) / _CARRIED, 0.0), 1.0)
        return 0.25 * reached + 0.15 * lifted + 0.25 * lifted * (1.0 - math.tanh(5.0 * sideways))

    def _end(self) -> Float:
        """(3,) middle of the peg's lower end in the base frame [m]."""
        end: Float = self._peg.xpos - PEG_LENGTH / 2 * self._peg.xmat[[2, 5, 8]]
        return end

    def _sideways(self, point: Float) -> float:
        """Distance of a point from the hole's axis [m]."""
        return math.dist(point[:2], self._block[:2])
