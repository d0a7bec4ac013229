"""A user's own arm, from its MJCF or URDF.

The file is read by MuJoCo; what ``Simulation`` needs and the file does not say is found, added or asked for:
the row of hinge joints from base to flange, their limits, a servo for each, a tool centre point, a parallel
gripper, a rest posture, a wrist camera. Every other name of the file gets the robot's in front, so none
clashes with a scene's. Floors, lights, sensors, keyframes and physics options of the file stay behind; the
task has its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from robopolicy import robots
from robopolicy.core.geometry import Float, matrix_from_rpy, transform
from robopolicy.core.robot import Robot
from robopolicy_sim.robots import SimulatedRobot
from robopolicy_sim.robots.foreign.build import Parts, build
from robopolicy_sim.robots.foreign.chain import (
    Chain,
    bodies_to_cut,
    find_chain,
    flange_place,
    kinematic_frames,
)
from robopolicy_sim.robots.foreign.fingers import Fingers, find_fingers
from robopolicy_sim.robots.foreign.gripper import OURS_LENGTH, our_gripper
from robopolicy_sim.robots.foreign.home import turn_forward, with_home
from robopolicy_sim.robots.foreign.numbers import as_robot, rpy_from_matrix
from robopolicy_sim.robots.foreign.reading import ModelFile, read_file

_ACROSS = 0.1  # sine of the angle that fingers may deviate from right angles to the tool's axis
_OUTWARD = 0.5  # cosine of the angle between the tool's axis and the way from the last joint to it


def load_file(path: Path) -> SimulatedRobot:
    """An arm from an MJCF (.xml) or URDF (.urdf) file and, if there is one, the .yaml beside it.

    Args:
        path: of the model; the YAML's keys are those of ``options.RobotOptions``.
    Returns:
        The robot, named as the model is; its ``source`` says which numbers are defaults of ours.
    Raises:
        ModelError: the file is missing or broken, or lacks what an arm needs; says what, and how to add it.
    """
    file = read_file(path)
    chain = find_chain(file)
    fingers = find_fingers(file, chain)
    if fingers is None:
        body, in_body = flange_place(file, chain)
        chain = replace(chain, body=body, transform_tool_to_body=in_body)
    frames = kinematic_frames(file.model, chain)
    turn = np.eye(3) if fingers is None else _across_fingers(file, frames, fingers)
    frames[-1] = frames[-1] @ _turned(turn)
    robot = with_home(_robot(file, chain, frames, fingers), file, chain, freely=fingers is None)
    forward = turn_forward(robot, freely=fingers is None)
    tool = matrix_from_rpy(robot.flange_to_tcp_rpy) @ forward
    robot = replace(robot, flange_to_tcp_rpy=rpy_from_matrix(tool))
    parts = Parts(
        root=file.model.body(chain.root).name,
        joints=tuple(file.joint_names(chain.joints)),
        cut=bodies_to_cut(file, chain, chain.body) if fingers is None else (),
        body=file.model.body(chain.body).name,
        transform_to_body=chain.transform_tool_to_body @ _turned(turn @ forward),
        fingers=fingers,
    )
    spec, finger_joints = build(file, parts, robot)
    return SimulatedRobot(robot, path, finger_joints, spec)


def _turned(rotation: Float) -> Float:
    return transform(rotation, (0.0, 0.0, 0.0))


def _robot(file: ModelFile, chain: Chain, frames: list[Float], fingers: Fingers | None) -> Robot:
    mount = transform(matrix_from_rpy(file.options.mount_rpy), file.options.mount_xyz)
    mounted = [mount @ frame for frame in frames]
    if fingers is None:
        gripper, notes = our_gripper(), "our parallel gripper, its numbers those of the ur5e's"
        mounted[-1] = mounted[-1] @ transform(np.eye(3), (0.0, 0.0, OURS_LENGTH))
    else:
        gripper, notes = fingers.gripper, fingers.notes
    name = "_".join(file.name.split())
    if name in robots.names():  # whose limits and datasets are another matter
        name = f"{name}_by_path"
    return as_robot(file, chain, mounted, gripper, notes, name=name)


def _across_fingers(file: ModelFile, frames: list[Float], fingers: Fingers) -> Float:
    """(3, 3) turn about the tool's z axis that brings its y axis onto the line the fingers move on."""
    last, tool = frames[-2:]
    local = tool[:3, :3].T @ fingers.axis
    way = tool[:3, :3].T @ (tool[:3, 3] - last[:3, 3])
    if abs(local[2]) > _ACROSS or way[2] < _OUTWARD * np.linalg.norm(way):
        raise file.error(
            f"the tool's z axis must point out of the gripper and lie across the fingers' motion. In the "
            f"tool's frame the fingers move along {local.round(2)}, and the last joint lies at "
            f"{(-way).round(3)} m. Turn it by rpy, in the model or in {file.yaml}: "
            f"'tool: {{at: NAME, rpy: [0, 1.5708, 0]}}'"
        )
    angle = float(np.arctan2(-local[0], local[1]))
    if abs(angle) > np.pi / 2:  # fingers move both ways: the nearer one
        angle -= float(np.copysign(np.pi, angle))
    return matrix_from_rpy((0.0, 0.0, angle))
