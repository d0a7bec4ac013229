"""A scene to simulate: the objects of one task and one robot, compiled into a MuJoCo model."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import mujoco

from robopolicy_sim.errors import ModelError
from robopolicy_sim.robots import SimulatedRobot

_UNPREFIXED = "empty prefix"  # concerns saving a composed model as XML, which nothing here does


def _on_warning(message: str) -> None:
    if _UNPREFIXED not in message:
        logging.getLogger(__name__).warning(message)


# MuJoCo's own handler writes MUJOCO_LOG.TXT into whatever folder the process was started from.
mujoco.set_mju_user_warning(_on_warning)


def load_spec(path: Path) -> mujoco.MjSpec:
    """An MJCF or URDF file as a spec that can still be changed.

    Raises:
        ModelError: no such file, or MuJoCo cannot read it; names the file and MuJoCo's reason.
    """
    if not path.is_file():
        raise ModelError(f"no model file {path}")
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def compose(task: Path, robot: SimulatedRobot) -> mujoco.MjModel:
    """Put a robot into a task's scene; its base frame is the world's.

    Args:
        task: MJCF of the objects, with the physics options of the whole.
        robot: what to put in. Names are kept, so a name may occur in one of the two only.
    Raises:
        ModelError: one of the two is missing or broken, or they share a name.
    """
    scene, arm = load_spec(task), robot.spec()
    arm.option, arm.visual, arm.stat = scene.option, scene.visual, scene.stat  # the scene's hold for both
    try:
        scene.attach(arm, prefix="", frame=scene.worldbody.add_frame())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", f".*{_UNPREFIXED}.*")
            return scene.compile()
    except ValueError as error:
        raise ModelError(f"{task} with {robot.mjcf}: {error}") from error
