"""One file = one foreign format. Each offers ``matches(path)`` and ``open_source(path, options)``.

``matches(path) -> bool`` looks at names only (a suffix, a file in a folder), never at contents.
``open_source(path, options)`` is a context manager that yields a ``source.Source`` or raises
ImportFormatError.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ImportFormatError, UnknownNameError

MAPPINGS = Path(__file__).parent / "mappings"
#: Modules of this package that are no formats.
PARTS = ("mapping", "source", "importing")


def names() -> list[str]:
    """Formats that can be imported: the file names in this package, its shared parts aside."""
    return sorted(
        m.name for m in pkgutil.iter_modules(__path__) if m.name not in PARTS and not m.name.startswith("_")
    )


def load(name: str) -> Any:
    """The importer module NAME; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("importer", name, names())
    return importlib.import_module(f"{__name__}.{name}")


def recognise(path: Path) -> str:
    """The format of ``path``, by its name and the files in it.

    Raises:
        ImportFormatError: nothing there, or no format or several claim it.
    """
    if not path.exists():
        raise ImportFormatError(f"no such file or folder: {path}")
    claims = [name for name in names() if load(name).matches(path)]
    if len(claims) != 1:
        what = f"could be any of {claims}" if claims else "is of no format that is known here"
        raise ImportFormatError(f"{path} {what}; say --format, one of {names()}")
    return claims[0]
