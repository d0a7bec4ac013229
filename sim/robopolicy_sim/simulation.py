"""One simulated arm: the MuJoCo model and data, commanded at control rate by position."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ShapeError
from robopolicy.core.geometry import Float, transform
from robopolicy_sim.errors import UnstablePhysicsError
from robopolicy_sim.robots import SimulatedRobot

CONTROL_RATE = 100.0  # [Hz]
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_COLUMNS = np.array([0, 3, 6, 1, 4, 7])  # of a row-major rotation matrix: its first two columns
_NO_WARNINGS = np.zeros(int(mujoco.mjtWarning.mjNWARNING), dtype=np.int32).tobytes()
_UNSTABLE = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)


class CommandPath(Protocol):
    """What lies between the command that is sent and the servos: delay, noise, backlash."""

    def reset(self, command: Float) -> None:
        """The robot stands still at ``command``."""
        ...

    def advance(self, command: Float) -> Float:
        """(num_joints + 1,) what reaches the servos in this control tick, of the commands sent so far."""
        ...

    def state(self) -> Any:
        """Everything that decides what later commands do, as a value that stays as it is."""
        ...

    def restore(self, state: Any) -> None:
        """Take a state back."""
        ...


@dataclass(frozen=True)
class PhysicsState:
    """Everything that decides the future: MuJoCo's integration state, the last command, and the path's."""

    physics: Float
    command: Float
    path: Any = None


class Simulation:
    """Physics of one scene with one robot.

    Args:
        model: a scene that holds the robot; see ``scene.compose``.
        arm: the robot in it, whose names its joints, tool site and actuators carry.
    """

    def __init__(self, model: mujoco.MjModel, arm: SimulatedRobot) -> None:
        self.model = model
        self.data = mujoco.MjData(model)
        self.robot = robot = arm.robot
        self.substeps = round(1.0 / (CONTROL_RATE * self.model.opt.timestep))
        self.physics_ns = 0  # spent in mj_step since the start, by the monotonic clock
        self.path: CommandPath | None = None  # None: commands reach the servos at once, as they are
        names = (*robot.joint_names, robot.gripper.name)
        self._lower, self._upper = robot.limits.lower, robot.limits.upper
        self._joints = np.array([int(model.joint(n).qposadr[0]) for n in robot.joint_names])
        #: (num_joints + 1,) ids of the servos, in the order of a command.
        self.actuators = np.array([model.actuator(n).id for n in names])
        self._fingers = np.array([int(model.joint(n).qposadr[0]) for n in arm.finger_joints])
        self._measured = np.concatenate([self._joints, self._fingers])
        self._tool = self.data.site(f"{robot.name}_tcp")
        self.last_command: Float = np.zeros(len(names))
        # Views and a buffer, made once: looking them up anew costs a tenth of a tick.
        self._ctrl, self._qpos, self._warnings = self.data.ctrl, self.data.qpos, self.data.warning.number
        self._before = np.empty(mujoco.mj_stateSize(model, _STATE))

    @property
    def time(self) -> float:
        """Simulated seconds since the reset."""
        return float(self.data.time)

    def reset(self, command: Float) -> None:
        """Default state at time 0, the robot standing still exactly at ``command`` (joints, opening)."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._joints] = command[:-1]
        self.data.qpos[self._fingers] = command[-1] / 2
        self.data.ctrl[self.actuators] = command
        self.last_command = np.array(command, dtype=np.float64)
        if self.path is not None:
            self.path.reset(self.last_command)

    def tick(self, command: NDArray[Any]) -> None:
        """Command positions and simulate one control period.

        Args:
            command: (num_joints + 1,) joints [rad], gripper opening [m]; clipped to the position limits.
        Raises:
            ShapeError: another shape.
            UnstablePhysicsError: the state became invalid; the state before this tick is back.
        """
        self.advance((self.checked(command),))

    def checked(self, command: NDArray[Any]) -> Float:
        """(num_joints + 1,) the command within limits; ShapeError if it has another shape."""
        if command.shape != self.last_command.shape:
            raise ShapeError(f"a command has shape {self.last_command.shape}, got {command.shape}")
        return self.within_limits(command)

    def within_limits(self, command: NDArray[Any]) -> Float:
        """(..., num_joints + 1) commands, clipped to the robot's position limits."""
        clipped: Float = np.minimum(np.maximum(command, self._lower), self._upper)
        return clipped

    def advance(self, commands: Iterable[Float], each: Callable[[], object] = lambda: None) -> None:
        """As ``tick``, for commands that have the right shape, are within limits and stay as they are.

        One loop with few look-ups: what Python does between two steps of physics costs far more here than by
        itself, since neither finds the other's code and data in the processor's caches.

        Args:
            each: called after every tick.
        """
        model, data, before, path = self.model, self.data, self._before, self.path
        ctrl, actuators, substeps = self._ctrl, self.actuators, self.substeps
        qpos, warnings, clock = self._qpos, self._warnings, time.perf_counter_ns
        sent = None
        for command in commands:
            mujoco.mj_getState(model, data, before, _STATE)
            previous, self.last_command = self.last_command, command
            if path is None:
                ctrl[actuators] = command
            else:
                sent = path.state()
                ctrl[actuators] = path.advance(command)
            started = clock()
            mujoco.mj_step(model, data, substeps)
            self.physics_ns += clock() - started
            if not qpos.dot(qpos) < np.inf or warnings.tobytes() != _NO_WARNINGS:
                self._refuse(PhysicsState(before, previous, sent), command)
            each()

    def _refuse(self, before: PhysicsState, command: NDArray[Any]) -> None:
        """Go back if the state is invalid; other warnings (a full contact buffer) are only counted."""
        unstable = any(self.data.warning[int(w)].number for w in _UNSTABLE)
        if not unstable and np.isfinite(self._qpos).all():
            return
        for warning in _UNSTABLE:
            self.data.warning[int(warning)].number = 0
        self.restore(before)
        raise UnstablePhysicsError(f"physics became unstable at {self.time:.3f} s under {command}")

    def measured(self) -> Float:
        """(num_joints + 1,) joint positions [rad] and gripper opening [m]."""
        measured: Float = self._qpos[self._measured]
        measured[-2] += measured[-1]  # the two fingers' sum is the opening
        return measured[:-1]

    def update_kinematics(self) -> None:
        """Bring every pose up to date with the joints; changes nothing that the dynamics read."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def transform_tcp_to_base(self) -> Float:
        """(4, 4) pose of the tool; call ``update_kinematics`` first. The base frame is the world's."""
        return transform(self._tool.xmat.reshape(3, 3), self._tool.xpos)

    def tool_position(self) -> Float:
        """(3,) of the tool [m]; a view, that moves on with the next ``update_kinematics``."""
        position: Float = self._tool.xpos
        return position

    def tool_pose_9d(self) -> Float:
        """(9,) pose of the tool: position [m], then 6-D rotation; call ``update_kinematics`` first."""
        return _pose_9d(self._tool.xmat, self._tool.xpos)

    def body_poses_9d(self, name: str) -> tuple[Float, Float]:
        """(9,) pose of a body in the base frame, and in the tool's; call ``update_kinematics`` first."""
        body, tool = self.data.body(name), self._tool.xmat.reshape(3, 3)
        rotation = tool.T @ body.xmat.reshape(3, 3)
        in_tool = _pose_9d(rotation.ravel(), tool.T @ (body.xpos - self._tool.xpos))
        return _pose_9d(body.xmat, body.xpos), in_tool

    def snapshot(self) -> PhysicsState:
        state = np.empty_like(self._before)
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        path = None if self.path is None else self.path.state()
        return PhysicsState(state, self.last_command.copy(), path)

    def set_physics(self, physics: Float) -> None:
        """Take MuJoCo's part of a state back: ``PhysicsState.physics``."""
        mujoco.mj_setState(self.model, self.data, physics, _STATE)

    def restore(self, state: PhysicsState) -> None:
        self.set_physics(state.physics)
        self.last_command = state.command.copy()
        if self.path is not None:
            self.path.restore(state.path)


def _pose_9d(rotation: Float, position: Float) -> Float:
    """As ``pose_9d_from_transform``, in a fifth of the time, from a row-major (9,) rotation matrix."""
    pose = np.empty(9)
    pose[:3] = position
    pose[3:] = rotation[_COLUMNS]
    return pose
