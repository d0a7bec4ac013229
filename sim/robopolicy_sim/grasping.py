"""What experts that pick up cubes share: poses of a tool that points down, picking, carrying, letting go.

Every function reads one observation's values and stores nothing, so demonstrations made with them stay a
function of what a policy can see, and a dropped cube is simply picked up again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopolicy.core.geometry import Float, transform
from robopolicy_sim.environment import Observation
from robopolicy_sim.motion import ROTATION_DOWN, rotation_from_vector
from robopolicy_sim.poses import turn_within

_HOVER = 0.10  # [m] tool above the cube's centre while it is not yet over it
_HIGHEST = 0.22  # [m] tool height of a retreat, and of a hover should the cube itself be up in the air
_FITS = 0.010  # [m] misfit with which the fingers may go all the way down
_FUNNEL = 0.020  # [m] more misfit than that: stay at the hover height; in between: in proportion
_YAW_LEVER = 0.03  # [m] misfit of a radian
_ALIGNED = 0.02  # [m] sideways error with which a cube may be lowered
_NEAR = 0.012  # [m] between tool and cube centre: the fingers are around it
_TOUCHED = 0.003  # [m] wider than the cube: the fingers touch it
_PRESS = 0.015  # [m] commanded inside the cube, some 22 N on the FR3
_CLEAR = 0.10  # [m] tool height above which a cube may be carried sideways
_CARRY = 0.13  # [m] tool height while carrying


def rotation_down(yaw: float) -> Float:
    """(3, 3) of a tool pointing down, turned by ``yaw`` [rad] about the base's z axis."""
    return ROTATION_DOWN @ rotation_from_vector(np.array([0.0, 0.0, -yaw]))


def tool_yaw(rotation: Float) -> float:
    """The ``yaw`` of ``rotation_down`` that a (3, 3) tool rotation is nearest to [rad]."""
    turn = ROTATION_DOWN.T @ rotation
    return float(np.arctan2(turn[0, 1], turn[0, 0]))


def square_yaw(frame: Float) -> float:
    """Yaw along a side of an upright square, of four the one nearest to the direction from the base [rad]."""
    side = frame[:3, int(np.argmin(np.abs(frame[2, :3])))]  # a side's normal, most nearly horizontal
    azimuth = float(np.arctan2(frame[1, 3], frame[0, 3]))
    return azimuth + turn_within(float(np.arctan2(side[1], side[0])) - azimuth, np.pi / 2)


@dataclass(frozen=True)
class Picker:
    """Picks one cube.

    Args:
        size: its edge [m].
        opening: of the gripper on the way to it [m].
    """

    size: float
    opening: float

    @property
    def closed(self) -> float:
        """Opening to command while the cube is held [m]."""
        return self.size - _PRESS

    def holds(self, tool: Float, cube: Float, observation: Observation) -> bool:
        """Whether the fingers are around the cube and touch it."""
        near = np.linalg.norm(cube[:3, 3] - tool[:3, 3]) < _NEAR
        return bool(near and observation["gripper_opening"][0] < self.size + _TOUCHED)

    def approach(self, tool: Float, cube: Float) -> tuple[Float, float]:
        """Where to go, and the opening, until ``holds``: over the cube, down a funnel, close."""
        yaw = square_yaw(cube)
        if np.linalg.norm(cube[:3, 3] - tool[:3, 3]) < _NEAR:
            return transform(rotation_down(yaw), cube[:3, 3]), self.closed
        return over_then_down(tool, cube[:3, 3], yaw), self.opening


def over_then_down(tool: Float, position: Float, yaw: float, hover: float = _HOVER) -> Float:
    """(4, 4) tool pose to head for on the way to a (3,) position: ``hover`` [m] over it, then down a funnel.

    The height follows from how far the tool is from fitting, so that fingers already low go up again before
    they would hit what they are meant to surround.
    """
    turned = abs(turn_within(tool_yaw(tool[:3, :3]) - yaw, 2 * np.pi))
    misfit = float(np.linalg.norm(position[:2] - tool[:2, 3])) + _YAW_LEVER * turned
    above = hover * float(np.clip((misfit - _FITS) / _FUNNEL, 0.0, 1.0))
    height = min(position[2] + above, max(_HIGHEST, position[2]))
    return transform(rotation_down(yaw), (*position[:2], height))


def carry(tool: Float, goal: Float) -> Float:
    """(4, 4) tool pose to head for on the way to a goal pose that is reached from above."""
    if np.linalg.norm(goal[:2, 3] - tool[:2, 3]) < _ALIGNED:
        return goal
    xy = goal[:2, 3] if tool[2, 3] > _CLEAR else tool[:2, 3]
    rotation = goal[:3, :3] if tool[2, 3] > _CLEAR else tool[:3, :3]
    return transform(rotation, (*xy, max(_CARRY, float(goal[2, 3]))))


def retreat(tool: Float) -> Float:
    """(4, 4) tool pose straight above the present one, clear of everything."""
    return transform(rotation_down(tool_yaw(tool[:3, :3])), (*tool[:2, 3], _HIGHEST))
