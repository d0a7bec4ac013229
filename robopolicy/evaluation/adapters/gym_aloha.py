"""gym-aloha: two ViperX arms hand over a cube or insert a peg. Ids: "gym_aloha/AlohaInsertion-v0".

Source: Zhao et al. 2023, ALOHA and ACT; the package is Hugging Face's port of its simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import UnknownNameError
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.evaluation.adapters._base import (
    AdaptedEnv,
    Observation,
    Outcome,
    build,
    camera_options,
    check_options,
)
from robopolicy.evaluation.adapters._libraries import drawing, require

RATE = 50.0  # [Hz]
CAMERAS = ("top", "angle", "front_close", "left_wrist", "right_wrist")
#: Id to the package's task, what is asked, and the objects of its ``env_state``.
TASKS = {
    "AlohaTransferCube-v0": (
        "transfer_cube",
        "Pick up the cube with the right arm and transfer it to the left arm.",
        ("cube",),
    ),
    "AlohaInsertion-v0": ("insertion", "Insert the peg into the socket.", ("peg", "socket")),
}
_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
_ARMS = {side: tuple(f"{side}_arm_{joint}" for joint in _JOINTS) for side in ("left", "right")}
_NAMES = (*_ARMS["left"], "left_arm_gripper", *_ARMS["right"], "right_arm_gripper")
_POSE, _POSE_UNITS = ("x", "y", "z", "qw", "qx", "qy", "qz"), ("m", "m", "m", "1", "1", "1", "1")
#: Set-points of the joints [rad] and of the grippers, 0 closed, 1 open.
ACTION = ActionSpec(
    tuple(
        part
        for side, joints in _ARMS.items()
        for part in (ActionPart("joint_position", joints), ActionPart("normalised", (f"{side}_arm_gripper",)))
    ),
    reached="start",
)


def make(name: str, **options: Any) -> AlohaEnv:
    """The environment of an id; UnknownNameError lists the known ones."""
    task = name.partition("/")[2]
    if task not in TASKS:
        raise UnknownNameError("environment", name, [f"gym_aloha/{known}" for known in TASKS])
    return build(AlohaEnv, options, task=task)


def options_for(specs: PolicySpecs) -> dict[str, Any]:
    """Options that give what a policy observes."""
    return camera_options(specs, CAMERAS)


class AlohaEnv(AdaptedEnv):
    """One task; success is the package's ``is_success``: its reward has reached 4.

    Args:
        observation_mode: "state" (``agent_pos``, ``agent_vel``, and ``env_state``, the objects' poses),
            "image" (cameras and ``agent_pos``) or "all". The package alone draws three pictures of 640x480 in
            every step, whatever is observed; here only those asked for are drawn.
        cameras: of ``CAMERAS``, for the modes with pictures.
        image_size: (height, width) in pixels.
    """

    def __init__(
        self,
        task: str,
        *,
        observation_mode: str = "state",
        action_space: str = "joint_position",
        policy_rate: float = RATE,
        render_mode: str | None = None,
        cameras: Sequence[str] = ("top",),
        image_size: Sequence[int] = (480, 640),
        render_size: Sequence[int] = (480, 640),
        max_steps: int = 300,
    ) -> None:
        check_options("gym-aloha", ("joint_position", RATE), (action_space, policy_rate), observation_mode)
        if strangers := sorted(set(cameras) - set(CAMERAS)):
            raise UnknownNameError("camera", ", ".join(strangers), CAMERAS)
        package_task, instruction, objects = TASKS[task]
        self._cameras = tuple(cameras) if observation_mode != "state" else ()
        self._image_size, self._render_size = image_size, render_size
        package = require("gym_aloha.env", f"gym_aloha/{task}")
        self._physics_error = require("dm_control.rl.control", f"gym_aloha/{task}").PhysicsError
        self._env = package.AlohaEnv(package_task)
        self._physics, self._task = self._env._env.physics, self._env._env.task
        self._task.get_observation = lambda physics: {}  # see observe()
        self._env._format_raw_obs = lambda raw: raw
        super().__init__(
            Specs(observation_specs(observation_mode, objects, self._cameras, image_size), ACTION, RATE),
            instruction=instruction,
            success_predicate="gym-aloha's own is_success (reward 4) at any step; the episode ends there",
            max_steps=max_steps,
            bounds=self._bounds(),
            render_mode=render_mode,
        )

    def _bounds(self) -> NDArray[np.float64]:
        ranges = self._physics.model.actuator_ctrlrange
        arms = [np.vstack([ranges[first : first + 6], [0.0, 1.0]]) for first in (0, 8)]
        return np.concatenate(arms).T

    def begin(self, seed: int) -> None:
        self._env.reset(seed=seed)

    def advance(self, action: NDArray[Any]) -> Outcome:
        try:
            _, reward, _, _, info = self._env.step(action)
        except self._physics_error:
            return Outcome(0.0, False, unstable=True)
        return Outcome(float(reward), bool(info["is_success"]))

    def observe(self) -> Observation:
        values = {
            "agent_pos": self._task.get_qpos(self._physics),
            "agent_vel": self._task.get_qvel(self._physics),
            "env_state": self._task.get_env_state(self._physics),
        }
        return values | {camera: self._draw(camera, self._image_size) for camera in self._cameras}

    def picture(self) -> NDArray[np.uint8]:
        return self._draw("top", self._render_size)

    def close(self) -> None:
        """Free the physics and its renderers; calling twice is allowed."""
        self._env._env.close()

    def _draw(self, camera: str, size: Sequence[int]) -> NDArray[np.uint8]:
        height, width = size
        with drawing():
            pixels: NDArray[np.uint8] = self._physics.render(height=height, width=width, camera_id=camera)
        return pixels.copy()


def observation_specs(
    mode: str, objects: tuple[str, ...], cameras: Sequence[str], size: Sequence[int]
) -> dict[str, ArraySpec]:
    joints = tuple(i for i, name in enumerate(_NAMES) if not name.endswith("gripper"))
    position = ["1" if i not in joints else "rad" for i in range(len(_NAMES))]
    specs = {"agent_pos": ArraySpec((len(_NAMES),), units=tuple(position), names=_NAMES)}
    if mode != "image":
        speed = tuple(f"{unit}/s" for unit in position)
        specs["agent_vel"] = ArraySpec((len(_NAMES),), units=speed, names=_NAMES)
        names = tuple(f"{thing}_{n}" for thing in objects for n in _POSE)
        specs["env_state"] = ArraySpec((len(names),), units=_POSE_UNITS * len(objects), names=names)
    pictures = {camera: ArraySpec((*size, 3), "uint8", kind="image") for camera in cameras}
    return specs | pictures
