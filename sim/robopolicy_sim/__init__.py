"""MuJoCo environments for robopolicy: Gymnasium API, tasks, experts. robopolicy never imports this."""

from __future__ import annotations

import os

from robopolicy.core.errors import MissingDependencyError

try:
    import mujoco
except (AttributeError, ImportError) as error:
    # mujoco imports the backend that MUJOCO_GL names at once, and fails obscurely without its library.
    if not os.environ.get("MUJOCO_GL") or isinstance(error, ModuleNotFoundError):
        raise
    raise MissingDependencyError(
        f"mujoco cannot be imported with MUJOCO_GL={os.environ['MUJOCO_GL']!r} ({error}); unset it, or "
        "install libegl1 libgl1-mesa-dri (egl) or libosmesa6 (osmesa)"
    ) from error

__all__ = ["mujoco"]
