"""robosuite: one or two arms at a table. Ids: "robosuite/Lift"; its tasks have no versions.

Observations bear the names of robomimic's datasets, so that a policy trained on one of those fits.

Source: Zhu et al. 2020, robosuite; Mandlekar et al. 2021, robomimic.
"""

from __future__ import annotations

import contextlib
import logging
import re
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
from robopolicy.evaluation.adapters._libraries import drawing, is_unstable, require

RATE = 20.0  # [Hz] the package's default
CAMERAS = ("agentview", "robot0_eye_in_hand", "robot1_eye_in_hand", "frontview", "birdview", "sideview")
OBJECT = "object"  # the package's "object-state"
INSTRUCTIONS = {
    "Lift": "lift the cube",
    "Stack": "stack the red cube on the green one",
    "NutAssemblySquare": "put the square nut on its peg",
    "PickPlaceCan": "put the can into its bin",
    "Door": "open the door",
    "Wipe": "wipe the table",
    "ToolHang": "assemble the frame and hang the tool on it",
    "TwoArmTransport": "hand the hammer over and put it into the target bin",
}
_OSC_POSE = ("dx", "dy", "dz", "drx", "dry", "drz")
#: Endings of observation names: unit of each element, and names where they are fixed.
_KNOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "_eef_pos": ("m", ("x", "y", "z")),
    "_eef_quat": ("1", ("qx", "qy", "qz", "qw")),
    "_eef_quat_site": ("1", ("qx", "qy", "qz", "qw")),
    "_joint_pos": ("rad", ()),
    "_joint_pos_cos": ("1", ()),
    "_joint_pos_sin": ("1", ()),
    "_joint_vel": ("rad/s", ()),
    "_joint_acc": ("rad/s^2", ()),
    "_gripper_qpos": ("m", ()),
    "_gripper_qvel": ("m/s", ()),
}


def make(name: str, **options: Any) -> RobosuiteEnv:
    """The environment of an id; UnknownNameError lists the tasks."""
    task = name.partition("/")[2]
    known = _package(name).ALL_ENVIRONMENTS
    if task not in known:
        raise UnknownNameError("robosuite task", task, known)
    return build(RobosuiteEnv, options, task=task)


def options_for(specs: PolicySpecs) -> dict[str, Any]:
    """Options that give what a policy observes."""
    return camera_options(specs, CAMERAS, lambda key: key.removesuffix("_image"))


