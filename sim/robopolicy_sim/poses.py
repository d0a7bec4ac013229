"""Poses of a scene's objects, for tasks: how they are read, drawn and compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float, pose_9d_from_transform, transform
from robopolicy_sim.simulation import Simulation


def turn_within(angle: float, period: float) -> float:
    """The same angle of a shape that looks alike after ``period``, within half a period of zero [rad]."""
    return float((angle + period / 2) % period - period / 2)


def nearest_square_yaw(xy: NDArray[Any], yaw: float) -> float:
    """Of a square's four equal yaws, the one nearest to the direction from the base to it [rad].

    No camera could tell them apart, so an observed frame of a square has to be chosen by such a rule.
    """
    azimuth = float(np.arctan2(xy[1], xy[0]))
    return azimuth + turn_within(yaw - azimuth, np.pi / 2)


def upright(xyz: NDArray[Any] | tuple[float, float, float], yaw: float) -> Float:
    """(7,) position [m] and quat_wxyz of a body turned about the vertical by ``yaw`` [rad]."""
    return np.array([*xyz, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def yaw_from_quat(quat_wxyz: NDArray[Any]) -> float:
    """Angle by which a (4,) unit quaternion turns the x axis about the vertical [rad]."""
    w, x, y, z = quat_wxyz.tolist()
    return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def set_mocap(simulation: Simulation, name: str, pose: NDArray[Any]) -> None:
    """Put a fixed body that the task may place, MuJoCo's "mocap", at a (7,) pose as from ``upright``."""
    index = simulation.model.body(name).mocapid[0]
    simulation.data.mocap_pos[index] = pose[:3]
    simulation.data.mocap_quat[index] = pose[3:]


def mocap_pose(simulation: Simulation, name: str) -> Float:
    """(7,) position [m] and quat_wxyz of such a body."""
    index = simulation.model.body(name).mocapid[0]
    return np.concatenate([simulation.data.mocap_pos[index], simulation.data.mocap_quat[index]])


def body_to_base(simulation: Simulation, name: str) -> Float:
    """(4, 4) pose of a body; call ``update_kinematics`` first."""
    body = simulation.data.body(name)
    return transform(body.xmat.reshape(3, 3), body.xpos)


def pose_observations(simulation: Simulation, name: str, frame: Float) -> dict[str, Float]:
    """A pose (4, 4) in the base frame as two observations: NAME_pose and NAME_pose_in_tool, (9,) each."""
    in_tool = np.linalg.inv(simulation.transform_tcp_to_base()) @ frame
    return {
        f"{name}_pose": pose_9d_from_transform(frame),
        f"{name}_pose_in_tool": pose_9d_from_transform(in_tool),
    }


def is_at_rest(simulation: Simulation, joint: str) -> bool:
    """Whether a free body hardly moves: below 2 cm/s and 0.5 rad/s, what a settling contact still shows."""
    velocity = simulation.data.joint(joint).qvel
    return bool(np.linalg.norm(velocity[:3]) < 0.02 and np.linalg.norm(velocity[3:]) < 0.5)


def closeness(distance: float, scale: float) -> float:
    """1 at zero distance [m], 0.24 at ``scale`` [m], towards 0 beyond: a smooth part of a dense reward."""
    return float(1.0 - np.tanh(distance / scale))
