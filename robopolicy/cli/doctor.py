"""Show what is installed, which inference providers there are, and this machine's limits."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robopolicy import __version__, policies, robots
from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy.core.provenance import package_versions
from robopolicy.evaluation.environments import ENVIRONMENTS, known

EXTRAS = {
    "onnxruntime": "base", "ruckig": "base", "zarr": "data", "torch": "train", "diffusers": "train",
    "mujoco": "sim", "mink": "sim", "gymnasium": "sim", "gym_pusht": "pusht", "onnxscript": "export",
    "ray": "ray", "metaworld": "make.py install-peers", "robosuite": "make.py install-peers",
    "tensorrt": "tensorrt", "cuda": "tensorrt",
    "gym_aloha": "make.py install-peers", "matplotlib": "viz", "imageio": "viz", "cv2": "opencv",
    "rclpy": "a ROS 2 installation",
}  # fmt: skip


@dataclass(frozen=True)
class Args:
    """No options."""


def run(args: Args) -> int:
    console = Console()
    table = Table("what", "state", title=f"robopolicy {__version__}, Python {platform.python_version()}")
    versions = package_versions()
    for module, extra in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        version = versions.get(module.replace("_", "-"), "")
        table.add_row(module, f"[green]yes[/] {version}" if found else f"[yellow]no[/]  ({extra})")
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        table.add_row("onnxruntime providers", ", ".join(onnxruntime.get_available_providers()))
    table.add_row("GPU for TensorRT", _gpu())
    table.add_row(
        "CPU cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    )
    table.add_row("free disk here", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB")
    table.add_row("headless rendering", _rendering())
    table.add_row("tasks", ", ".join(known(ENVIRONMENTS)))
    table.add_row("policies", ", ".join(policies.names()))
    table.add_row("robots", ", ".join(robots.names()))
    console.print(table)
    return 0


def _gpu() -> str:
    from robopolicy.runtime.backends.gpu import describe_gpu

    try:
        gpu = describe_gpu()
    except (ConfigError, MissingDependencyError) as error:
        return f"[yellow]none[/]: {escape(str(error))}"
    return f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}"


def _rendering() -> str:
    from ctypes.util import find_library

    found = [name for name, library in (("EGL", "EGL"), ("OSMesa", "OSMesa")) if find_library(library)]
    return ", ".join(found) or "[yellow]none[/]: apt-get install libegl1 libgl1-mesa-dri"
