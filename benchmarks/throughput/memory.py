"""What this process holds in memory, as Linux counts it, and what machine this is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Start a new peak; without Linux the peak stays that of the whole process."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_mib() -> float:
    """Most resident memory since ``reset_peak``, mapped files included [MiB]."""
    if _STATUS.exists():
        return held_mib("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def held_mib(what: str) -> float:
    """A line of /proc/self/status [MiB]: "RssAnon" is memory of our own, "RssFile" mapped files."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(what)


def machine() -> dict[str, Any]:
    """Facts that speeds depend on; the load says whether others were at work."""
    model = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    names = ("numpy", "torch", "zarr", "numcodecs", "opencv-python")
    return {
        "cpu": model[0].split(":")[1].strip() if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }
