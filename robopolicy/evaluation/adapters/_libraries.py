"""Libraries that need the peers' environment: finding them, drawing without a display, broken physics."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from robopolicy.core.errors import MissingDependencyError
from robopolicy.evaluation.adapters import INSTALL


def require(module: str, name: str) -> ModuleType:
    """Import a library of the peers' environment, ready to draw without a display.

    Raises:
        MissingDependencyError: it is absent, or beside a MuJoCo it does not run with; says the command.
    """
    hint = (
        f"'{INSTALL}' makes an environment for it in .venv-peers; "
        "then .venv-peers/bin/robopolicy takes the same commands"
    )
    with contextlib.suppress(PackageNotFoundError):
        if int(version("mujoco").partition(".")[0]) > 3:
            raise MissingDependencyError(
                f"environment {name!r} does not run on MuJoCo {version('mujoco')}: {hint}"
            )
    _choose_opengl()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"environment {name!r} needs the package {error.name!r}: {hint}"
        ) from error


def _choose_opengl() -> None:
    """MuJoCo 3.3 fixes its OpenGL at its first import, and its default needs a display."""
    unsuited = sys.platform != "linux" or "mujoco" in sys.modules
    if unsuited or os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return
    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if find_library(library):
            os.environ["MUJOCO_GL"] = backend
            return


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Says what to install where no picture can be drawn: each OpenGL fails in its own way."""
    try:
        yield
    except (ImportError, AttributeError, RuntimeError) as error:
        raise MissingDependencyError(
            f"cameras cannot be rendered ({error}); on Debian: sudo apt-get install libegl1 libgl1-mesa-dri"
        ) from error


def is_unstable(data: Any) -> bool:
    """Whether MuJoCo has met numbers that are no numbers since the reset; it goes on from the start then."""
    kinds = importlib.import_module("mujoco").mjtWarning
    bad = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
    return any(data.warning[int(kind)].number > 0 for kind in bad)
