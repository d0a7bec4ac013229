"""A table that stands a little higher or lower, or tilted, with everything on it."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float, matrix_from_rpy, transform
from robopolicy_sim.randomisation.targets import Ids
from robopolicy_sim.simulation import Simulation

_PIVOT = (0.35, 0.0, 0.0)  # [m] middle of the table's surface in scenes/tabletop.xml


class Table:
    """Moves all that stands still, and then the objects that a task has placed; the robot stays.

    Tasks measure heights from the robot's base, as a robot would, so only those that compare two objects
    notice nothing of a table that moved.
    """

    def __init__(self, simulation: Simulation) -> None:
        model = self._model = simulation.model
        self._data = simulation.data
        robot = int(model.body_rootid[model.site(f"{simulation.robot.name}_tcp").bodyid[0]])
        plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
        self._geoms = np.flatnonzero((model.geom_bodyid == 0) & ~plane)
        self._sites = np.flatnonzero(model.site_bodyid == 0)
        top = np.flatnonzero((model.body_parentid == 0) & (np.arange(model.nbody) > 0))
        filled = set(model.body_rootid[model.geom_bodyid].tolist())  # cameras aim at bodies without a geom
        top = np.array([b for b in top if b != robot and b in filled], dtype=np.int64)
        self._mocaps = model.body_mocapid[top[model.body_mocapid[top] >= 0]]
        joints = np.flatnonzero(
            np.isin(model.jnt_bodyid, top) & (model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        )
        self._free = model.jnt_qposadr[joints]
        self._bodies = np.setdiff1d(top[model.body_mocapid[top] < 0], model.jnt_bodyid[joints])
        self._moved = np.eye(4)
        self.effects: dict[str, Callable[[Ids, float], None]] = {
            "table_height": lambda _, height: self._move(transform(np.eye(3), (0.0, 0.0, height))),
            "table_roll": lambda _, angle: self._move(_about_pivot((angle, 0.0, 0.0))),
            "table_pitch": lambda _, angle: self._move(_about_pivot((0.0, angle, 0.0))),
        }

    def reset(self) -> None:
        """The model has been restored."""
        self._moved = np.eye(4)

    def _move(self, moved: Float) -> None:
        model = self._model
        self._moved = moved @ self._moved
        _carry(moved, model.geom_pos, model.geom_quat, self._geoms)
        _carry(moved, model.site_pos, model.site_quat, self._sites)
        _carry(moved, model.body_pos, model.body_quat, self._bodies)
        # Their frames no longer agree with the world's.
        model.geom_sameframe[self._geoms] = int(mujoco.mjtSameFrame.mjSAMEFRAME_NONE)
        model.site_sameframe[self._sites] = int(mujoco.mjtSameFrame.mjSAMEFRAME_NONE)

    def placed(self) -> None:
        """Take what a task has just placed along."""
        if np.array_equal(self._moved, np.eye(4)):
            return
        data = self._data
        for address in self._free:
            pose = data.qpos[address : address + 7]
            _carry(self._moved, pose[np.newaxis, :3], pose[np.newaxis, 3:], np.zeros(1, dtype=np.int64))
        _carry(self._moved, data.mocap_pos, data.mocap_quat, self._mocaps)


def _about_pivot(rpy: tuple[float, float, float]) -> Float:
    to_pivot = transform(np.eye(3), _PIVOT)
    return to_pivot @ transform(matrix_from_rpy(rpy), (0.0, 0.0, 0.0)) @ np.linalg.inv(to_pivot)


def _carry(moved: Float, position: NDArray[np.float64], quat_wxyz: NDArray[np.float64], which: Ids) -> None:
    """Apply a transform to some poses, in place."""
    turned, turn = np.empty(4), np.empty(4)
    mujoco.mju_mat2Quat(turn, moved[:3, :3].flatten())
    for i in which:
        position[i] = moved[:3, :3] @ position[i] + moved[:3, 3]
        mujoco.mju_mulQuat(turned, turn, quat_wxyz[i])
        quat_wxyz[i] = turned
