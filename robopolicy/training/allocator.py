"""Keep memory that one step of a training freed for the next one."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Stop glibc from handing large blocks back to the system, for the rest of this process.

    Gradients come and go in every step. By default each large one is a mapping of its own, whose pages the
    kernel clears anew whenever it is touched first: a quarter of a CPU step of 250 M parameters.

    Returns:
        whether that is in force; other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
