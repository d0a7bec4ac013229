"""Scripted expert for ``tasks/drawer.py``: over the handle, down, close, pull. No phase is stored."""

from __future__ import annotations

import numpy as np

from robopolicy.core.geometry import Float, transform, transform_from_pose_9d
from robopolicy_sim.environment import Observation
from robopolicy_sim.expert import Expert
from robopolicy_sim.grasping import over_then_down, rotation_down
from robopolicy_sim.tasks.drawer import TRAVEL

_WIDE = 0.045  # [m] opening on the way: the bar fits with room to spare, and so does a finger behind it
_BAR = 0.012  # [m] thickness of the handle
_TOUCHED = 0.004  # [m] wider than the bar: the fingers touch it
_NEAR = 0.012  # [m] between tool and bar, across it: the fingers are around it
_ALONG = 0.03  # [m] along the bar, where its posts begin to be near
_AHEAD = 0.06  # [m] how far before the handle the pulling tool aims; sets its speed
_ENOUGH = TRAVEL - 0.01  # [m] where pulling ends


class DrawerExpert(Expert):
    """The fingers go down before and behind the bar, hand across the cabinet, and close; then the tool moves
    along the drawer's axis. What comes next follows from tool, handle and the measured openings alone."""

    def decide(self, observation: Observation) -> tuple[Float, float]:
        tool, handle = (
            transform_from_pose_9d(observation[name].astype(np.float64))
            for name in ("ee_pose", "handle_pose")
        )
        yaw = float(np.arctan2(handle[1, 0], handle[0, 0])) + np.pi / 2  # fingers along the drawer's axis
        inward, bar, _ = handle[:3, :3].T @ (tool[:3, 3] - handle[:3, 3])
        height = tool[2, 3] - handle[2, 3]
        if max(abs(inward), abs(height)) > _NEAR or abs(bar) > _ALONG:
            return over_then_down(tool, handle[:3, 3], yaw), _WIDE
        if observation["gripper_opening"][0] > _BAR + _TOUCHED:
            return transform(rotation_down(yaw), handle[:3, 3]), 0.0
        ahead = min(_AHEAD, _ENOUGH - float(observation["drawer_opening"][0]))
        goal = handle[:3, 3] - ahead * handle[:3, 0]
        return transform(rotation_down(yaw), goal), 0.0
