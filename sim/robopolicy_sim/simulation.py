"""One simulated arm: the MuJoCo model and data, commanded at control rate by position."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ShapeError
from robopolicy.core.geometry import Float, transform
from robopolicy.core.robot import Robot
from robopolicy_sim.errors import UnstablePhysicsError

CONTROL_RATE = 100.0  # [Hz]
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_UNSTABLE = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)

# MuJoCo's own handler writes MUJOCO_LOG.TXT into whatever folder the process was started from.
mujoco.set_mju_user_warning(logging.getLogger(__name__).warning)


@dataclass(frozen=True)
class PhysicsState:
    """Everything that decides the future: MuJoCo's integration state and the last command."""

    physics: Float
    command: Float


class Simulation:
    """Physics of one scene with one robot.

    Args:
        mjcf: a scene that includes the robot's MJCF; its joints, tool site, finger tendon and actuators
            carry the names of the robot file.
        robot: names and limits.
    """

    def __init__(self, mjcf: Path, robot: Robot) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(mjcf))
        self.data = mujoco.MjData(self.model)
        self.robot = robot
        self._limits = robot.limits
        self.substeps = round(1.0 / (CONTROL_RATE * self.model.opt.timestep))
        model, names = self.model, (*robot.joint_names, robot.gripper.name)
        self._joints = np.array([int(model.joint(n).qposadr[0]) for n in robot.joint_names])
        self._actuators = np.array([model.actuator(n).id for n in names])
        self._fingers = np.array(
            [int(model.joint(f"{robot.name}_finger_joint{i}").qposadr[0]) for i in (1, 2)]
        )
        self._tool = self.data.site(f"{robot.name}_tcp")
        self.last_command: Float = np.zeros(len(names))

    @property
    def time(self) -> float:
        """Simulated seconds since the reset."""
        return float(self.data.time)

    def reset(self, command: Float) -> None:
        """Default state at time 0, the robot standing still exactly at ``command`` (joints, opening)."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._joints] = command[:-1]
        self.data.qpos[self._fingers] = command[-1] / 2
        self.data.ctrl[self._actuators] = command
        self.last_command = np.array(command, dtype=np.float64)

    def tick(self, command: NDArray[Any]) -> None:
        """Command positions and simulate one control period.

        Args:
            command: (num_joints + 1,) joints [rad], gripper opening [m]; clipped to the position limits.
        Raises:
            ShapeError: another shape.
            UnstablePhysicsError: the state became invalid; the state before this tick is back.
        """
        if command.shape != self.last_command.shape:
            raise ShapeError(f"a command has shape {self.last_command.shape}, got {command.shape}")
        before = self.snapshot()
        self.last_command = np.clip(command, self._limits.lower, self._limits.upper)
        self.data.ctrl[self._actuators] = self.last_command
        mujoco.mj_step(self.model, self.data, self.substeps)
        if any(self.data.warning[int(w)].number for w in _UNSTABLE) or not np.isfinite(self.data.qpos).all():
            for warning in _UNSTABLE:
                self.data.warning[int(warning)].number = 0
            self.restore(before)
            raise UnstablePhysicsError(f"physics became unstable at {self.time:.3f} s under {command}")

    def measured(self) -> Float:
        """(num_joints + 1,) joint positions [rad] and gripper opening [m]."""
        qpos = self.data.qpos
        return np.append(qpos[self._joints], qpos[self._fingers].sum())

    def update_kinematics(self) -> None:
        """Bring every pose up to date with the joints; changes nothing that the dynamics read."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def transform_tcp_to_base(self) -> Float:
        """(4, 4) pose of the tool; call ``update_kinematics`` first. The base frame is the world's."""
        return transform(self._tool.xmat.reshape(3, 3), self._tool.xpos)

    def snapshot(self) -> PhysicsState:
        state = np.empty(mujoco.mj_stateSize(self.model, int(_STATE)))
        mujoco.mj_getState(self.model, self.data, state, int(_STATE))
        return PhysicsState(state, self.last_command.copy())

    def restore(self, state: PhysicsState) -> None:
        mujoco.mj_setState(self.model, self.data, state.physics, int(_STATE))
        self.last_command = state.command.copy()
