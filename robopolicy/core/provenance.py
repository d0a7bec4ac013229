"""What produced a result: command, git revision, package versions, seeds; and the folder it lies in."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.errors import RunExistsError
from robopolicy.core.serial import to_tree

PACKAGES = (
    "robopolicy", "numpy", "torch", "diffusers", "accelerate", "peft", "safetensors",
    "zarr", "mujoco", "mink", "gymnasium", "gym-pusht",
    "metaworld", "robosuite", "gym-aloha", "dm-control",
    "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt-cu12", "cuda-bindings", "ruckig", "opencv-python",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Version of every package that can change a result, where installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_revision() -> str:
    """Commit of the source tree, with "-dirty" when it has changes; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def provenance(**facts: Any) -> dict[str, Any]:
    """Facts to be saved beside a result; ``facts`` are added (seeds, the store's version, ...)."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git_revision": git_revision(),
        "versions": package_versions(),
        **{key: to_tree(value) for key, value in facts.items()},
    }


def create_run(path: Path, config: Any, **facts: Any) -> Path:
    """Make a new run folder holding ``config.json`` and ``provenance.json``.

    Raises:
        RunExistsError: the folder exists and is not empty; it is never overwritten.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunExistsError(f"{path} already holds results; choose another --output or remove it yourself")
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", to_tree(config))
    write_json(path / "provenance.json", provenance(**facts))
    return path


def write_json(path: Path, tree: Any) -> None:
    """Write a JSON file whole or not at all; NaN and infinity, which JSON lacks, become null."""
    partial = path.with_name(path.name + ".partial")
    finite = _finite(json.loads(json.dumps(tree, default=_plain)))
    partial.write_text(json.dumps(finite, indent=2, allow_nan=False) + "\n")
    partial.replace(path)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value)} is not JSON")
