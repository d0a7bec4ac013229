"""Scripted expert for ``tasks/push.py``: turn the block by pushing near an end, then push it straight.

A finger pair pushed flush against a side moves the block straight along that side's normal as long as its
width covers the block's centre of friction, and turns it otherwise (stable pushes: Lynch and Mason 1996,
"Stable pushing: mechanics, controllability, and planning"). So the block is first turned to the target's
yaw by a push near one end of a long side, then moved along its own two axes by pushes in the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robopolicy.core.geometry import Float, transform, transform_from_pose_9d
from robopolicy_sim.environment import Observation
from robopolicy_sim.expert import Expert
from robopolicy_sim.grasping import over_then_down, retreat, rotation_down, tool_yaw
from robopolicy_sim.poses import turn_within
from robopolicy_sim.tasks.push import BLOCK_SIZE

_HEIGHT = 0.025  # [m] of the tool while it pushes
_LOW = 0.045  # [m] tool height below which the fingers could hit the block from the side
_CLEAR = 0.065  # [m] tool height above which they cannot hit it from above
_BESIDE = 0.03  # [m] from its sides: so near that the tool goes up before it goes elsewhere
_TIP = 0.009  # [m] from tool to the side it touches
_HOVER = 0.05  # [m] above that height, the fingers clear the block
_STANDOFF = 0.035  # [m] from that side where the tool comes down
_CHANNEL = 0.012  # [m] sideways error with which a push goes on
_AHEAD = 0.02  # [m] how far before itself the pushing tool aims; sets its speed, some 8 cm/s
_END = 0.043  # [m] from the block's middle to where a turning push touches
_TURN_START, _TURN_STOP = math.radians(5.0), math.radians(1.5)  # yaw error that starts, ends a turning push
_MOVE_START, _MOVE_STOP = 0.006, 0.002  # [m] error along an axis, the same for a straight one
_DRIFT = 0.085  # [m] that the block moves along while it is turned by a radian, measured
_ARC = 0.13  # [m] that the tool moves meanwhile
_REACH = (0.45, 0.65)  # [m] of the block from the base, so that the tool reaches all around it
_BEYOND = 20.0  # cost of leaving that range, against 1 for the distance left to push
_TURNED = math.radians(10.0)  # yaw error that ends a straight push
_TWIST_START, _TWIST_STOP = math.radians(95.0), math.radians(125.0)  # of the tool from the arm's direction
_FLUSH = 0.5  # [rad] between the fingers' broad side and the block's


@dataclass(frozen=True)
class Push:
    """A push on one side of the block.

    Args:
        axis: of the block along which to push, 0 or 1.
        sign: in which direction.
        lateral: where on the side, along the block's other axis [m].
        distance: that the tool shall still move in touch with it [m].
    """

    axis: int
    sign: float
    lateral: float
    distance: float

    def direction(self, block: Float) -> Float:
        """(2,) unit vector in the base frame."""
        return self.sign * block[:2, self.axis]

    def touch(self, block: Float) -> Float:
        """(2,) tool position in the base frame [m] when it touches the block."""
        side = block[:2, 3] + self.lateral * block[:2, 1 - self.axis]
        return side - (BLOCK_SIZE[self.axis] / 2 + _TIP) * self.direction(block)

    def is_engaged(self, tool: Float, block: Float) -> bool:
        """Whether the tool is low and before its place on the side, or touches there."""
        offset = tool[:2, 3] - self.touch(block)
        ahead = float(offset @ self.direction(block))
        sideways = abs(float(offset @ block[:2, 1 - self.axis]))
        low = float(tool[2, 3]) < _LOW
        return low and sideways < _CHANNEL and -_STANDOFF - _CHANNEL < ahead < _CHANNEL

    def is_unfinished(self, turn: float) -> bool:
        """Whether to go on, with ``turn`` [rad] between block and target: each ends with its own error, and
        a straight one that no longer goes straight ends too."""
        if self.lateral:
            return abs(turn) > _TURN_STOP
        return self.distance > _MOVE_STOP and abs(turn) < _TURNED


class PushExpert(Expert):
    """Which push is on follows from where the tool is; it ends when its error is gone. Otherwise the tool
    goes up and comes down for the next: turn while the yaw is wrong, else along the axis of the larger error.
    """

    def decide(self, observation: Observation) -> tuple[Float, float]:
        tool, block, target = (
            transform_from_pose_9d(observation[name].astype(np.float64))
            for name in ("ee_pose", "block_pose", "target_pose")
        )
        error, turn = _errors(block, target)
        for push in _pushes(error, turn):
            yaw = _push_yaw(push, tool, block, _TWIST_STOP)
            flush = abs(turn_within(yaw - tool_yaw(tool[:3, :3]), 2 * np.pi)) < _FLUSH
            if flush and push.is_engaged(tool, block) and push.is_unfinished(turn):
                return transform(rotation_down(yaw), _ahead(push, tool, block)), 0.0
        following = _next(block, target)
        return (_approach(following, tool, block) if following else retreat(tool)), 0.0


def _pushes(error: Float, turn: float) -> list[Push]:
    """Every push that could be of use: two straight ones, two that turn."""
    straight = [Push(axis, float(np.sign(error[axis])), 0.0, abs(float(error[axis]))) for axis in (0, 1)]
    end = float(np.copysign(_END, turn))
    return straight + [Push(1, sign, sign * end, _ARC * abs(turn)) for sign in (-1.0, 1.0)]


def _next(block: Float, target: Float) -> Push | None:
    """The push to begin with, or None once the block lies well.

    Turn first; among equals, what leaves the least to push and keeps the block within reach.
    """
    error, turn = _errors(block, target)
    pushes = _pushes(error, turn)
    if abs(turn) > _TURN_START:
        drift = (block[:2, :2] @ [-np.sin(turn / 2), np.cos(turn / 2)]) * (_DRIFT * abs(turn))
        ends = [block[:2, 3] + push.sign * drift for push in pushes[2:]]
        return pushes[2 + int(np.argmin([_cost_to_go(end, target) for end in ends]))]
    left = [push for push in pushes[:2] if push.distance > _MOVE_START]
    ends = [block[:2, 3] + push.distance * push.direction(block) for push in left]
    costs = [_BEYOND * _beyond(end) - push.distance for end, push in zip(ends, left, strict=True)]
    return left[int(np.argmin(costs))] if left else None


def _cost_to_go(xy: Float, target: Float) -> float:
    """Of a block at (2,) that has the target's yaw: what is left to push, by the better of the two orders."""
    error = target[:2, :2].T @ (target[:2, 3] - xy)
    corner = min(_beyond(xy + error[axis] * target[:2, axis]) for axis in (0, 1))
    return float(np.abs(error).sum()) + _BEYOND * (_beyond(xy) + corner)


