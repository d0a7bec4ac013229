"""The on-robot path stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_runtime_support import write_tiny_bundle

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "zarr", "mujoco", "scipy", "gymnasium", "tyro", "rich", "onnx", "cv2")
#: A run as on a robot: a bundle from disk, the worker process, the control loop.
A_RUN = """
import sys, time
import numpy as np
from robopolicy.core.plant import Stamped
from robopolicy.core.robot import Limits
from robopolicy.runtime import *

bundle = load_bundle(sys.argv[1])
specs = bundle.policy_specs

class Arm:
    specs, control_rate = bundle.policy_specs.specs, 100.0
    position = np.zeros(3)
    def observe(self):
        now = time.monotonic_ns()
        return {name: Stamped(np.zeros(s.shape, s.dtype), now) for name, s in self.specs.observation.items()}
    def measured(self):
        return self.position
    def command(self, position):
        self.position = position

ones = np.ones(specs.specs.action.dim)
safety = SafetyFilter(Limits(-ones, ones, ones, 10 * ones, 1000 * ones), Arm.control_rate)
parts = ChunkScheduler(specs), safety, RunConfig(0.3, clock_jump_s=10.0)
with WorkerClient(bundle, WorkerConfig(provider="cpu", warmup=1)) as client:
    run_realtime(Arm(), client, *parts)
result = run_realtime(Arm(), LocalClient(BundlePolicy(bundle, provider="cpu")), *parts)
assert (result.reason, result.scheduler["accepted_chunks"]) == ("duration", 1), result
"""


def loaded_after(statement: str, *arguments: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_runtime_loads_no_engine() -> None:
    assert not loaded_after("import robopolicy.runtime").intersection((*HEAVY, "onnxruntime", "ruckig"))


def test_using_every_name_loads_nothing_heavy() -> None:
    statement = (
        "from robopolicy.runtime import *\nimport robopolicy.runtime.inference.worker\n"
        "from robopolicy.robots import load\nSafetyFilter(load('fr3').limits, 100.0)\n"
        "from robopolicy.runtime.backends.onnxruntime import _engine\n_engine()"
    )
    loaded = loaded_after(statement)
    assert {"onnxruntime", "ruckig", "robopolicy.runtime.control.runner"} <= loaded
    assert not loaded.intersection(HEAVY)


def test_a_run_loads_nothing_heavy(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", image=True)
    loaded = loaded_after(A_RUN, str(bundle.directory))
    assert {"onnxruntime", "ruckig", "robopolicy.runtime.inference.worker_client"} <= loaded
    assert not loaded.intersection(HEAVY)


def test_unknown_names_are_refused() -> None:
    import robopolicy.runtime

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = robopolicy.runtime.no_such_name
