"""Which GPU and driver this machine has: what a built engine is good for."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ConfigError, MissingDependencyError

#: Linux names the driver here; ``cudaDriverGetVersion`` tells only which CUDA it speaks.
DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device.

    Args:
        compute_capability: "9.0".
        driver: version of the driver, or the CUDA version it speaks where that is all there is.
    """

    name: str
    compute_capability: str
    driver: str

    @property
    def key(self) -> str:
        """Safe in a file name."""
        return re.sub(r"[^A-Za-z0-9.]+", "_", f"{self.name} sm{self.compute_capability} {self.driver}")


def describe_gpu() -> Gpu:
    """The device that CUDA calls 0.

    Raises:
        ConfigError: there is none, or its driver is too old; MissingDependencyError: no cuda-bindings.
    """
    cudart = cuda_runtime()
    try:
        count = checked(cudart.cudaGetDeviceCount())
        if count == 0:
            raise ConfigError("CUDA counts 0 devices")
        properties = checked(cudart.cudaGetDeviceProperties(0))
        version = checked(cudart.cudaDriverGetVersion())
    except ConfigError as error:
        raise ConfigError(f"no GPU can be used here: {error}; the provider 'cpu' needs none") from error
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(name.rstrip("\0"), f"{properties.major}.{properties.minor}", driver_version(version))


def driver_version(cuda_version: int, file: Path = DRIVER_FILE) -> str:
    """The driver's own version ("550.54.15"), or else the CUDA version it speaks ("cuda12.4")."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", file.read_text())
    except OSError:
        found = None
    return found.group() if found else f"cuda{cuda_version // 1000}.{cuda_version % 1000 // 10}"


def cuda_runtime() -> Any:
    """CUDA's runtime; MissingDependencyError names the package."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise MissingDependencyError(
            f"TensorRT needs cuda-bindings ({error}): pip install 'robopolicy[tensorrt]'"
        ) from error


def checked(result: tuple[Any, ...]) -> Any:
    """What a CUDA call gave apart from its status; ConfigError when that is an error."""
    status, *values = result
    if int(status) != 0:
        raise ConfigError(f"CUDA says {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)
