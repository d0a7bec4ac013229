"""Off-screen pictures of a MuJoCo model, on machines with and without a display.

MuJoCo's own ``Renderer`` fixes its OpenGL backend when ``mujoco`` is first imported; here the backend is
chosen when the first picture is asked for, so runs that only need the state never touch OpenGL.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, MissingDependencyError

BACKENDS = ("egl", "osmesa", "glfw")
QUALITIES = ("fast", "full")
_HELP = (
    "no OpenGL backend works, so cameras cannot be rendered. On Debian or Ubuntu install\n"
    "    sudo apt-get install libegl1 libgl1-mesa-dri      (EGL)\n"
    "or  sudo apt-get install libosmesa6                   (OSMesa)\n"
    "State observations need none of this: use observation_mode='state' and no render_mode. Tried: "
)


def backend_order() -> tuple[str, ...]:
    """Backends to try: MUJOCO_GL alone when it is set, else EGL, OSMesa and, with a display, GLFW.

    Raises:
        ConfigError: MUJOCO_GL names none of them.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    if asked in BACKENDS:
        return (asked,)
    if asked:
        raise ConfigError(f"MUJOCO_GL={asked!r} is not one of {BACKENDS}; unset it to choose automatically")
    return BACKENDS if os.environ.get("DISPLAY") else BACKENDS[:2]


def create_context(width: int, height: int) -> Any:
    """A current OpenGL context from the first backend that works.

    Raises:
        MissingDependencyError: none does; names the Debian packages to install.
    """
    failures = []
    for backend in backend_order():
        _reset_pyopengl(backend)
        try:
            context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
            context.make_current()
            return context
        except Exception as error:  # each backend fails in its own way: missing library, driver, display
            sys.modules.pop(f"mujoco.{backend}", None)
            failures.append(f"{backend} ({error})")
    raise MissingDependencyError(_HELP + "; ".join(failures))


def _reset_pyopengl(backend: str) -> None:
    """Let PyOpenGL bind to another platform than the one that just failed; it chooses only once."""
    current = os.environ.get("PYOPENGL_PLATFORM", "")
    if backend == "glfw" or current in ("", backend):
        return
    del os.environ["PYOPENGL_PLATFORM"]
    for name in [n for n in sys.modules if n == "OpenGL" or n.startswith("OpenGL.")]:
        del sys.modules[name]


class Painted(Protocol):
    """Textures that change: their ids in the model, and a number that changes with them."""

    @property
    def ids(self) -> tuple[int, ...]: ...

    @property
    def version(self) -> int: ...


class Renderer:
    """Draws cameras of one model at one size.

    Args:
        model: its ``vis`` settings are changed while the context is created, then put back.
        size: (height, width) in pixels.
        fast: no multisampling, shadows or reflections: about 6 times faster in software, for observations.
    Raises:
        ConfigError: a side is below 1.
        MissingDependencyError: no OpenGL backend works.
    """

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int], *, fast: bool) -> None:
        height, width = size
        if min(size) < 1:
            raise ConfigError(f"image size must be positive (height, width), got {size}")
        self._model = model
        self._context: Any = create_context(width, height)
        quality, frame = model.vis.quality, model.vis.global_
        kept = quality.offsamples, frame.offwidth, frame.offheight
        quality.offsamples = 0 if fast else kept[0]
        frame.offwidth, frame.offheight = width, height
        try:
            self._target = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_100))
        except mujoco.FatalError as error:  # GLFW without a display fails only here
            raise MissingDependencyError(f"{_HELP}{error}") from error
        quality.offsamples, frame.offwidth, frame.offheight = kept
        mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._target)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[int(flag)] = not fast
        self._options = mujoco.MjvOption()
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
        self._painted = -1  # version of the textures in the context; the first picture tells it
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._shape = (height, width, 3)

    def render(self, data: mujoco.MjData, camera: str, painted: Painted | None = None) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 picture from a named camera; ``data`` must hold current kinematics.

        Args:
            painted: textures of the model that change between episodes.
        """
        self._context.make_current()
        if painted is not None and painted.version != self._painted:
            for texture in painted.ids if self._painted >= 0 else ():
                mujoco.mjr_uploadTexture(self._model, self._target, texture)
            self._painted = painted.version
        self._camera.fixedcamid = self._model.camera(camera).id
        every = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(
            self._model, data, self._options, self._perturb, self._camera, every, self._scene
        )
        pixels = np.empty(self._shape, dtype=np.uint8)
        mujoco.mjr_render(self._rect, self._scene, self._target)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._target)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the OpenGL context; calling twice is allowed."""
        if self._context is not None:
            self._context.make_current()
            self._target.free()
            self._context.free()
            self._context = None
