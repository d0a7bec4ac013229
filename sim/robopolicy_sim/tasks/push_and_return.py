"""Push a puck to the middle, leave it there for a while, and push it back to the side that it came from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import transform
from robopolicy.core.specs import ArraySpec
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.motion import rotation_from_vector
from robopolicy_sim.observing import POSE_SPEC
from robopolicy_sim.poses import body_to_base, pose_observations, set_mocap, upright

PUCK_HEIGHT = 0.03  # [m], as in push_and_return.xml
PUCK_RADIUS = 0.025  # [m], likewise
SIDE_OFFSET = 0.16  # [m] of each pad from the middle, likewise
TOLERANCE = 0.03  # [m] between the puck and the middle or its pad
SPREAD = 0.015  # [m] half width of the puck's start about its pad, both ways
#: Where the middle may be, (x, y) [m] in the base frame, and its yaw [rad].
PLACEMENT_LOWER = (0.43, -0.08)
PLACEMENT_UPPER = (0.57, 0.08)
YAW_MAX = 0.35
_FLAG_OFFSET = 0.11  # [m] from the middle, away from the base
_FLAG_UP, _FLAG_DOWN = 0.03, -0.1  # [m] height of the flag's middle
_POSITION = ArraySpec((3,), units=("m",) * 3, names=("x", "y", "z"))
_SIGNAL = ArraySpec((1,), units=("1",), names=("raised",))
_SINCE, _DONE, _WRONG, _SIDE = range(4)  # fields of MuJoCo's user data, which snapshots keep


class PushAndReturnEnv(TaskEnv):
    """The answer depends on a hidden past: which of two pads, alike in looks, the puck came from.

    While the puck waits in the middle nothing says so: not the puck, which is round, nor the arm, when both
    fingers touch the puck as the expert's do. A flag beyond the middle goes up when it has been there long
    enough, so the side is all that must be remembered. Afterwards the other pad means failure for good, so
    trying both does not help.

    The memory needed is ``wait_seconds``, 1.2 s as it comes: from a tenth or two after the puck comes within
    3 cm of the middle until as long after the flag. Measured on 150 demonstrations with the noise that
    ``robopolicy record`` executes: a linear read-out of one state observation tells the side in 43 to 62 % of
    them from 1.0 s before the flag to 0.1 s after it, in all of them 0.2 s earlier and later. Without noise
    tenths of a millimetre in the grip tell more: record with it.

    Args:
        wait_seconds: how long the puck must stay in the middle [s].
        options: as ``TaskEnv`` takes them.
    Raises:
        ConfigError: no wait, or one that leaves no time for the rest of the episode.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction = "push the puck to the blue mark until the flag goes up, then back to where it came from"
    episode_seconds: ClassVar[float] = 12.0
    hold_seconds: ClassVar[float] = 0.5

    def __init__(self, *, wait_seconds: float = 1.2, **options: Any) -> None:
        longest = self.episode_seconds / 2
        if not 0.0 < wait_seconds <= longest:
            raise ConfigError(f"wait_seconds must be above 0 and at most {longest}, got {wait_seconds}")
        self._wait_seconds = wait_seconds
        super().__init__(**options)
        data = self.simulation.data
        # Views, so that a control tick looks nothing up.
        self._memory = data.userdata
        self._puck = data.joint("puck").qpos[:3]
        self._tool = data.site(f"{self.robot.name}_tcp").xpos
        self._flag = data.mocap_pos[int(self.simulation.model.body("flag").mocapid[0])]
        self._middle = data.site("middle").xpos
        self._pads = {1.0: data.site("pad_left").xpos, -1.0: data.site("pad_right").xpos}

    def task_specs(self) -> dict[str, ArraySpec]:
        poses = {"layout_pose": POSE_SPEC, "layout_pose_in_tool": POSE_SPEC}
        return {"puck": _POSITION, "puck_in_tool": _POSITION, **poses, "flag": _SIGNAL}

    def task_observation(self) -> dict[str, NDArray[Any]]:
        tool = self.simulation.transform_tcp_to_base()
        return {
            "puck": self._puck,
            "puck_in_tool": (self._puck - tool[:3, 3]) @ tool[:3, :3],
            **pose_observations(self.simulation, "layout", body_to_base(self.simulation, "layout")),
            "flag": np.array([self._memory[_DONE]]),
        }

    def place(self, rng: np.random.Generator) -> None:
        middle, yaw = rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER), rng.uniform(-YAW_MAX, YAW_MAX)
        side = float(rng.choice([-1.0, 1.0]))
        layout = transform(rotation_from_vector(np.array([0.0, 0.0, yaw])), (*middle, 0.0))
        offset = np.array([0.0, side * SIDE_OFFSET]) + rng.uniform(-SPREAD, SPREAD, 2)
        self._puck[:] = (layout @ np.array([*offset, PUCK_HEIGHT / 2, 1.0]))[:3]
        self._memory[:] = 0.0
        self._memory[_SIDE] = side
        flag = (layout @ np.array([_FLAG_OFFSET, 0.0, _FLAG_DOWN, 1.0]))[:3]
        set_mocap(self.simulation, "layout", upright((*middle, 0.0), yaw))
        set_mocap(self.simulation, "flag", upright(flag, yaw))

    def condition(self) -> bool:
        """Back at its pad after its stay in the middle. Every control tick asks this once."""
        memory, now = self._memory, self.simulation.time
        if math.dist(self._puck, self._middle) > TOLERANCE:
            memory[_SINCE] = now
        if not memory[_DONE]:
            if now - memory[_SINCE] >= self._wait_seconds:
                memory[_DONE] = 1.0
                self._flag[2] = _FLAG_UP
            return False
        if math.dist(self._puck, self._pads[-memory[_SIDE]]) < TOLERANCE:
            memory[_WRONG] = 1.0
        return not memory[_WRONG] and math.dist(self._puck, self._pads[memory[_SIDE]]) < TOLERANCE

    def reward(self) -> float:
        """A tenth for closeness of the tool; up to .5 on the way to the middle, .9 on the way back, 1 there.

        Nothing once the puck has been at the wrong pad.
        """
        if self._memory[_WRONG]:
            return 0.0
        done = bool(self._memory[_DONE])
        near = 0.1 * (1.0 - math.tanh(3.0 * math.dist(self._tool, self._puck)))
        left = math.dist(self._puck, self._pads[self._memory[_SIDE]] if done else self._middle)
        closeness = 0.4 * max(0.0, 1.0 - left / SIDE_OFFSET)
        return near + closeness + 0.4 * done + 0.1 * (done and left < TOLERANCE)

    @property
    def side(self) -> str:
        """Where the puck came from, "left" or "right" of the base; no observation holds it."""
        return "left" if self._memory[_SIDE] > 0 else "right"
