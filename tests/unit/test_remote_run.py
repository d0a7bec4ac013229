"""A control loop whose policy is behind a server, by the real clock: the server goes, the arm brakes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_remote_support import DIGEST
from test_runtime_runner import LIMITS, SPECS, FakePlant, FakeTime

from robopolicy.runtime import (
    ChunkScheduler,
    RunConfig,
    RunResult,
    SafetyFilter,
    WorkerClient,
    WorkerConfig,
    run_realtime,
)
from robopolicy.runtime.remote import connect

ROOT = Path(__file__).parents[2]
SERVER = """
import asyncio, sys
sys.path.insert(0, {folder!r})
from test_remote_support import DIGEST
from test_runtime_runner import Ramp
from robopolicy.runtime.remote import PolicyServer
server = PolicyServer(Ramp(), digest=DIGEST)
asyncio.run(server.run(asyncio.Event(), lambda url: print(url, flush=True)))
"""


class Now(FakeTime):
    """The machine's clock, where others have one to turn."""

    @property
    def now_ns(self) -> int:  # type: ignore[override]
        return time.monotonic_ns()

    @now_ns.setter
    def now_ns(self, value: int) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    code = SERVER.format(folder=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def drive(client: WorkerClient, plant: FakePlant, seconds: float, stop: object) -> RunResult:
    safety = SafetyFilter(LIMITS, plant.control_rate)
    result = run_realtime(
        plant,
        client,
        ChunkScheduler(SPECS),
        safety,
        RunConfig(seconds, max_failures=3, clock_jump_s=10.0),
        on_tick=stop,  # type: ignore[arg-type]
    )
    assert safety.at_rest
    return result


def test_run_over_a_server_and_brake_when_it_is_killed(server: tuple[subprocess.Popen[str], str]) -> None:
    process, url = server
    plant = FakePlant(Now())
    endpoint = connect(url)
    assert endpoint.digest == DIGEST
    with WorkerClient(endpoint, WorkerConfig(request_timeout_s=2.0, warmup=1)) as client:
        assert client.policy_specs == SPECS
        whole = drive(client, plant, 1.0, None)
        assert whole.reason == "duration" and not whole.fault and len(whole.inference_ns) > 1
        assert plant.position[0] > 0.2  # it moved on

        def on_tick(tick: int, deadline_ns: int, command: np.ndarray) -> None:
            if tick == 60:
                process.kill()

        lost = drive(client, plant, 60.0, on_tick)
        assert lost.faults == {"worker": 1} and "lost the server" in lost.reason  # none was waited for
        assert lost.fault and url in lost.reason and lost.ticks < 3000
        assert np.abs(np.diff(lost.commands[-3:], axis=0)).max() < 1e-6  # it stands
