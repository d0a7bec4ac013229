"""One task = one file and its MJCF. Tasks do not import one another; they are found by entry points."""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """Tasks in this package: the Python files beside this one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
