"""One file = one robot: joint names, limits with units, kinematics, and the source of each number."""

from __future__ import annotations

import importlib
import pkgutil

from robopolicy.core.errors import UnknownNameError
from robopolicy.core.robot import Robot


def names() -> list[str]:
    """Robots that can be loaded: the file names in this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Robot:
    """The robot defined in ``robopolicy/robots/NAME.py``; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("robot", name, names())
    robot: Robot = importlib.import_module(f"{__name__}.{name}").ROBOT
    return robot
