"""Scripted expert for ``tasks/push_and_return.py``: fingers about the puck, to the middle, wait, back."""

from __future__ import annotations

from typing import Any

import numpy as np

from robopolicy.core.geometry import Float, transform, transform_from_pose_9d
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.expert import Expert
from robopolicy_sim.motion import ROTATION_DOWN, rotation_from_vector
from robopolicy_sim.tasks.push_and_return import PUCK_RADIUS, SIDE_OFFSET

_HOVER = 0.09  # [m] tool above the table before the descent
_LOW = 0.018  # [m] tool above the table while it pushes
_ALIGNED = 0.007  # [m] sideways error that lets the descent begin
_ABOUT = 0.013  # [m] tool height above the puck's centre below which the fingers are about it
_AWAY = 0.02  # [m] sideways error at which the fingers have lost the puck
_TOUCHED = 2 * PUCK_RADIUS + 0.003  # [m] opening below which both fingers touch it
_CLOSED = 2 * PUCK_RADIUS - 0.012  # [m] commanded opening while it is pushed
_STOP_SPREAD = 0.01  # [m] half width of where in the middle the puck is left


class PushAndReturnExpert(Expert):
    """Slides the puck between its fingers; remembers the side at which it first saw it.

    Both fingers touch, so the arm looks the same from whichever side it came. Where exactly the puck is left
    in the middle is drawn, keyed by the seed of ``reset``: otherwise the last tenths of a millimetre of the
    way would give the side away.
    """

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        super().reset(env, seed)
        self._open = env.robot.gripper.opening_max
        self._stop = float(self.choices.uniform(-_STOP_SPREAD, _STOP_SPREAD))
        self._side = 0.0  # of the layout: 1 left, -1 right, 0 not seen yet

    def decide(self, observation: Observation) -> tuple[Float, float]:
        layout = transform_from_pose_9d(observation["layout_pose"].astype(np.float64))
        tool = observation["ee_pose"][:3].astype(np.float64)
        base_to_layout = np.linalg.inv(layout)
        puck = (base_to_layout @ np.append(observation["puck"].astype(np.float64), 1.0))[:3]
        hand = (base_to_layout @ np.append(tool, 1.0))[:3]
        if self._side == 0.0:
            self._side = float(np.sign(puck[1]))
        sideways = float(np.linalg.norm(hand[:2] - puck[:2]))
        opening = self._open
        if sideways < _AWAY and hand[2] - puck[2] < _ABOUT:
            opening, place = _CLOSED, puck[:2]
            if observation["gripper_opening"][0] < _TOUCHED:
                returning = observation["flag"][0] > 0.5
                place = np.array([0.0, self._side * SIDE_OFFSET if returning else self._stop])
            where = np.array([*place, _LOW])
        else:
            where = np.array([*puck[:2], _LOW if sideways < _ALIGNED else _HOVER])
        yaw = float(np.arctan2(layout[1, 0], layout[0, 0]))
        rotation = ROTATION_DOWN @ rotation_from_vector(np.array([0.0, 0.0, -yaw]))
        return transform(rotation, (layout @ np.append(where, 1.0))[:3]), opening

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "side": {1.0: "left", -1.0: "right"}.get(self._side)}
