"""Environments from elsewhere under our names, shapes, units and success: one file per library.

An id is NAMESPACE/TASK; the file is found by the namespace. Each has ``make(name, **options)``, which gives
an ``AdaptedEnv``, ``options_for(specs)``, and where the library has scripted experts ``expert(name)``.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from robopolicy.core.errors import MissingDependencyError, UnknownNameError

INSTALL = "python3 make.py install-peers"


def names() -> list[str]:
    """Namespaces that have an adapter: the file names in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> ModuleType | None:
    """The adapter for an id as NAMESPACE/TASK; None where the namespace has none.

    Raises:
        MissingDependencyError: not even Gymnasium is installed.
    """
    namespace, slash, _ = name.partition("/")
    if not slash or namespace not in names():
        return None
    try:
        return importlib.import_module(f"{__name__}.{namespace}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("robopolicy"):
            raise
        raise MissingDependencyError(
            f"environment {name!r} needs the package {error.name!r}: pip install 'robopolicy[eval]'"
        ) from error


def load_expert(name: str) -> Any:
    """What makes the scripted expert of an id whose adapter ``find`` knows.

    Raises:
        UnknownNameError: the library has no experts, or no such task; lists what there is.
    """
    adapter = find(name)
    if adapter is None or not hasattr(adapter, "expert"):
        with_experts = [n for n in names() if hasattr(find(f"{n}/"), "expert")]
        raise UnknownNameError("expert", name, [f"{n}/TASK" for n in with_experts])
    return adapter.expert(name)
