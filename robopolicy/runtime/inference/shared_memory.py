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
    """A new zeroed segment, its name tells the owner's process id; the caller closes and unlinks it.

    Raises:
        WorkerError: there is no room for it.
    """
    name = f"robopolicy-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        segment = SharedMemory(name=name, create=True, size=size)
    except OSError as error:
        raise WorkerError(f"no shared memory of {size} bytes: {error}") from error
    try:
        if hasattr(os, "posix_fallocate"):  # else a full /dev/shm kills whoever writes first, by SIGBUS
            owned: Any = segment
            os.posix_fallocate(owned._fd, 0, size)
    except OSError as error:
        segment.close()
        segment.unlink()
        raise WorkerError(f"no shared memory of {size} bytes, /dev/shm may be full: {error}") from error
    return segment


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
