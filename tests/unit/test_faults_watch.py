"""When a worker counts as lost, and that its successor takes over; no process is started."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np
import pytest
from test_runtime_support import tiny_specs, tiny_window

from robopolicy.core.errors import ConfigError, WorkerError
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime import Request, Response, WorkerConfig
from robopolicy.runtime.inference.channel import READY, Status
from robopolicy.runtime.inference.client import WorkerRestartError
from robopolicy.runtime.inference.supervisor import RestartConfig, SupervisedClient
from robopolicy.runtime.inference.watch import Watch

MS = 1_000_000


def looks(
    watch: Watch, status: Callable[[int], Status], asked: int, until_ms: int, every_ms: int = 10
) -> tuple[int, str]:
    """(milliseconds until something is wrong, what), or (-1, "")."""
    for now_ms in range(0, until_ms, every_ms):
        wrong = watch.look(status(now_ms), asked, now_ms * MS)
        if wrong:
            return now_ms, wrong
    return -1, ""


def watch(**changes: float) -> Watch:
    return Watch(**{"stale_ns": 75 * MS, "hang_ns": 100 * MS, "hang_factor": 3.0, **changes})  # type: ignore[arg-type]


def test_a_beating_worker_is_well_idle_or_busy_for_less_than_its_time() -> None:
    assert looks(watch(), lambda now: Status(now, READY, 0, 0, 0), 0, 5000) == (-1, "")
    assert looks(watch(), lambda now: Status(now, READY, now // 90, 0, 0), 1, 5000) == (-1, "")


def test_a_stopped_process_is_seen_within_a_policy_period() -> None:
    when, what = looks(watch(), lambda now: Status(min(now, 300), READY, 0, 0, 0), 0, 5000)
    assert when - 300 <= 100 and what == "hangs: no heartbeat for 0.080 s"


@pytest.mark.parametrize("progress", [6, 7])  # never begun, and never finished
def test_a_request_without_progress_is_a_hang_though_the_heart_beats(progress: int) -> None:
    when, what = looks(watch(), lambda now: Status(now, READY, progress, 3, 0), 4, 5000)
    assert when == 100 and what.startswith("hangs: request 4 got no further for 0.100 s, more than 0.100 s")


def test_a_slow_policy_gets_a_multiple_of_what_it_was_measured_to_take() -> None:
    slow = watch()
    assert slow.hang_ns == 100 * MS
    for _ in range(20):
        slow.measured(200 * MS)
    assert slow.hang_ns == 600 * MS
    warm = watch()
    warm.look(Status(1, READY, 1, 0, 150 * MS), 1, 0)
    assert warm.hang_ns == 450 * MS


def test_where_calls_vary_the_slowest_of_the_warm_up_is_never_forgotten() -> None:
    for varies, hang_ms in ((True, 450), (False, 100)):
        warm = watch(varies=varies)
        warm.look(Status(1, READY, 1, 0, 150 * MS), 1, 0)
        for _ in range(60):
            warm.measured(5 * MS)  # one candidate, while time was short
        assert warm.hang_ns == hang_ms * MS


def test_time_in_which_nobody_looked_does_not_count() -> None:
    w = watch()
    w.look(Status(5, READY, 1, 0, 0), 1, 0)
    assert w.look(Status(5, READY, 1, 0, 0), 1, 3_600_000 * MS) == ""  # the machine slept
    assert w.look(Status(6, READY, 2, 1, 0), 1, 3_600_010 * MS) == ""
    # A loop as slow as the policy still notices within two periods.
    when, _ = looks(watch(), lambda now: Status(0, READY, 0, 0, 0), 0, 5000, every_ms=100)
    assert when == 200
    assert w.look(Status(6, READY, 2, 1, 0), 1, 0) == ""  # a clock that goes back


class FakeWorker:
    """Ready, dead or unable to start, as it is told."""

    def __init__(self, error: str = "") -> None:
        self.ready, self.error = True, error
        self.dead = self.closed = False
        self.asked = 0
        self.patience: float | None = None
        self.pid = 7

    def is_ready(self) -> bool:
        if self.error:
            raise WorkerError(self.error)
        return self.ready

    def request(self, request: Request) -> int:
        if self.dead:
            raise WorkerError("the pipe is broken")
        self.asked += 1
        return self.asked

    def poll(self, now_ns: int) -> Response | None:
        if self.dead:
            raise WorkerError("inference worker 7 ended with status -9")
        return Response(self.asked, 5, None, 1, "an error") if self.asked else None

    def close(self, *, patience_s: float | None = None) -> None:
        self.closed, self.patience = True, patience_s


class Endpoint:
    directory = digest = ""

    @property
    def policy_specs(self) -> PolicySpecs:
        return tiny_specs()


def supervised(workers: list[FakeWorker], **config: float) -> SupervisedClient:
    following = iter(workers)
    return SupervisedClient(
        Endpoint(),  # type: ignore[arg-type]
        WorkerConfig(),
        RestartConfig(**{"settle_s": 0.0, **config}),  # type: ignore[arg-type]
        start=lambda: next(following),  # type: ignore[arg-type, return-value]
    )


def join(client: SupervisedClient, now_ns: int = 20 * MS) -> None:
    with contextlib.suppress(WorkerError):
        client.poll(now_ns)  # this begins the start
    assert client._thread is not None
    client._thread.join()


def a_request() -> Request:
    return Request(tiny_window(tiny_specs(), np.random.default_rng(0)), 5, (0, 0, 0))


def test_a_lost_worker_is_a_fault_at_once_unless_restarts_are_allowed() -> None:
    worker = FakeWorker()
    client = supervised([worker])
    worker.dead = True
    with pytest.raises(WorkerError, match="status -9") as caught:
        client.poll(0)
    assert not isinstance(caught.value, WorkerRestartError) and client.restarts == 0


def test_a_successor_takes_over_and_answers_count_on() -> None:
    first, second = FakeWorker(), FakeWorker()
    second.ready = False
    client = supervised([first, second], max_restarts=1)
    assert client.request(a_request()) == 1 and client.request(a_request()) == 2
    first.dead = True
    with pytest.raises(WorkerRestartError, match="status -9"):
        client.poll(10 * MS)
    join(client)
    assert first.closed and first.patience == 0.0 and client.restarts == 1 and client.pid == 0
    with pytest.raises(WorkerRestartError):
        client.request(a_request())
    for _ in range(2):
        with pytest.raises(WorkerRestartError, match="status -9"):
            client.poll(20 * MS)
    second.ready = True
    assert client.poll(30 * MS) is None and client.pid == 7
    assert client.request(a_request()) == 3
    response = client.poll(40 * MS)
    assert response is not None and response.request_id == 3
    client.close()
    assert second.closed


def test_more_losses_than_allowed_are_a_fault_and_old_ones_are_forgotten() -> None:
    workers = [FakeWorker() for _ in range(5)]
    client = supervised(workers, max_restarts=2, within_s=10.0)

    def lose(at_s: float) -> None:
        workers[client.restarts].dead = True
        client.poll(round(at_s * 1e9))

    for at_s in (0.0, 9.0, 15.0):
        with pytest.raises(WorkerRestartError):
            lose(at_s)
        join(client, round(at_s * 1e9))
        client.poll(round(at_s * 1e9) + 1)
    with pytest.raises(WorkerError, match=r"2 restarts in 10 s are the limit") as caught:
        lose(16.0)
    assert not isinstance(caught.value, WorkerRestartError)


def test_a_successor_that_does_not_come_up_is_a_fault_that_says_why() -> None:
    first = FakeWorker()
    client = supervised(
        [first, FakeWorker(error="manifest.json has digest 12, but 34 was asked for")], max_restarts=3
    )
    first.dead = True
    with pytest.raises(WorkerRestartError):
        client.request(a_request())
    join(client)
    with pytest.raises(WorkerError, match=r"pipe is broken; it could not be started again: .* digest 12"):
        client.poll(0)


def test_a_spare_takes_over_and_is_replaced() -> None:
    first, spare, third = (FakeWorker() for _ in range(3))
    third.ready = False
    client = supervised([first, spare, third], max_restarts=2, spare=True)
    first.dead = True
    with pytest.raises(WorkerRestartError):
        client.poll(0)
    join(client)
    client.poll(30 * MS)
    assert client._client is spare and client._spare is third
    assert client.request(a_request()) == 1 and spare.asked == 1
    client.close()
    assert first.closed and spare.closed and third.closed


def test_starting_does_not_hold_up_the_loop() -> None:
    first, ready = FakeWorker(), False

    def start() -> FakeWorker:
        while not ready:
            time.sleep(0.001)
        return FakeWorker()

    following = iter([lambda: first, start])
    client = SupervisedClient(
        Endpoint(),  # type: ignore[arg-type]
        None,
        RestartConfig(1, settle_s=0.2),
        start=lambda: next(following)(),  # type: ignore[arg-type, return-value]
    )
    first.dead = True
    for now_ms in range(0, 400, 10):  # each returns at once, or this test would never end
        with pytest.raises(WorkerRestartError):
            client.poll(now_ms * MS)
        assert (client._thread is not None) == (now_ms >= 200)  # by then the arm is at rest
    ready = True
    join(client)
    client.poll(400 * MS)


def test_bad_values_are_refused() -> None:
    for bad in ({"max_restarts": -1}, {"within_s": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            RestartConfig(**bad)  # type: ignore[arg-type]
    for bad in ({"stale_s": -1.0}, {"hang_factor": 0.5}, {"nice": 20}, {"request_timeout_s": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            WorkerConfig(**bad)  # type: ignore[arg-type]
