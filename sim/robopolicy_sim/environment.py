"""Gymnasium environment of one robot and one task; tasks subclass it and add only what is theirs."""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.geometry import Float
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy_sim import robots
from robopolicy_sim.control import ActionConverter, action_bounds
from robopolicy_sim.errors import UnstablePhysicsError
from robopolicy_sim.observing import OBSERVATION_MODES, Observer, space_from_specs
from robopolicy_sim.plant import SimulatedPlant
from robopolicy_sim.randomisation import Conditions, Latency, Randomisation, Randomiser, with_textures
from robopolicy_sim.rendering import QUALITIES, Renderer
from robopolicy_sim.scene import compose
from robopolicy_sim.simulation import CONTROL_RATE, PhysicsState, Simulation

Observation = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Snapshot:
    """A moment of an episode, to come back to. The reset's random generator is not part of it."""

    physics: PhysicsState
    tick: int
    held_ticks: int
    succeeded: bool
    drawn: Any = None


class TaskEnv(gym.Env[Observation, NDArray[Any]]):
    """A task with a robot arm: 500 Hz physics, 100 Hz control, 10 Hz policy.

    ``step`` moves the command linearly from the previous one to the action over one policy period, so the
    action is reached at its end. ``terminated`` means success, ``truncated`` the time limit or unstable
    physics. Success is ``condition`` without a break for ``hold_seconds``.

    Args:
        robot: a name from ``robots``, or the path of a user's own MJCF or URDF.
        observation_mode: "state", "image" (cameras and proprioception, no object poses) or "all".
        action_space: "joint_position", "joint_delta", "ee_pose" or "ee_delta"; see ``control``.
        policy_rate: steps per second [Hz]; must divide the control rate of 100 Hz.
        render_mode: None or "rgb_array".
        image_size: (height, width) of camera observations in pixels.
        render_size: (height, width) of ``render``'s pictures in pixels.
        render_quality: of camera observations: "fast" without multisampling, shadows and reflections, or
            "full".
        randomisation: what differs from episode to episode: a preset's name, a YAML file, or a mapping;
            see ``randomisation.Randomisation``. It never changes the initial state that a seed stands for.
        latency: delays of observations and commands [s]; see ``randomisation.Latency``.
    Raises:
        ConfigError, UnknownNameError: an argument is none of these; the message lists them.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    mjcf: ClassVar[Path]
    instruction: str
    episode_seconds: ClassVar[float] = 10.0
    hold_seconds: ClassVar[float] = 0.0
    start_perturbation: ClassVar[float] = 0.1  # [rad] half width, every joint, uniform about home
    cameras: ClassVar[tuple[str, ...]] = ("scene_camera", "wrist_camera")
    video_camera: ClassVar[str] = "video_camera"

    def __init__(
        self,
        *,
        robot: str | Path = "fr3",
        observation_mode: str = "state",
        action_space: str = "joint_position",
        policy_rate: float = 10.0,
        render_mode: str | None = None,
        image_size: tuple[int, int] = (96, 96),
        render_size: tuple[int, int] = (480, 640),
        render_quality: str = "fast",
        randomisation: Randomisation | Mapping[str, Any] | str | Path | None = None,
        latency: Latency | Mapping[str, Any] | None = None,
    ) -> None:
        if render_quality not in QUALITIES:
            raise ConfigError(f"render_quality {render_quality!r} is not one of {QUALITIES}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"render_mode {render_mode!r} is not None or one of {self.metadata['render_modes']}"
            )
        self.arm = arm = robots.load(robot)
        self.robot = arm.robot
        self.ticks_per_step = _ticks_per_step(policy_rate)
        self._converter = ActionConverter(arm, action_space, policy_rate)
        self._ramp = np.arange(1, self.ticks_per_step + 1)[:, np.newaxis] / self.ticks_per_step
        self._hold_ticks = round(self.hold_seconds * CONTROL_RATE)
        varied = Randomisation.load(randomisation).with_latency(Latency.load(latency))
        drawn_on = with_textures(arm) if varied.paints else arm
        self.simulation = Simulation(compose(self.mjcf, drawn_on), arm)
        self._observer = Observer(
            self.simulation, self.task_specs(), self.cameras, image_size, fast=render_quality == "fast"
        )
        self._randomiser = Randomiser(
            self.simulation,
            varied,
            episode_ticks=round(self.episode_seconds * CONTROL_RATE),
            ticks_per_step=self.ticks_per_step,
        )
        self.specs = Specs(
            dict(self._observer.specs(observation_mode)),
            self._converter.spec,
            float(policy_rate),
            self.robot.name,
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
        self._sensors = self._randomiser.sensors
        self._resets = 0  # since the last seed
        self._render_ns = 0
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
        """Start an episode; ``seed`` alone decides its initial state.

        Args:
            options: {"conditions": {name: value}} fixes conditions that would be drawn otherwise; all of
                an earlier episode's, with its seed, repeat that episode.
        Raises:
            ConfigError, UnknownNameError: another option, or a condition that cannot be.
        """
        super().reset(seed=seed)
        given = dict(options or {})
        fixed = given.pop("conditions", {})
        if given:
            raise ConfigError(f"reset knows no options but 'conditions', got {sorted(given)}")
        self._resets = 0 if seed is not None else self._resets + 1
        key = (self.np_random_seed, self._resets)
        self._randomiser.begin(key, self._randomiser.draw(key, fixed))
        self._sensors = self._randomiser.sensors
        home, width = np.asarray(self.robot.home), self.start_perturbation
        start = home + self.np_random.uniform(-width, width, size=home.shape)
        self.simulation.reset(np.append(start, self.robot.gripper.opening_max))
        self.place(self.np_random)
        self._randomiser.placed()
        self._tick, self._held_ticks, self._succeeded = 0, 0, False
        return self.sensed(), {**self._info(), "conditions": dict(self.conditions)}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action of ``specs.action`` for one policy period.

        Raises:
            ShapeError, NonFiniteValueError: the action breaks the spec; nothing has moved.
        """
        self._check_started()
        target = self.command_from_action(action)
        start, unstable = self.simulation.last_command, False
        try:
            self.simulation.advance(
                self.simulation.within_limits(start + (target - start) * self._ramp), self._ticked
            )
        except UnstablePhysicsError:
            unstable = True
        truncated = unstable or self.elapsed >= self.episode_seconds
        return self.sensed(), self.reward(), self._succeeded, truncated, self._info(unstable)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """(height, width, 3) uint8 picture with shadows, or None without a render_mode."""
        if self.render_mode is None:
            return None
        self._check_started()
        if self._video is None:
            self._video = Renderer(self.simulation.model, self._render_size, fast=False)
        self.simulation.update_kinematics()
        started = time.perf_counter_ns()
        picture = self._video.render(self.simulation.data, self.video_camera, self._randomiser.textures)
        self._render_ns += time.perf_counter_ns() - started
        return picture

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
        self.simulation.advance((self.simulation.checked(position),), self._ticked)

    def _ticked(self) -> None:
        """A control tick has passed."""
        self._tick += 1
        if self._sensors is not None:
            self._sensors.record()
        if self.condition():
            self._held_ticks += 1
            if self._held_ticks >= self._hold_ticks:
                self._succeeded = True
        else:
            self._held_ticks = 0

    def command_from_action(self, action: NDArray[Any]) -> Float:
        """(num_joints + 1,) targets [rad, m] that ``step`` would reach from here with this action."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_space.shape:
            raise ShapeError(f"an action has shape {self.action_space.shape}, got {action.shape}")
        if not np.isfinite(action).all():
            raise NonFiniteValueError(f"action has non-finite values: {action}")
        return self._converter.command_from_action(action, self.simulation.last_command)

    def action_from_command(self, command: NDArray[Any]) -> Float:
        """The action that makes ``step`` reach (num_joints + 1,) targets [rad, m] from here."""
        return self._converter.action_from_command(command, self.simulation.last_command)

    def observation(self, mode: str = "") -> Observation:
        """The true state of this instant, in the environment's mode or another of ``OBSERVATION_MODES``."""
        self._check_started()
        self.simulation.update_kinematics()
        return self._observer.observe(
            mode or self.observation_mode, self.task_observation(), self._randomiser.textures
        )

    def sensed(self) -> Observation:
        """What the sensors deliver now, and ``reset`` and ``step`` return: older and noisy where asked."""
        self._check_started()
        if self._sensors is None:
            return self.observation()
        return self._sensors.sense(self._tick, self.specs.observation, self.observation)

    def plant(self, clock: Callable[[], int] | None = None) -> SimulatedPlant:
        """This environment as what the runtime drives at control rate; see ``SimulatedPlant``."""
        return SimulatedPlant(self, clock)

    @property
    def observation_age(self) -> float:
        """Seconds that have passed since the instant which ``sensed`` shows now."""
        return 0.0 if self._sensors is None else self._sensors.age(self._tick) / CONTROL_RATE

    @property
    def success_predicate(self) -> str:
        """What counts as success, in words: the first sentence of the task's file."""
        text = (sys.modules[type(self).__module__].__doc__ or "").strip().split("\n\n")[0]
        return " ".join(text.split())

    @property
    def elapsed(self) -> float:
        """Seconds of this episode, counted in control ticks."""
        return self._tick / CONTROL_RATE

    @property
    def is_success(self) -> bool:
        """Whether the goal has been reached in this episode."""
        return self._succeeded

    @property
    def conditions(self) -> Conditions:
        """What was drawn for this episode, or fixed by its reset: name -> value."""
        return self._randomiser.conditions

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent so far in physics and in drawing pictures, by the monotonic clock."""
        rendering = self._render_ns + self._observer.render_ns
        return {"physics": self.simulation.physics_ns * 1e-9, "render": rendering * 1e-9}

    def snapshot(self) -> Snapshot:
        """This moment, for ``restore``."""
        self._check_started()
        return Snapshot(
            self.simulation.snapshot(),
            self._tick,
            self._held_ticks,
            self._succeeded,
            self._randomiser.state(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a moment; the same actions then give bit-equal trajectories."""
        self._randomiser.restore(snapshot.drawn)
        self._sensors = self._randomiser.sensors
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
