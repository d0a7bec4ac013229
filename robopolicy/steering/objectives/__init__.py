"""One file = one objective of critics: a frozen ``Config`` and ``build(config, critic, returns)``."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from robopolicy.core.errors import UnknownNameError


def names() -> list[str]:
    """Objectives that can be built: the file names in this package."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def objective(name: str) -> ModuleType:
    """The module ``robopolicy.steering.objectives.NAME``; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("objective", name, names())
    return importlib.import_module(f"{__name__}.{name}")
