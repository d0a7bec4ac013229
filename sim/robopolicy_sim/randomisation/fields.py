"""A model's fields as they were compiled, to begin every episode from."""

from __future__ import annotations

import mujoco
import numpy as np

#: Everything that randomisation writes to.
CHANGED = (
    "body_mass", "body_inertia", "body_gravcomp", "body_pos", "body_quat", "dof_damping", "dof_frictionloss",
    "dof_armature", "geom_friction", "geom_pos", "geom_quat", "geom_sameframe", "site_pos", "site_quat",
    "site_sameframe", "actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "cam_pos", "cam_quat",
    "cam_mode", "cam_fovy", "light_pos", "light_dir", "light_diffuse", "mat_rgba", "mat_texid",
    "mat_texrepeat", "mat_texuniform",
)  # fmt: skip
#: What mj_setConst computes from them.
DERIVED = (
    "body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0", "tendon_length0", "tendon_invweight0",
    "actuator_length0", "actuator_acc0", "cam_pos0", "cam_poscom0", "cam_mat0", "light_pos0", "light_poscom0",
    "light_dir0", "bvh_aabb",
)  # fmt: skip


class ModelFields:
    """Keeps a copy of the fields that randomisation changes."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._kept = [(getattr(model, name), getattr(model, name).copy()) for name in (*CHANGED, *DERIVED)]
        headlight = model.vis.headlight.ambient
        self._kept.append((headlight, np.array(headlight)))
        self._inertia = float(model.stat.meaninertia)

    def restore(self) -> None:
        """Every field as it was, bit for bit."""
        for view, kept in self._kept:
            view[...] = kept
        self._model.stat.meaninertia = self._inertia
