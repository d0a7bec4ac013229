"""Scripted experts, one file a task. They see the full state and act at policy rate."""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """Tasks that have an expert: the Python files beside this one, named as their task."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
