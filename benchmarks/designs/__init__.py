"""Parts of ``store_designs.py``: the same episodes under each design of a demonstration store."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Design by name: module of this package and class.
KNOWN = {
    "ours": ("ours", "Ours"),
    "icechunk": ("icechunks", "Groups"),
    "icechunk, flat": ("icechunks", "Flat"),
}


class Design(Protocol):
    """One store, open to append and to read. Episodes are known by their seed."""

    conflicts: int

    def __init__(self, path: Path) -> None: ...

    @classmethod
    def create(cls, path: Path) -> Design: ...

    def append(self, seed: int) -> tuple[float, float]:
        """Seconds for the whole episode, and for its commit alone."""
        ...

    def touch(self, number: int) -> None:
        """The smallest commit there is."""
        ...

    def touched(self) -> int:
        """How many of those the newest version knows of."""
        ...

    def seeds(self) -> list[int]:
        """Of every episode in the newest version."""
        ...

    def read(self, seed: int) -> dict[str, NDArray[Any]]:
        """Value and times of every signal, in memory."""
        ...

    def open_cameras(self, seeds: list[int]) -> None:
        """Open the camera of each, as a loader does once."""
        ...

    def frames(self, which: NDArray[np.int64], way: str) -> NDArray[np.uint8]:
        """(count, height, width, 3) frames, read in one of ``ways``.

        Args:
            which: (count, 2) rows of index into ``open_cameras`` and step.
        """
        ...

    def tag(self, name: str) -> None: ...

    def count_at(self, path: Path, tag: str | None, back: int) -> int:
        """Open the store afresh at a tag, or so many versions back, and count its episodes."""
        ...

    ways: tuple[str, ...]


def load(name: str) -> type[Design]:
    module, kind = KNOWN[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)  # type: ignore[no-any-return]


def available() -> list[str]:
    """Designs whose libraries are installed."""
    there = importlib.util.find_spec("icechunk") is not None
    return [name for name in KNOWN if there or name == "ours"]
