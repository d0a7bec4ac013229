"""Robots to simulate: a robot file's numbers together with a MuJoCo model of it, ours or a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mujoco

from robopolicy import robots
from robopolicy.core.errors import UnknownNameError
from robopolicy.core.robot import Robot
from robopolicy_sim.errors import ModelError


@dataclass(frozen=True)
class SimulatedRobot:
    """A robot and the model of it.

    Args:
        robot: names, limits and kinematics.
        mjcf: the file its model comes from. The model's joints and actuators are named as in ``robot``; it
            has a site NAME_tcp, two sliding finger joints and a camera wrist_camera.
        fingers: names of the two finger joints; NAME_finger_joint1 and 2 by default.
        prepared: the model, where the file alone does not hold all of it.
    """

    robot: Robot
    mjcf: Path
    fingers: tuple[str, str] | None = None
    prepared: mujoco.MjSpec | None = None

    def spec(self) -> mujoco.MjSpec:
        """A fresh copy of the model, to compile alone or to attach to a scene."""
        if self.prepared is not None:
            return self.prepared.copy()
        try:
            return mujoco.MjSpec.from_file(str(self.mjcf))
        except ValueError as error:
            raise ModelError(f"{self.mjcf}: {error}") from error

    @property
    def finger_joints(self) -> tuple[str, str]:
        """Names of the two sliding joints whose sum is the gripper's opening."""
        return self.fingers or (f"{self.robot.name}_finger_joint1", f"{self.robot.name}_finger_joint2")


def names() -> list[str]:
    """Robots that can be simulated: the MJCF files in this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.xml"))


def mjcf_path(name: str) -> Path:
    """Path of a robot's MJCF; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("simulated robot", name, [*names(), "a path to an .xml (MJCF) or .urdf file"])
    return Path(__file__).with_name(f"{name}.xml")


def load(name: str | Path) -> SimulatedRobot:
    """The robot of this name, or an arm of the user's own by the path of its model.

    Args:
        name: one of ``names``, or a path that ends in .xml (MJCF) or .urdf, or holds a slash; see
            ``foreign.load_file`` for what such a file must hold.
    Raises:
        UnknownNameError: neither; lists the known names.
        ModelError: the file is missing, broken, or lacks what an arm needs.
    """
    text = str(name)
    if Path(text).suffix.lower() in (".xml", ".urdf") or "/" in text:
        from robopolicy_sim.robots.foreign import load_file

        return load_file(Path(text))
    mjcf = mjcf_path(text)
    return SimulatedRobot(robots.load(text), mjcf)
