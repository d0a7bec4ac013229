"""Gymnasium environment of one robot and one task; tasks subclass it and add only what is theirs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from robopolicy import robots
from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.core.geometry import Float
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy_sim.control import ActionConverter, action_bounds
from robopolicy_sim.errors import UnstablePhysicsError
from robopolicy_sim.observing import OBSERVATION_MODES, Observer, space_from_specs
from robopolicy_sim.plant import SimulatedPlant
from robopolicy_sim.rendering import Renderer
from robopolicy_sim.simulation import CONTROL_RATE, PhysicsState, Simulation

Observation = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Snapshot:
    """A moment of an episode, to come back to. The reset's random generator is not part of it."""

    physics: PhysicsState
    tick: int
    held_ticks: int
    succeeded: bool


class TaskEnv(gym.Env[Observation, NDArray[Any]]):
    """A task with a robot arm: 500 Hz physics, 100 Hz control, 10 Hz policy.

    ``step`` moves the command linearly from the previous one to the action over one policy period, so the
    action is reached at its end. ``terminated`` means success, ``truncated`` the time limit or unstable
    physics. Success is ``condition`` without a break for ``hold_seconds``.

    Args:
        observation_mode: "state", "image" (cameras and proprioception, no object poses) or "all".
        action_space: "joint_position", "joint_delta", "ee_pose" or "ee_delta"; see ``control``.
        policy_rate: steps per second [Hz]; must divide the control rate of 100 Hz.
        render_mode: None or "rgb_array".
        image_size: (height, width) of camera observations in pixels.
        render_size: (height, width) of ``render``'s pictures in pixels.
    Raises:
        ConfigError, UnknownNameError: an argument is none of these; the message lists them.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    mjcf: ClassVar[Path]
    robot_name: ClassVar[str] = "fr3"
    instruction: ClassVar[str]
    episode_seconds: ClassVar[float] = 10.0
    hold_seconds: ClassVar[float] = 0.0
    start_perturbation: ClassVar[float] = 0.1  # [rad] half width, every joint, uniform about home
    cameras: ClassVar[tuple[str, ...]] = ("scene_camera", "wrist_camera")
    video_camera: ClassVar[str] = "video_camera"

    def __init__(
        self,
        *,
        observation_mode: str = "state",
        action_space: str = "joint_position",
        policy_rate: float = 10.0,
        render_mode: str | None = None,
        image_size: tuple[int, int] = (96, 96),
        render_size: tuple[int, int] = (480, 640),
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"render_mode {render_mode!r} is not None or one of {self.metadata['render_modes']}"
            )
        self.robot = robots.load(self.robot_name)
        self._converter = ActionConverter(self.robot, action_space)
        self.ticks_per_step = _ticks_per_step(policy_rate)
        self.simulation = Simulation(self.mjcf, self.robot)
        self._observer = Observer(self.simulation, self.task_specs(), self.cameras, image_size)
        self.specs = Specs(
            self._observer.specs(observation_mode), self._converter.spec, float(policy_rate), self.robot_name
        )
        self.observation_mode = observation_mode
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(policy_rate)}
        lower, upper = action_bounds(self.robot, action_space, policy_rate)
        self.action_space = gym.spaces.Box(
            lower.astype(np.float32), upper.astype(np.float32), dtype=np.float32
        )
        self.observation_space = space_from_specs(self.specs.observation)
        self._render_size = render_size
        self._video: Renderer | None = None
        self._tick = -1  # control ticks since the reset; negative before the first
        self._held_ticks = 0
        self._succeeded = False

    # What a task defines.

    @abstractmethod
    def task_specs(self) -> dict[str, ArraySpec]:
        """State observations beyond the robot's own; privileged, so absent from mode "image"."""

    @abstractmethod
    def task_observation(self) -> Observation:
        """Values of ``task_specs``, from up-to-date kinematics."""

    @abstractmethod
    def place(self, rng: np.random.Generator) -> None:
        """Put the objects of a new episode into ``simulation.data``."""

    @abstractmethod
    def condition(self) -> bool:
        """Whether the goal holds at this instant."""

    @abstractmethod
    def reward(self) -> float:
        """Dense reward of this instant, in 0..1."""

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; ``seed`` alone decides its initial state. No options are known."""
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"reset knows no options, got {sorted(options)}")
        home, width = np.asarray(self.robot.home), self.start_perturbation
        start = home + self.np_random.uniform(-width, width, size=home.shape)
        self.simulation.reset(np.append(start, self.robot.gripper.opening_max))
        self.place(self.np_random)
        self._tick, self._held_ticks, self._succeeded = 0, 0, False
        return self.observation(), self._info()

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action of ``specs.action`` for one policy period.

        Raises:
            ShapeError, NonFiniteValueError: the action breaks the spec; nothing has moved.
        """
        self._check_started()
        target = self.command_from_action(action)
        start, unstable = self.simulation.last_command, False
        try:
            for tick in range(1, self.ticks_per_step + 1):
                self.command(start + (target - start) * (tick / self.ticks_per_step))
        except UnstablePhysicsError:
            unstable = True
        truncated = unstable or self.elapsed >= self.episode_seconds
        return self.observation(), self.reward(), self._succeeded, truncated, self._info(unstable)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """(height, width, 3) uint8 picture with shadows, or None without a render_mode."""
        if self.render_mode is None:
            return None
        self._check_started()
        if self._video is None:
            self._video = Renderer(self.simulation.model, self._render_size, fast=False)
        self.simulation.update_kinematics()
        return self._video.render(self.simulation.data, self.video_camera)

    def close(self) -> None:
        """Free the renderers; calling twice is allowed."""
        if self._video is not None:
            self._video.close()
            self._video = None
        self._observer.close()

    # Control rate, and what experts and evaluation read.

    def command(self, position: NDArray[Any]) -> None:
        """Send (num_joints + 1,) joint and gripper targets [rad, m] and simulate one control tick of 10 ms.

        Raises:
            ShapeError, UnstablePhysicsError: see ``Simulation.tick``.
        """
        self._check_started()
        self.simulation.tick(position)
        self._tick += 1
        self._held_ticks = self._held_ticks + 1 if self.condition() else 0
        if self._held_ticks and self._held_ticks >= round(self.hold_seconds * CONTROL_RATE):
            self._succeeded = True

    def command_from_action(self, action: NDArray[Any]) -> Float:
        """(num_joints + 1,) targets [rad, m] that ``step`` would reach from here with this action."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.specs.action.dim,):
            raise ShapeError(f"an action has shape ({self.specs.action.dim},), got {action.shape}")
        self.specs.check_action(action)
        return self._converter.command_from_action(action, self.simulation.last_command)

    def action_from_command(self, command: NDArray[Any]) -> Float:
        """The action that makes ``step`` reach (num_joints + 1,) targets [rad, m] from here."""
        return self._converter.action_from_command(command, self.simulation.last_command)

    def observation(self, mode: str = "") -> Observation:
        """The newest observation, in the environment's mode or another of ``OBSERVATION_MODES``."""
        self._check_started()
        self.simulation.update_kinematics()
        return self._observer.observe(mode or self.observation_mode, self.task_observation())

    def plant(self, clock: Callable[[], int] | None = None) -> SimulatedPlant:
        """This environment as what the runtime drives at control rate; see ``SimulatedPlant``."""
        return SimulatedPlant(self, clock)

    @property
    def elapsed(self) -> float:
        """Seconds of this episode, counted in control ticks."""
        return self._tick / CONTROL_RATE

    @property
    def is_success(self) -> bool:
        """Whether the goal has been reached in this episode."""
        return self._succeeded

    def snapshot(self) -> Snapshot:
        """This moment, for ``restore``."""
        self._check_started()
        return Snapshot(self.simulation.snapshot(), self._tick, self._held_ticks, self._succeeded)

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a moment; the same actions then give bit-equal trajectories."""
        self.simulation.restore(snapshot.physics)
        self._tick, self._held_ticks = snapshot.tick, snapshot.held_ticks
        self._succeeded = snapshot.succeeded

    def _info(self, unstable: bool = False) -> dict[str, Any]:
        return {"is_success": self._succeeded, "unstable": unstable, "time": self.elapsed}

    def _check_started(self) -> None:
        if self._tick < 0:
            raise gym.error.ResetNeeded("call reset() before anything else")


def _ticks_per_step(policy_rate: float) -> int:
    ticks = round(CONTROL_RATE / policy_rate) if policy_rate > 0 else 0
    if ticks < 1 or abs(ticks * policy_rate - CONTROL_RATE) > 1e-6:
        raise ConfigError(f"policy_rate must divide the control rate of {CONTROL_RATE} Hz, got {policy_rate}")
    return ticks


__all__ = ["OBSERVATION_MODES", "Observation", "Snapshot", "TaskEnv"]
