"""Faults of real processes: killed, stopped, hung, out of memory, terminated, bundle replaced.

Nothing is asserted of the wall clock but generous time-outs; the bounds are held in test_faults_reaction and
test_faults_watch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from test_runtime_support import tiny_specs, tiny_window, write_tiny_bundle
from test_runtime_worker import segments, wait_for

from robopolicy.core.errors import WorkerError
from robopolicy.core.plant import Stamped
from robopolicy.core.robot import Limits
from robopolicy.runtime import (
    Bundle,
    ChunkScheduler,
    Request,
    RunConfig,
    RunResult,
    SafetyFilter,
    WorkerClient,
    WorkerConfig,
    run_realtime,
)
from robopolicy.runtime.control.realtime import USUAL
from robopolicy.runtime.inference.supervisor import RestartConfig, SupervisedClient

ROOT = Path(__file__).parents[2]
#: A busy machine must not be taken for a hung worker, except where that is what is tested.
PATIENT = WorkerConfig(provider="cpu", warmup=1, stale_s=5.0, hang_s=5.0)
LIMITS = Limits(-np.ones(3), np.ones(3), np.ones(3), 10 * np.ones(3), 1000 * np.ones(3))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not segments()


class Arm:
    """Goes where it is told at once."""

    specs, control_rate = tiny_specs().specs, 100.0

    def __init__(self) -> None:
        self.position = np.zeros(3)

    def observe(self) -> dict[str, Stamped]:
        now_ns = time.monotonic_ns()
        return {
            name: Stamped(np.zeros(spec.shape, spec.dtype), now_ns)
            for name, spec in self.specs.observation.items()
        }

    def measured(self) -> np.ndarray:
        return self.position.copy()

    def command(self, position: np.ndarray) -> None:
        self.position = position


def run(
    client: WorkerClient | SupervisedClient,
    happens: Callable[[], object],
    *,
    duration_s: float = 30.0,
    until: Callable[[], str | None] = lambda: None,
) -> RunResult:
    """``happens`` after half a second."""
    specs = client.policy_specs

    def on_tick(tick: int, deadline_ns: int, command: np.ndarray) -> str | None:
        if tick >= 50 and not done:
            done.append(happens())
        return until() if done else None

    done: list[object] = []
    config = RunConfig(duration_s, realtime=USUAL, clock_jump_s=10.0)
    parts = ChunkScheduler(specs), SafetyFilter(LIMITS, 100.0), config
    return run_realtime(Arm(), client, *parts, on_tick=on_tick)


def request(window: dict[str, np.ndarray]) -> Request:
    return Request(window, 5, (0, 0, 0))


def python_that(tmp_path: Path, prepares: str) -> str:
    """An interpreter for ``WorkerConfig.python`` that does something before it runs the worker."""
    script = tmp_path / "prepares.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {[str(ROOT), *sys.path]!r}\n"
        "import robopolicy.runtime.inference.worker as worker\n"
        f"{textwrap.dedent(prepares)}\nsys.exit(worker.main(sys.argv[3:]))\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_a_killed_worker_ends_the_run(bundle: Bundle) -> None:
    with WorkerClient(bundle, PATIENT) as client:
        result = run(client, lambda: os.kill(client.pid, signal.SIGKILL))
    assert result.fault and "ended with status -9" in result.reason and result.faults == {"worker": 1}
    assert result.ticks < 200


def test_a_stopped_worker_ends_the_run(bundle: Bundle) -> None:
    with WorkerClient(bundle, WorkerConfig(provider="cpu", warmup=1, stale_s=0.2, hang_s=9.0)) as client:
        result = run(client, lambda: os.kill(client.pid, signal.SIGSTOP))
        assert result.fault and "hangs: no heartbeat for 0.2" in result.reason
        pid = client.pid
    with pytest.raises(ProcessLookupError):  # close ended it all the same
        os.kill(pid, 0)


def test_a_hung_inference_is_told_from_a_stopped_process(bundle: Bundle, tmp_path: Path) -> None:
    hangs = """
        import time
        class Hangs(worker.BundlePolicy):
            def sample(self, observation, noise, context=None):
                if observation["joints"].any():
                    time.sleep(60.0)
                return super().sample(observation, noise)
        worker.BundlePolicy = Hangs
    """
    config = WorkerConfig(
        python=python_that(tmp_path, hangs), warmup=1, stale_s=2.0, hang_s=0.3, shutdown_s=0.1
    )
    with WorkerClient(bundle, config) as client:
        window = tiny_window(bundle.policy_specs, np.random.default_rng(0))
        wait_for(client, client.request(request({name: 0 * value for name, value in window.items()})))
        asked = client.request(request(window))
        with pytest.raises(WorkerError, match=r"hangs: request 2 got no further for 0\.\d* s, more than"):
            wait_for(client, asked)


def test_the_heart_beats_while_the_worker_computes(bundle: Bundle, tmp_path: Path) -> None:
    busy = """
        class Busy(worker.BundlePolicy):
            def sample(self, observation, noise, context=None):
                if observation["joints"].any():
                    for _ in range(20_000_000):  # holds the interpreter for as long as it may
                        pass
                return super().sample(observation, noise)
        worker.BundlePolicy = Busy
    """
    config = WorkerConfig(python=python_that(tmp_path, busy), warmup=1, stale_s=0.6, hang_s=60.0)
    with WorkerClient(bundle, config) as client:
        asked = client.request(request(tiny_window(bundle.policy_specs, np.random.default_rng(0))))
        beats = set()
        while (response := client.poll(time.monotonic_ns())) is None:
            beats.add(client._channel.status().heartbeat)
            time.sleep(0.005)
        assert response.request_id == asked and response.inference_ns > 0.2e9 and len(beats) >= 2


def test_a_lost_worker_is_replaced_and_the_run_goes_on_from_rest(bundle: Bundle) -> None:
    with SupervisedClient(bundle, PATIENT, RestartConfig(1)) as client:
        first = client.pid
        pids = []

        def until() -> str | None:
            pids.append(client.pid)
            return "back" if client.pid not in (0, first) and len(pids) > 30 else None

        result = run(client, lambda: os.kill(first, signal.SIGKILL), until=until)
    assert (result.reason, result.fault, result.restarts) == ("back", False, 1)
    assert result.faults == {"worker": 1} and "status -9" in result.failed_inferences[0]
    waiting = [tick for tick, pid in enumerate(pids) if pid == 0]
    assert waiting  # ticks went on meanwhile
    assert result.interventions["brake"] >= len(waiting) - 1
    velocity = np.abs(np.diff(result.commands, axis=0)).max(axis=1)
    assert (velocity[51 + 40 : 51 + len(waiting)] == 0).all()  # at rest


def test_a_bundle_replaced_while_running_is_of_no_effect_until_a_restart_refuses_it(
    bundle: Bundle, tmp_path: Path
) -> None:
    other = write_tiny_bundle(tmp_path / "other", image=False)
    (other.directory / "manifest.json").write_text((other.directory / "manifest.json").read_text() + "\n")
    with SupervisedClient(bundle, PATIENT, RestartConfig(3)) as client:

        def replace() -> None:
            shutil.rmtree(bundle.directory)
            shutil.copytree(other.directory, bundle.directory)

        assert run(client, replace, duration_s=1.5).reason == "duration"
        result = run(client, lambda: os.kill(client.pid, signal.SIGKILL))
    assert result.fault and "could not be started again" in result.reason
    assert bundle.digest in result.reason and result.restarts == 1


def test_no_memory_in_the_worker_is_an_answer_or_its_death(bundle: Bundle, tmp_path: Path) -> None:
    """Python's MemoryError is answered; where the engine or the kernel give up, the death is noticed."""
    hungry = """
        import resource
        import numpy
        class Hungry(worker.BundlePolicy):
            def sample(self, observation, noise, context=None):
                if observation["joints"].any():
                    room = int(open("/proc/self/statm").read().split()[0]) * 4096 + (64 << 20)
                    resource.setrlimit(resource.RLIMIT_AS, (room, room))
                    numpy.ones(64 << 20)
                return super().sample(observation, noise)
        worker.BundlePolicy = Hungry
    """
    config = WorkerConfig(python=python_that(tmp_path, hungry), warmup=1, stale_s=5.0, hang_s=5.0)
    with WorkerClient(bundle, config) as client:
        window = tiny_window(bundle.policy_specs, np.random.default_rng(0))
        response = wait_for(client, client.request(request(window)))
        assert response.candidates is None and "MemoryError: Unable to allocate 512. MiB" in response.error
        os.kill(client.pid, signal.SIGKILL)  # what the kernel's killer sends
        with pytest.raises(WorkerError, match="ended with status -9"):
            wait_for(client, -1)


def test_sigterm_brakes_to_rest_and_leaves_nothing(bundle: Bundle) -> None:
    script = f"""
        import os, signal, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}]
        import test_faults_processes as t
        from robopolicy.runtime import WorkerClient, load_bundle
        with WorkerClient(load_bundle({str(bundle.directory)!r}), t.PATIENT) as client:
            result = t.run(client, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert (result.commands[-1] == result.commands[-2]).all()
        print(result.reason, result.fault, client._process.status, signal.getsignal(signal.SIGTERM).name)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("terminated False 0 SIG_DFL\n", "")
