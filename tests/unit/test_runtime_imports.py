"""The on-robot path stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "zarr", "mujoco", "onnx", "scipy", "cv2")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_runtime_loads_no_engine() -> None:
    assert not loaded_after("import robopolicy.runtime").intersection((*HEAVY, "onnxruntime", "ruckig"))


def test_using_every_name_loads_nothing_heavy() -> None:
    statement = (
        "from robopolicy.runtime import *\nimport robopolicy.runtime.worker\n"
        "from robopolicy.robots import load\nSafetyFilter(load('fr3').limits, 100.0)\n"
        "from robopolicy.runtime.backends.onnxruntime import _engine\n_engine()"
    )
    loaded = loaded_after(statement)
    assert {"onnxruntime", "ruckig", "robopolicy.runtime.runner"} <= loaded
    assert not loaded.intersection(HEAVY)


def test_unknown_names_are_refused() -> None:
    import robopolicy.runtime

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = robopolicy.runtime.no_such_name
