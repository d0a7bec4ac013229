"""What a model predicts from commands alone: open loop from the first measurement to the last."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import mujoco
import mujoco.rollout
import numpy as np

from robopolicy.core.geometry import Float
from robopolicy_sim import scene
from robopolicy_sim.robots import SimulatedRobot
from robopolicy_sim.simulation import CONTROL_RATE
from robopolicy_sim.sysid.delay import delayed
from robopolicy_sim.sysid.logs import Log
from robopolicy_sim.sysid.parameters import RobotParameters
from robopolicy_sim.sysid.servos import Servo, read, servos, write

_SCENE = Path(__file__).parents[1] / "scenes" / "tabletop.xml"
_STATE = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
_IDLE = int(mujoco.mjtDisableBit.mjDSBL_CONTACT) | int(mujoco.mjtDisableBit.mjDSBL_SENSOR)


class OpenLoop:
    """A robot without objects, simulated along logs under any parameters.

    The physics options are those of every task; contacts are off, since logs are of free motion.

    Args:
        arm: whose model; logs are of this robot.
        threads: that simulate, one log each.
    """

    def __init__(self, arm: SimulatedRobot, *, threads: int = 1) -> None:
        self.arm = arm
        self.model = scene.compose(_SCENE, arm)
        self.model.opt.disableflags |= _IDLE
        self.servos: list[Servo] = servos(self.model, arm)
        self.nominal = read(self.model, arm)
        self._substeps = round(1.0 / (CONTROL_RATE * self.model.opt.timestep))
        self._datas = [mujoco.MjData(self.model) for _ in range(threads)]

    def predict(self, parameters: RobotParameters, logs: Sequence[Log]) -> list[Float]:
        """(samples, num_joints + 1) predicted measurements of each log, at its own times [rad, m].

        Non-finite where the simulation broke down.
        """
        model = copy.copy(self.model)
        write(model, self.arm, parameters)
        ticks = max(len(log.commands) for log in logs)
        steps = ticks * self._substeps
        control = np.zeros((len(logs), steps, model.nu))
        order = [servo.actuator for servo in self.servos]
        for row, log in enumerate(logs):
            late = delayed(log.commands, parameters.delay * CONTROL_RATE)
            late = np.vstack([late, np.repeat(late[-1:], ticks - len(late), axis=0)])
            control[row][:, order] = np.repeat(late, self._substeps, axis=0)
        starts = np.stack([self._start(model, log) for log in logs])
        states, _ = mujoco.rollout.rollout(model, self._datas, starts, control)
        return [self._sample(states[row], starts[row], log) for row, log in enumerate(logs)]

    def _start(self, model: mujoco.MjModel, log: Log) -> Float:
        data = self._datas[0]
        mujoco.mj_resetData(model, data)
        for place, servo in enumerate(self.servos):
            share = log.measured[0, place] / len(servo.dofs)
            data.qpos[[self._qpos(dof) for dof in servo.dofs]] = share
        arm = [servo.dofs[0] for servo in self.servos[:-1]]
        data.qvel[arm] = log.velocity
        state = np.empty(mujoco.mj_stateSize(model, _STATE))
        mujoco.mj_getState(model, data, state, _STATE)
        return state

    def _qpos(self, dof: int) -> int:
        return int(self.model.jnt_qposadr[self.model.dof_jntid[dof]])

    def _sample(self, states: Float, start: Float, log: Log) -> Float:
        """Positions at the log's times, linear between physics steps."""
        times = np.arange(len(states) + 1) * self.model.opt.timestep
        columns = []
        for servo in self.servos:
            at = [1 + self._qpos(dof) for dof in servo.dofs]  # time comes first in a state
            path = np.append(start[at].sum(), states[:, at].sum(axis=1))
            columns.append(np.interp(log.times, times, path))
        return np.stack(columns, axis=1)
