"""An inference worker that is started again when it is lost, without holding up the control loop."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from robopolicy.core.errors import ConfigError, RobopolicyError, WorkerError
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.inference.client import Request, Response, WorkerRestartError
from robopolicy.runtime.inference.worker_client import Endpoint, WorkerClient, WorkerConfig

_STARTUP_POLL_S = 0.005
#: Starts a worker and returns before it is ready.
Start = Callable[[], WorkerClient]


@dataclass(frozen=True)
class RestartConfig:
    """How often a lost worker is replaced.

    Args:
        max_restarts: within ``within_s``; one more loss is a fault. 0: every loss is one.
        within_s: window in which restarts count [s].
        settle_s: before the new process is started [s]. Starting one can hold up a busy machine's loop by
            some milliseconds, and by then the arm is at rest.
        spare: keep a second worker waiting, which takes over when the other is lost; else the run waits for
            the engine to load its graphs, seconds for a large unrolled one. It costs its memory.
    """

    max_restarts: int = 0
    within_s: float = 60.0
    settle_s: float = 0.5
    spare: bool = False

    def __post_init__(self) -> None:
        if self.max_restarts < 0 or not self.within_s > 0 or self.settle_s < 0:
            raise ConfigError(
                f"need max_restarts >= 0, within_s > 0 and settle_s >= 0, got {self.max_restarts}, "
                f"{self.within_s} and {self.settle_s}"
            )


class SupervisedClient:
    """An ``InferenceClient`` over a worker and its successors; a context manager.

    A worker that is lost is ended by force and replaced from a thread, since starting a process takes
    longer than a tick. A successor that does not come up, because the bundle was altered say, is a fault.

    Args:
        endpoint, config: see ``WorkerClient``.
        start: makes a worker; for tests.
    Raises:
        WorkerError: the first one does not become ready.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        config: WorkerConfig | None = None,
        restarts: RestartConfig | None = None,
        *,
        start: Start | None = None,
    ) -> None:
        self._specs = endpoint.policy_specs
        self._config = restarts or RestartConfig()
        worker = config or WorkerConfig()
        self._max_candidates, self._reranking = worker.max_candidates, worker.reranking
        self._start: Start = start or (lambda: WorkerClient(endpoint, worker, wait=False))
        self._patience_s = worker.startup_s + worker.shutdown_s  # of a restart, whatever it waits for
        self._client: WorkerClient | None = self._start()
        self._spare: WorkerClient | None = None
        self._dead: WorkerClient | None = None  # lost, and not cleared away yet
        self._thread: threading.Thread | None = None
        self._started: WorkerClient | RobopolicyError | None = None  # what the thread made
        self._lost = ""
        self._asked = self._before = 0  # ids go on counting over restarts
        self._restarted_ns: deque[int] = deque()
        self._now_ns = self._begun_ns = 0
        self.restarts = 0
        try:
            _wait(self._client)
            if self._config.spare and self._config.max_restarts:
                self._spare = self._start()
                _wait(self._spare)
        except BaseException:
            self.close()
            raise

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._specs

    @property
    def max_candidates(self) -> int:
        """Most candidates of one request."""
        return self._max_candidates

    @property
    def num_candidates(self) -> int | None:
        """That are chosen among; None where nobody chooses."""
        return None if self._reranking is None else self._reranking.num_candidates

    @property
    def pid(self) -> int:
        """Process id of the worker; 0 while there is none."""
        return self._client.pid if self._client is not None else 0

    def request(self, request: Request) -> int:
        if self._client is None:
            raise WorkerRestartError(f"{self._lost}; its successor is not ready")
        try:
            self._asked = self._before + self._client.request(request)
        except WorkerError as error:
            raise self._lose(error) from error
        return self._asked

    def poll(self, now_ns: int) -> Response | None:
        self._now_ns = now_ns
        if self._client is None:
            self._client = self._successor()
        try:
            response = self._client.poll(now_ns)
        except WorkerError as error:
            raise self._lose(error) from error
        return response and _renumbered(response, self._before)

    def close(self) -> None:
        """End whatever runs; may be called twice."""
        if self._thread is not None:
            self._thread.join(self._patience_s)
        for client in (self._client, self._started, self._spare, self._dead):
            if client is not None and not isinstance(client, RobopolicyError):
                client.close()

    def __enter__(self) -> SupervisedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lose(self, error: WorkerError) -> WorkerError:
        """Begin a restart, or give the fault that says why not."""
        window, config = self._restarted_ns, self._config
        while window and self._now_ns - window[0] > config.within_s * 1e9:
            window.popleft()
        if len(window) >= config.max_restarts:
            if config.max_restarts == 0:
                return error
            return WorkerError(f"{error}; {len(window)} restarts in {config.within_s:g} s are the limit")
        window.append(self._now_ns)
        self.restarts += 1
        self._lost, self._before = str(error), self._asked
        self._dead, self._client, self._started, self._thread = self._client, None, None, None
        return WorkerRestartError(self._lost)

    def _begin(self) -> None:
        self._begun_ns = self._now_ns
        thread = threading.Thread(target=self._replace, name="restart", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            self._started = _as_ours(error)
        else:
            self._thread = thread

    def _replace(self) -> None:
        try:
            if self._dead is not None:
                self._dead.close(patience_s=0.0)
            self._spare = self._living_spare() or self._start()
            self._spare, self._started = self._start() if self._config.spare else None, self._spare
        except Exception as error:  # no shared memory, no processes, no memory: never a wait without end
            self._started = _as_ours(error)

    def _living_spare(self) -> WorkerClient | None:
        """The spare, unless it has died while it waited."""
        if self._spare is not None:
            try:
                self._spare.is_ready()
            except WorkerError:
                self._spare.close(patience_s=0.0)
                self._spare = None
        return self._spare

    def _successor(self) -> WorkerClient:
        if self._thread is None and self._now_ns - self._restarted_ns[-1] >= self._config.settle_s * 1e9:
            self._begin()
        started = self._started
        if isinstance(started, RobopolicyError):
            raise WorkerError(f"{self._lost}; it could not be started again: {started}") from started
        try:
            if started is None or not started.is_ready():
                if self._thread is not None and self._now_ns - self._begun_ns > self._patience_s * 1e9:
                    raise WorkerError(f"it takes longer than {self._patience_s:g} s")
                raise WorkerRestartError(self._lost)
        except WorkerRestartError:
            raise
        except WorkerError as error:
            raise WorkerError(f"{self._lost}; it could not be started again: {error}") from error
        return started


def _as_ours(error: Exception) -> RobopolicyError:
    return error if isinstance(error, RobopolicyError) else WorkerError(f"{type(error).__name__}: {error}")


def _wait(client: WorkerClient) -> None:
    while not client.is_ready():
        time.sleep(_STARTUP_POLL_S)


def _renumbered(response: Response, before: int) -> Response:
    if not before:
        return response
    return dataclasses.replace(response, request_id=response.request_id + before)