class RobosuiteEnv(AdaptedEnv):
    """One task with the package's default robot controller; success is its ``_check_success``.

    Args:
        task: "Lift".
        observation_mode: "state" (the robot, and ``object``), "image" (the robot and cameras) or "all".
        cameras: of ``CAMERAS``, for the modes with pictures; their observations are called CAMERA_image.
        image_size: (height, width) in pixels.
        robot: of every arm; TwoArm tasks get two.
        max_steps: 400 is robomimic's limit for most tasks.
    """

    def __init__(
        self,
        task: str,
        *,
        observation_mode: str = "state",
        action_space: str = "normalised",
        policy_rate: float = RATE,
        render_mode: str | None = None,
        cameras: Sequence[str] = ("agentview", "robot0_eye_in_hand"),
        image_size: Sequence[int] = (84, 84),
        render_size: Sequence[int] = (480, 480),
        robot: str = "Panda",
        max_steps: int = 400,
    ) -> None:
        check_options("robosuite", ("normalised", RATE), (action_space, policy_rate), observation_mode)
        if strangers := sorted(set(cameras) - set(CAMERAS)):
            raise UnknownNameError("camera", ", ".join(strangers), CAMERAS)
        package = _package(f"robosuite/{task}")
        if robot not in package.ALL_ROBOTS:
            raise UnknownNameError("robosuite robot", robot, package.ALL_ROBOTS)
        self._cameras = tuple(cameras) if observation_mode != "state" else ()
        self._objects = observation_mode != "image"
        self._render_size = render_size
        draws = bool(self._cameras) or render_mode is not None
        with drawing() if draws else contextlib.nullcontext():
            self._env = package.make(
                task,
                robots=[robot] * (2 if task.startswith("TwoArm") else 1),
                has_renderer=False,
                renderer="mujoco",  # frees the old simulation at a reset
                has_offscreen_renderer=draws,
                use_camera_obs=bool(self._cameras),
                camera_names=list(self._cameras) or "agentview",
                camera_heights=image_size[0],
                camera_widths=image_size[1],
                use_object_obs=True,
                reward_shaping=True,
                control_freq=RATE,
                ignore_done=True,
                hard_reset=True,  # sizes of some objects are drawn with the model
                seed=0,
            )
            self._last: dict[str, NDArray[Any]] = self._env._get_observations(force_update=True)
        specs = {key: _array_spec(key, value) for key, value in self.observe().items()}
        lower, upper = self._env.action_spec
        super().__init__(
            Specs(specs, ActionSpec((ActionPart("normalised", self._action_names()),)), RATE),
            instruction=INSTRUCTIONS.get(task, _words(task)),
            success_predicate="robosuite's own _check_success() after any step; the episode ends there",
            max_steps=max_steps,
            bounds=np.stack([lower, upper]),
            render_mode=render_mode,
        )
        if self._cameras:
            self.timings = {}  # the package draws within its step, so the shares are not known

    def begin(self, seed: int) -> None:
        # In place, since objects' samplers keep the generator that they were made with.
        self._env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self._last = self._env.reset()

    def advance(self, action: NDArray[Any]) -> Outcome:
        self._last, reward, _, _ = self._env.step(action)
        unstable = is_unstable(self._env.sim.data._data)
        return Outcome(float(reward), bool(self._env._check_success()), unstable)

    def observe(self) -> Observation:
        robots = [key for key in self._last if re.fullmatch(r"robot\d+_\w+(?<!_image)", key)]
        # A wiper has no fingers, and its contact is a bare flag.
        values = {key: np.atleast_1d(self._last[key]) for key in robots if np.size(self._last[key])}
        if self._objects and "object-state" in self._last:
            values[OBJECT] = self._last["object-state"]
        pictures = [f"{camera}_image" for camera in self._cameras]
        return values | {key: self._last[key][::-1] for key in pictures}  # its first row is the lowest

    def picture(self) -> NDArray[np.uint8]:
        height, width = self._render_size
        with drawing():
            pixels = self._env.sim.render(camera_name="frontview", height=height, width=width)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        """Free the simulation and its renderers; calling twice is allowed."""
        self._env.close()

    def _action_names(self) -> tuple[str, ...]:
        names = []
        robots = self._env.robots
        for i, robot in enumerate(robots):
            prefix = f"robot{i}_" if len(robots) > 1 else ""
            for part, (first, last) in robot._action_split_indexes.items():
                names += [prefix + name for name in _part_names(part, last - first)]
        return tuple(names)


def _part_names(part: str, width: int) -> tuple[str, ...]:
    """As ``datasets/importers/robomimic`` calls them, where the controller is the usual one."""
    if part == "right_gripper" and width == 1:
        return ("gripper",)
    if part == "right" and width == len(_OSC_POSE):
        return _OSC_POSE
    return tuple(f"{part}_{i}" for i in range(width))


def _array_spec(key: str, value: NDArray[Any]) -> ArraySpec:
    if key.endswith("_image"):
        return ArraySpec(value.shape, "uint8", kind="image")
    unit, names = next((_KNOWN[end] for end in _KNOWN if key.endswith(end)), ("", ()))
    (width,) = value.shape
    return ArraySpec((width,), units=(unit,) * width if unit else (), names=names)


def _words(task: str) -> str:
    """ "TwoArmPegInHole" becomes "two arm peg in hole"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", task).lower()


def _package(name: str) -> Any:
    """The package, with only its errors printed: it logs every reset."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        package = require("robosuite", name)
    finally:
        logging.disable(disabled)
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    return package
