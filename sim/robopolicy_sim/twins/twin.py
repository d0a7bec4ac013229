"""A task that plays the real robot: hidden effects in its physics, and sensors that are slightly wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float, pose_9d_from_transform, transform_from_pose_9d
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import ENVIRONMENTS, load_entry
from robopolicy_sim import robots
from robopolicy_sim.plant import SimulatedPlant
from robopolicy_sim.simulation import CommandPath
from robopolicy_sim.twins.effects import HiddenEffects

if TYPE_CHECKING:
    from robopolicy_sim.environment import Observation, TaskEnv

ROBOT = "fr3"  # the effects name its joints
_IN_TOOL = "_in_tool"


def make_twin(task: str, effects: HiddenEffects | None = None, **options: Any) -> TaskEnv:
    """A registered task under hidden effects; ``options`` are the task's.

    Raises:
        UnknownNameError: no such task; ConfigError: randomisation or another robot, which twins have not.
    """
    if "randomisation" in options or options.get("robot", ROBOT) != ROBOT:
        raise ConfigError(f"a twin is one {ROBOT} with its own effects, got {sorted(options)}")
    effects = effects or HiddenEffects()
    env: TaskEnv = twin_of(load_entry(ENVIRONMENTS, "environment", task))(effects, **options)
    return env


def twin_of(task: type[TaskEnv]) -> Callable[..., TaskEnv]:
    """The twin of a task's class: takes ``HiddenEffects`` and the task's options."""

    class Twin(task):  # type: ignore[valid-type, misc]
        def __init__(self, effects: HiddenEffects, **options: Any) -> None:
            super().__init__(randomisation=effects.conditions(robots.load(ROBOT)), **options)
            self._effects = effects
            self._offset = np.append(effects.joint_offset, 0.0)

        def reset(self, **arguments: Any) -> tuple[Observation, dict[str, Any]]:
            result: tuple[Observation, dict[str, Any]] = super().reset(**arguments)
            self.simulation.path = WrongZeros(self.simulation.path, self._offset)
            return result

        def sensed(self) -> Observation:
            return as_sensed(super().sensed(), self._effects, self.robot.transform_tcp_to_base)

        def plant(self, clock: Callable[[], int] | None = None) -> SimulatedPlant:
            return TwinPlant(self, self._offset, clock)

    return Twin


class WrongZeros:
    """A ``simulation.CommandPath`` of a robot whose encoders read ``offset`` too much.

    It goes where the encoders, not the joints, agree with the command.
    """

    def __init__(self, path: CommandPath | None, offset: Float) -> None:
        self._path, self._offset = path, offset

    def reset(self, command: Float) -> None:
        """The robot stands still at ``command``."""
        if self._path is not None:
            self._path.reset(command)

    def advance(self, command: Float) -> Float:
        """(num_joints + 1,) what reaches the servos, in the joints' true angles."""
        arrived = command if self._path is None else self._path.advance(command)
        true: Float = arrived - self._offset
        return true

    def state(self) -> Any:
        """That of the path beneath."""
        return None if self._path is None else self._path.state()

    def restore(self, state: Any) -> None:
        """Take a state back."""
        if self._path is not None:
            self._path.restore(state)


class TwinPlant(SimulatedPlant):
    """Measures what the twin's encoders read."""

    def __init__(self, env: TaskEnv, offset: Float, clock: Callable[[], int] | None) -> None:
        super().__init__(env, clock)
        self._offset = offset

    def measured(self) -> NDArray[np.float64]:
        """(num_joints + 1,) joint positions [rad] and gripper opening [m], with the zeros' errors."""
        return super().measured() + self._offset


def as_sensed(
    observation: Observation, effects: HiddenEffects, forward: Callable[[NDArray[Any]], Float]
) -> Observation:
    """What encoders and camera make of an observation.

    Joints read their offsets; the tool is where they say it is; objects are where the camera says they are,
    and what is given in the tool's frame follows from both.
    """
    seen = dict(observation)
    joints = observation["joint_position"].astype(np.float64) + effects.joint_offset
    tool = forward(joints)
    seen["joint_position"] = joints.astype(observation["joint_position"].dtype)
    seen["ee_pose"] = pose_9d_from_transform(tool).astype(observation["ee_pose"].dtype)
    for name, value in observation.items():
        if name.endswith("_pose") and name != "ee_pose":
            moved = value.astype(np.float64)
            moved[:3] += effects.camera_offset
            seen[name] = moved.astype(value.dtype)
    for name, value in observation.items():
        base = name.removesuffix(_IN_TOOL)
        if name.endswith(_IN_TOOL) and base in seen:
            place = np.linalg.inv(tool) @ transform_from_pose_9d(seen[base].astype(np.float64))
            seen[name] = pose_9d_from_transform(place).astype(value.dtype)
    return seen


@dataclass(frozen=True)
class TwinRecipe:
    """``EnvRecipe`` of a twin: what to make, so that another process can."""

    task: str
    effects: HiddenEffects = HiddenEffects()  # noqa: RUF009, it is frozen

    def bind(self, specs: PolicySpecs) -> Callable[[], TaskEnv]:
        """A picklable callable that makes the environment this policy observes, from states."""
        space = next(part.space for part, _ in specs.specs.action.slices())
        return partial(
            make_twin, self.task, self.effects, action_space=space, policy_rate=specs.specs.policy_rate
        )
