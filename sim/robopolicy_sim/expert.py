"""What a scripted expert is, and the part all of them share: a tool motion, inverse kinematics, a gripper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float, transform_from_pose_9d
from robopolicy.core.policy import keyed_rng
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.kinematics import InverseKinematics
from robopolicy_sim.motion import MotionLimits, ToolMotion
from robopolicy_sim.noisy import Mistakes, Stumbling

_LOST = 0.05  # [m] between planned and measured tool: the plan starts again from where the tool is
_NOISE_STREAM, _CHOICE_STREAM = 1, 2  # keep the expert's noise and choices apart from other uses of a seed
_FASTEST = 0.8  # of the joints' velocity limits, for the step back to a tool that was held up
_SETTLE = 0.8  # of the initial redundant motion (elbow swing), what is left after each period


class Expert(ABC):
    """Solves a task from its full state, one action per policy period, through the environment's public API.

    Subclasses say where to go; every decision reads only the newest observation, so the demonstrations are
    (nearly) a function of what a policy with two observations can see.

    Args:
        noise: standard deviation of ``perturb`` per joint [rad]; keyed by the seed given to ``reset``.
        limits: of the tool's motion.
        mistakes: those that a noisy expert makes; None, and level 0, make none.
    Raises:
        ConfigError: negative noise.
    """

    def __init__(
        self,
        *,
        noise: float = 0.0,
        limits: MotionLimits | None = None,
        mistakes: Mistakes | None = None,
    ) -> None:
        if noise < 0:
            raise ConfigError(f"noise must be >= 0, got {noise}")
        self._noise = noise
        self._limits = limits
        self._mistakes = mistakes if mistakes and mistakes.level > 0 else None
        self._stumbling: Stumbling | None = None

    @classmethod
    def noisy(cls, *, level: float, noise: float = 0.0) -> Self:
        """This expert, making mistakes of that mean severity [-], 0..1; see ``noisy.Mistakes``."""
        return cls(noise=noise, mistakes=Mistakes(level=level))

    @abstractmethod
    def decide(self, observation: Observation) -> tuple[Float, float]:
        """(4, 4) tool pose to head for in the base frame, and the gripper opening to head for [m]."""

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        """Attach to an environment that has just been reset, so that the seed alone decides the episode."""
        self._env = env
        self._rng = keyed_rng(seed, _NOISE_STREAM)
        self.choices = keyed_rng(seed, _CHOICE_STREAM)  # for what an expert may do one way or another
        self._period = 1.0 / env.specs.policy_rate
        self._step = _FASTEST * env.robot.limits.velocity[:-1] * self._period
        self._kinematics = InverseKinematics(env.arm)
        self._motion = ToolMotion(self._period, self._limits)
        self._motion.reset(transform_from_pose_9d(env.observation("state")["ee_pose"].astype(np.float64)))
        self._joints = env.simulation.last_command[:-1]
        self._slack = self._joints - self._kinematics.solve(self._motion.pose(), self._joints)
        self._opening = float(env.simulation.last_command[-1])
        if self._mistakes:
            self._stumbling = Stumbling(
                self._mistakes.draw(seed, env.episode_seconds),
                wander_seconds=self._mistakes.wander_seconds,
                period=self._period,
                opening_max=env.robot.gripper.opening_max,
                seed=seed,
            )

    def act(self) -> Float:
        """(action_dim,) the next action in the environment's action space; call once per step."""
        observation = self._env.observation("state")
        measured = transform_from_pose_9d(observation["ee_pose"].astype(np.float64))
        if np.linalg.norm(measured[:3, 3] - self._motion.pose()[:3, 3]) > _LOST:
            self._motion.reset(measured)
        if self._stumbling:
            target, opening = self.decide(self._stumbling.believe(observation))
            target, opening = self._stumbling.disturb(target, opening, measured)
        else:
            target, opening = self.decide(observation)
        joints = self._kinematics.solve(self._motion.advance(target), self._joints)
        self._joints = np.clip(joints, self._joints - self._step, self._joints + self._step)
        self._slack = self._slack * _SETTLE
        step = self._env.robot.gripper.velocity * self._period
        self._opening += float(np.clip(opening - self._opening, -step, step))
        return self._env.action_from_command(np.append(self._joints + self._slack, self._opening))

    def facts(self) -> dict[str, Any]:
        """What is to be known about this episode's demonstrator: JSON-able, to be stored with the episode."""
        mistakes = self._stumbling.drawn.facts() if self._stumbling else None
        return {"expert": "noisy" if self._mistakes else "scripted", "mistakes": mistakes}

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
