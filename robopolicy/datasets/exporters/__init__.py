"""One file = one foreign format. Each offers ``export_dataset(store, destination, ...) -> report``."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from robopolicy.core.errors import UnknownNameError


def names() -> list[str]:
    """Formats that can be exported: the file names in this package, its private parts aside."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> Any:
    """The exporter module NAME; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("exporter", name, names())
    return importlib.import_module(f"{__name__}.{name}")
