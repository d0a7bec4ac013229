"""One file = one policy family: a frozen ``Config``, the module, and ``build(config, specs)``."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from robopolicy.core.errors import UnknownNameError


def names() -> list[str]:
    """Families that can be built: the file names in this package."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def family(name: str) -> ModuleType:
    """The module ``robopolicy.policies.NAME``; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("policy", name, names())
    return importlib.import_module(f"{__name__}.{name}")
