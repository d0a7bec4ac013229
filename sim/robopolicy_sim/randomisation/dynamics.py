"""How conditions of the dynamics change a model: masses, friction, joints, servos."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy_sim.randomisation.targets import Ids, Targets
from robopolicy_sim.simulation import Simulation

#: Kinds after which MuJoCo must compute its constants anew: inverse inertias, and the world's tree of
#: bounding boxes, without which a raised table lets things fall through.
DERIVING = ("mass", "armature", "table_height", "table_roll", "table_pitch")


class Dynamics:
    """Puts one condition after the other into a model that is as it was compiled."""

    def __init__(self, simulation: Simulation, targets: Targets) -> None:
        self._model, self._targets = simulation.model, targets
        self._servos = simulation.actuators
        self.effects: dict[str, Callable[[Ids, float], None]] = {
            "mass": self._mass,
            "friction": self._friction,
            "damping": self._damping,
            "frictionloss": self._frictionloss,
            "armature": self._armature,
            "kp": self._kp,
            "kv": self._kv,
            "gripper_force": self._gripper_force,
            "gravity_compensation": self._gravity_compensation,
        }

    def _mass(self, bodies: Ids, factor: float) -> None:
        self._model.body_mass[bodies] *= factor
        self._model.body_inertia[bodies] *= factor

    def _friction(self, geoms: Ids, factor: float) -> None:
        self._model.geom_friction[geoms] *= factor

    def _damping(self, joints: Ids, added: float) -> None:
        self._model.dof_damping[self._dofs(joints)] += added

    def _frictionloss(self, joints: Ids, added: float) -> None:
        self._model.dof_frictionloss[self._dofs(joints)] += added

    def _armature(self, joints: Ids, factor: float) -> None:
        self._model.dof_armature[self._dofs(joints)] *= factor

    def _dofs(self, joints: Ids) -> NDArray[np.int64]:
        """Degrees of freedom of some joints: 6 of a free one, 3 of a ball, 1 of the others."""
        return np.flatnonzero(np.isin(self._model.dof_jntid, joints))

    def _kp(self, servos: Ids, factor: float) -> None:
        """Stiffness, of a position servo: force = kp (command - position) - kv velocity."""
        self._model.actuator_gainprm[self._servos[servos], 0] *= factor
        self._model.actuator_biasprm[self._servos[servos], 1] *= factor

    def _kv(self, servos: Ids, factor: float) -> None:
        self._model.actuator_biasprm[self._servos[servos], 2] *= factor

    def _gripper_force(self, _: Ids, factor: float) -> None:
        self._model.actuator_forcerange[self._servos[-1]] *= factor

    def _gravity_compensation(self, links: Ids, factor: float) -> None:
        self._model.body_gravcomp[self._targets.links(links)] *= factor

    def settle(self, kinds: set[str], scratch: mujoco.MjData) -> None:
        """Let MuJoCo compute what follows from inertias and places: 15 us, so only where one changed."""
        if kinds & set(DERIVING):
            mujoco.mj_setConst(self._model, scratch)
