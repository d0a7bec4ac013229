"""Shared memory segments with one owner: the parent creates and removes, the worker only maps."""

from __future__ import annotations

import os
import secrets
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from robopolicy.core.errors import WorkerError


def create(size: int) -> SharedMemory:
    """A new zeroed segment, its name tells the owner's process id; the caller closes and unlinks it."""
    name = f"robopolicy-{os.getpid()}-{secrets.token_hex(4)}"
    return SharedMemory(name=name, create=True, size=size)


def attach(name: str, size: int) -> SharedMemory:
    """Map a segment that another process owns.

    Before Python 3.13 a process that only attaches registers the segment with its resource tracker,
    which removes it, with a warning, when that process ends (https://github.com/python/cpython/issues/82300).

    Raises:
        WorkerError: there is no such segment, or it is smaller than ``size``.
    """
    try:
        segment = _attach_untracked(name)
    except FileNotFoundError as error:
        raise WorkerError(f"no shared memory {name!r}; has the parent ended?") from error
    if segment.size < size:
        found = segment.size
        segment.close()
        raise WorkerError(f"shared memory {name!r} has {found} bytes, {size} are needed: bundles differ?")
    return segment


def _attach_untracked(name: str) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return SharedMemory(name=name, track=False)
    tracker: Any = resource_tracker
    register = tracker.register
    tracker.register = lambda *_: None
    try:
        return SharedMemory(name=name)
    finally:
        tracker.register = register
