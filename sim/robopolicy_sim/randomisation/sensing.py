"""What sensors deliver: an older observation, with noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from robopolicy.core.geometry import (
    Float,
    matrix_from_rotation_6d,
    pose_9d_from_transform,
    rotation_6d_from_matrix,
)
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import ArraySpec
from robopolicy_sim.observing import POSE_SPEC
from robopolicy_sim.randomisation.delays import Delay
from robopolicy_sim.simulation import Simulation

Observation = dict[str, NDArray[Any]]
_ROBOT = {"joint_position": "joint", "gripper_opening": "gripper"}  # what of the robot's own gets which noise


class ImperfectSensors:
    """Looks at the simulation as it was some time ago.

    The states of the last ticks are kept and the observation is made from one of them when it is asked for,
    pictures too. Between two ticks joints and free bodies are interpolated.

    Args:
        delay: of the observations.
        noise: standard deviations: "joint" [rad], "gripper" [m], "position" [m] and "rotation" [rad] of
            what is seen beside the robot, "image" [grey levels]. The tool's pose follows from the joints.
        key: of the noise, together with the tick.
    """

    def __init__(
        self, simulation: Simulation, delay: Delay, noise: Mapping[str, float], key: tuple[int, ...]
    ) -> None:
        self._simulation, self._delay, self._key = simulation, delay, key
        self._noise = {name: std for name, std in noise.items() if std > 0}
        self.states: tuple[Float, ...] = ()  # newest last

    def reset(self) -> None:
        """The episode's first state is complete."""
        self.states = ()
        self.record()

    def record(self) -> None:
        """A control tick has passed."""
        if self._delay.any:
            self.states = (*self.states, self._simulation.snapshot().physics)[-self._delay.window - 1 :]

    def age(self, tick: int) -> float:
        """Of what arrives at a tick [ticks]; never from before the reset."""
        return min(sum(self._delay.at(tick)), float(tick))

    def sense(
        self, tick: int, specs: Mapping[str, ArraySpec], observe: Callable[[], Observation]
    ) -> Observation:
        """What ``observe`` gives of the moment whose observation arrives at this tick, with noise."""
        if not self._delay.any:
            return self._noisy(tick, specs, observe())
        simulation = self._simulation
        present = simulation.snapshot().physics
        self._show(*self._delay.at(tick))
        observation = observe()
        simulation.set_physics(present)
        simulation.update_kinematics()
        return self._noisy(tick, specs, observation)

    def _show(self, whole: int, fraction: float) -> None:
        model, data = self._simulation.model, self._simulation.data
        last = len(self.states) - 1
        newer, older = self.states[max(last - whole, 0)], self.states[max(last - whole - 1, 0)]
        self._simulation.set_physics(newer)
        if fraction and newer is not older:
            position, velocity, between = data.qpos.copy(), np.empty(model.nv), newer[0] - older[0]
            self._simulation.set_physics(older)
            mujoco.mj_differentiatePos(model, velocity, between, data.qpos, position)
            mujoco.mj_integratePos(model, data.qpos, velocity, between * (1 - fraction))
            data.time += between * (1 - fraction)

    def _noisy(self, tick: int, specs: Mapping[str, ArraySpec], observation: Observation) -> Observation:
        noise = self._noise
        if not noise:
            return observation
        rng, noisy = keyed_rng(*self._key, tick), dict(observation)
        for name, value in observation.items():
            if value.dtype == np.uint8:
                grain = rng.normal(0.0, noise.get("image", 0.0), value.shape)
                noisy[name] = np.clip(np.rint(value + grain), 0, 255).astype(np.uint8)
            elif name in _ROBOT:
                std = noise.get(_ROBOT[name], 0.0)
                noisy[name] = value + rng.normal(0.0, std, value.shape).astype(value.dtype)
            elif name != "ee_pose":
                noisy[name] = self._perceived(value, specs[name], rng)
        if "joint" in noise and "ee_pose" in noisy:
            joints = noisy["joint_position"].astype(np.float64)
            pose = pose_9d_from_transform(self._simulation.robot.transform_tcp_to_base(joints))
            noisy["ee_pose"] = pose.astype(observation["ee_pose"].dtype)
        return noisy

    def _perceived(self, value: NDArray[Any], spec: ArraySpec, rng: np.random.Generator) -> NDArray[Any]:
        """Positions with noise on all that is in metres, poses turned a little as well."""
        blurred = value.astype(np.float64)
        lengths = [unit == "m" for unit in spec.units]
        blurred[..., lengths] += rng.normal(
            0.0, self._noise.get("position", 0.0), blurred[..., lengths].shape
        )
        if spec.units == POSE_SPEC.units and "rotation" in self._noise:
            turn = Rotation.from_rotvec(rng.normal(0.0, self._noise["rotation"], 3)).as_matrix()
            rotation = turn @ matrix_from_rotation_6d(blurred[3:])
            blurred[3:] = rotation_6d_from_matrix(rotation)
        return blurred.astype(value.dtype)
