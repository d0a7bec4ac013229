"""What a scripted expert is, and the part all of them share: a tool motion, inverse kinematics, a gripper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float, transform_from_pose_9d
from robopolicy.core.policy import keyed_rng
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.kinematics import InverseKinematics
from robopolicy_sim.motion import MotionLimits, ToolMotion

_LOST = 0.05  # [m] between planned and measured tool: the plan starts again from where the tool is
_NOISE_STREAM = 1  # keeps the expert's noise apart from other uses of the same seed
_SETTLE = 0.8  # of the initial redundant motion (elbow swing), what is left after each period


class Expert(ABC):
    """Solves a task from its full state, one action per policy period, through the environment's public API.

    Subclasses say where to go; every decision reads only the newest observation, so the demonstrations are
    (nearly) a function of what a policy with two observations can see.

    Args:
        noise: standard deviation of ``perturb`` per joint [rad]; keyed by the seed given to ``reset``.
        limits: of the tool's motion.
    Raises:
        ConfigError: negative noise.
    """

    def __init__(
        self,
        *,
        noise: float = 0.0,
        limits: MotionLimits | None = None,
    ) -> None:
        if noise < 0:
            raise ConfigError(f"noise must be >= 0, got {noise}")
        self._noise = noise
        self._limits = limits

    @abstractmethod
    def decide(self, observation: Observation) -> tuple[Float, float]:
        """(4, 4) tool pose to head for in the base frame, and the gripper opening to head for [m]."""

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        """Attach to an environment that has just been reset, so that the seed alone decides the episode."""
        self._env = env
        self._rng = keyed_rng(seed, _NOISE_STREAM)
        self._period = 1.0 / env.specs.policy_rate
        self._kinematics = InverseKinematics(env.robot)
        self._motion = ToolMotion(self._period, self._limits)
        self._motion.reset(transform_from_pose_9d(env.observation("state")["ee_pose"].astype(np.float64)))
        self._joints = env.simulation.last_command[:-1]
        self._slack = self._joints - self._kinematics.solve(self._motion.pose(), self._joints)
        self._opening = float(env.simulation.last_command[-1])

    def act(self) -> Float:
        """(action_dim,) the next action in the environment's action space; call once per step."""
        observation = self._env.observation("state")
        measured = transform_from_pose_9d(observation["ee_pose"].astype(np.float64))
        if np.linalg.norm(measured[:3, 3] - self._motion.pose()[:3, 3]) > _LOST:
            self._motion.reset(measured)
        target, opening = self.decide(observation)
        self._joints = self._kinematics.solve(self._motion.advance(target), self._joints)
        self._slack = self._slack * _SETTLE
        step = self._env.robot.gripper.velocity * self._period
        self._opening += float(np.clip(opening - self._opening, -step, step))
        return self._env.action_from_command(np.append(self._joints + self._slack, self._opening))

    def perturb(self, action: NDArray[Any]) -> Float:
        """The action with Gaussian noise on the joints, to execute while the clean one is recorded.

        Noisy execution widens the states seen, and the clean labels lead back: DART, Laskey et al. 2017.
        Only joint_position actions can be perturbed.
        """
        noisy = np.array(action, dtype=np.float64)
        if self._noise > 0:
            if self._env.specs.action.parts[0].space != "joint_position":
                raise ConfigError("noise is defined for joint_position actions only")
            noisy[:-1] += self._rng.normal(0.0, self._noise, size=noisy.size - 1)
        return noisy
