"""What a simulated robot and its cameras observe, as specs, values and Gymnasium spaces."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import UnknownNameError
from robopolicy.core.specs import ArraySpec
from robopolicy_sim.control import POSE_NAMES
from robopolicy_sim.rendering import Painted, Renderer
from robopolicy_sim.simulation import Simulation

OBSERVATION_MODES = ("state", "image", "all")
#: A pose observation: position [m] in the robot's base frame, then a 6-D rotation.
POSE_SPEC = ArraySpec((9,), units=("m",) * 3 + ("1",) * 6, names=POSE_NAMES)
#: Bounds of state observations for Gymnasium's spaces, wider than anything that occurs.
_BOUND = {"rad": 10.0, "m": 10.0, "1": 2.0}


class Observer:
    """Reads a simulation; renders its cameras only in the modes that hold pictures."""

    def __init__(
        self,
        simulation: Simulation,
        task_specs: Mapping[str, ArraySpec],
        cameras: tuple[str, ...],
        image_size: tuple[int, int],
        *,
        fast: bool = True,
    ) -> None:
        robot = simulation.robot
        size = len(robot.joints)
        self._simulation = simulation
        robot_specs = {
            "joint_position": ArraySpec((size,), units=("rad",) * size, names=robot.joint_names),
            "gripper_opening": ArraySpec((1,), units=("m",), names=(robot.gripper.name,)),
            "ee_pose": POSE_SPEC,
        }
        pictures = {name: ArraySpec((*image_size, 3), dtype="uint8", kind="image") for name in cameras}
        self._specs: dict[str, Mapping[str, ArraySpec]] = {
            "state": {**robot_specs, **task_specs},
            "image": {**robot_specs, **pictures},
            "all": {**robot_specs, **task_specs, **pictures},
        }
        self._image_size = image_size
        self._fast = fast
        self._renderer: Renderer | None = None
        self.render_ns = 0  # spent in drawing since the start, by the monotonic clock

    def specs(self, mode: str) -> Mapping[str, ArraySpec]:
        """Specs of one observation mode; UnknownNameError lists the modes."""
        if mode not in OBSERVATION_MODES:
            raise UnknownNameError("observation mode", mode, OBSERVATION_MODES)
        return self._specs[mode]

    def observe(
        self, mode: str, task: Mapping[str, NDArray[Any]], painted: Painted | None = None
    ) -> dict[str, NDArray[Any]]:
        """Every array of ``specs(mode)``; the task's own values come in. Needs up-to-date kinematics.

        Args:
            painted: textures that change between episodes, for the renderer.
        """
        measured = self._simulation.measured()
        state = {
            "joint_position": measured[:-1],
            "gripper_opening": measured[-1:],
            "ee_pose": self._simulation.tool_pose_9d(),
            **task,
        }
        return {
            name: self._picture(name, painted) if spec.kind == "image" else state[name].astype(spec.dtype)
            for name, spec in self.specs(mode).items()
        }

    def _picture(self, camera: str, painted: Painted | None) -> NDArray[np.uint8]:
        started = time.perf_counter_ns()
        if self._renderer is None:
            self._renderer = Renderer(self._simulation.model, self._image_size, fast=self._fast)
        picture = self._renderer.render(self._simulation.data, camera, painted)
        self.render_ns += time.perf_counter_ns() - started
        return picture

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def space_from_specs(specs: Mapping[str, ArraySpec]) -> gym.spaces.Dict:
    """Gymnasium space of an observation."""
    spaces: dict[str, gym.Space[Any]] = {}
    for name, spec in specs.items():
        if spec.kind == "image":
            spaces[name] = gym.spaces.Box(0, 255, spec.shape, np.uint8)
        else:
            bound = np.array([_BOUND[unit] for unit in spec.units], dtype=spec.dtype)
            spaces[name] = gym.spaces.Box(-bound, bound, dtype=np.dtype(spec.dtype).type)
    return gym.spaces.Dict(spaces)
