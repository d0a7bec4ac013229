"""What in a scene a parameter can belong to, by name: bodies, geoms, joints, servos, lights, cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy_sim.randomisation.kinds import KINDS, matching, parse_key
from robopolicy_sim.simulation import Simulation

Ids = NDArray[np.int64]


class Targets:
    """Finds the MuJoCo ids that a key stands for.

    Without a pattern a key means the usual targets: the free objects' mass, the arm's joints and servos,
    the textures of what stands still, and else everything there is.
    """

    def __init__(self, simulation: Simulation) -> None:
        model = self._model = simulation.model
        robot = simulation.robot
        commanded = (*robot.joint_names, robot.gripper.name)
        # Servos count as in a command; links are those bodies whose weight is compensated at all.
        links = [name for i, name in enumerate(_names(model.nbody, model.body)) if model.body_gravcomp[i]]
        self._names: dict[str, Sequence[str]] = {
            "body": _names(model.nbody, model.body),
            "geom": _names(model.ngeom, model.geom),
            "joint": _names(model.njnt, model.joint),
            "light": _names(model.nlight, model.light),
            "camera": _names(model.ncam, model.camera),
            "material": _names(model.nmat, model.mat),
            "servo": commanded,
            "link": links,
        }
        free = model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
        standing = np.unique(model.geom_matid[model.geom_bodyid == 0])
        self._usual: dict[str, Sequence[int]] = {
            "body": [int(i) for i in free],
            "joint": [model.joint(name).id for name in robot.joint_names],
            "servo": range(len(robot.joint_names)),
        }
        self._found: dict[str, Ids] = {}
        self._standing = [int(i) for i in standing if i >= 0]

    def ids(self, key: str) -> Ids:
        """Of what the key stands for; none for kinds there is only one of.

        Raises:
            UnknownNameError: nothing in this scene fits; lists what there is.
        """
        if key not in self._found:
            self._found[key] = self._find(*parse_key(key))
        return self._found[key]

    def _find(self, kind: str, pattern: str) -> Ids:
        over = KINDS[kind].over
        if not over:
            return np.zeros(0, dtype=np.int64)
        if pattern:
            return np.array(matching(kind, pattern, self._names[over]))
        if kind == "texture":
            return np.array(self._standing)
        return np.array(self._usual.get(over, range(len(self._names[over]))), dtype=np.int64)

    def each(self, key: str) -> list[str]:
        """One key for every named target of a key."""
        kind, _ = parse_key(key)
        names = self._names[KINDS[kind].over]
        return [f"{kind}:{names[i]}" for i in self.ids(key) if names[i]]

    def links(self, ids: Ids) -> Ids:
        """Bodies of some links."""
        return np.array([self._model.body(self._names["link"][i]).id for i in ids], dtype=np.int64)


def _names(count: int, of: Callable[[int], object]) -> list[str]:
    return [str(getattr(of(i), "name")) for i in range(count)]  # noqa: B009, the views are untyped