def _beyond(xy: Float) -> float:
    """How far (2,) lies outside the range within reach [m]."""
    radius = float(np.linalg.norm(xy))
    return max(_REACH[0] - radius, radius - _REACH[1], 0.0)


def _errors(block: Float, target: Float) -> tuple[Float, float]:
    """(2,) way to go along the block's axes [m] and angle to turn [rad]."""
    error = block[:2, :2].T @ (target[:2, 3] - block[:2, 3])
    return error, turn_within(_yaw(target) - _yaw(block), 2 * np.pi)


def _approach(push: Push, tool: Float, block: Float) -> Float:
    """(4, 4) tool pose to head for until the push is engaged: up, over its place, down before the side."""
    offset = np.abs(block[:2, :2].T @ (tool[:2, 3] - block[:2, 3]))
    if tool[2, 3] < _CLEAR and np.all(offset < np.array(BLOCK_SIZE[:2]) / 2 + _BESIDE):
        return retreat(tool)
    before = push.touch(block) - _STANDOFF * push.direction(block)
    yaw = _push_yaw(push, tool, block, _TWIST_START)
    return over_then_down(tool, np.append(before, _HEIGHT), yaw, _HOVER)


def _ahead(push: Push, tool: Float, block: Float) -> Float:
    """(3,) tool position to head for while pushing: on the push's line, as far ahead as its speed allows."""
    direction = push.direction(block)
    touch = push.touch(block)
    gap = float((touch - tool[:2, 3]) @ direction)
    return np.array([*(touch + (max(-gap, 0.0) + min(_AHEAD, push.distance)) * direction), _HEIGHT])


def _push_yaw(push: Push, tool: Float, block: Float, twist: float) -> float:
    """Tool yaw that lays the fingers' broad side against the block: of two, the one nearer to the present,
    unless it is more than ``twist`` [rad] from the arm's direction."""
    direction = push.direction(block)
    across = float(np.arctan2(direction[1], direction[0]))
    azimuth = float(np.arctan2(block[1, 3], block[0, 3]))
    yaw = tool_yaw(tool[:3, :3])
    yaw += turn_within(across - yaw, np.pi)
    if abs(turn_within(yaw - azimuth, 2 * np.pi)) > twist:
        yaw += np.pi
    return azimuth + turn_within(yaw - azimuth, 2 * np.pi)


def _yaw(frame: Float) -> float:
    return float(np.arctan2(frame[1, 0], frame[0, 0]))
