"""One file = one foreign format. Each offers ``import_dataset(source, destination, mapping)``."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from robopolicy.core.errors import UnknownNameError

MAPPINGS = Path(__file__).parent / "mappings"


def names() -> list[str]:
    """Formats that can be imported: the file names in this package, ``mapping`` aside."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "mapping")


def load(name: str) -> Any:
    """The importer module NAME; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("importer", name, names())
    return importlib.import_module(f"{__name__}.{name}")
