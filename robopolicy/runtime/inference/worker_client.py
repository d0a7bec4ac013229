"""The control loop's side of the inference process: start, ask, watch, stop."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Union

from robopolicy.core.errors import ConfigError, WorkerError
from robopolicy.core.serial import to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.bundle.directory import Bundle
from robopolicy.runtime.inference.channel import READY, Channel, Layout
from robopolicy.runtime.inference.client import Request, Response
from robopolicy.runtime.inference.shared_memory import create
from robopolicy.runtime.inference.watch import Watch
from robopolicy.runtime.inference.worker_process import WorkerProcess
from robopolicy.runtime.remote.layout import REQUEST_TIMEOUT_S
from robopolicy.runtime.reranking.config import RerankConfig

if TYPE_CHECKING:
    from robopolicy.runtime.remote import RemoteEndpoint

#: Where a policy is: in a bundle here, or behind a server, with specs and a digest either way.
Endpoint = Union[Bundle, "RemoteEndpoint"]
_STARTUP_POLL_S = 0.005
_STALE_PERIODS = 0.75  # of the policy; with a tick to see it in, well within one
_BEATS = 6  # within the shortest silence that counts
_PATIENCE = 1.25  # times the time-out of a server, so that this one speaks first


@dataclass(frozen=True)
class WorkerConfig:
    """How the inference process runs.

    Args:
        python: executable of the environment it lives in, which has robopolicy and an inference
            engine; empty means this one.
        threads, provider: see ``OnnxRuntimeBackend``.
        max_candidates: most candidates of one request.
        warmup: inferences on zeros before it reports ready.
        stale_s: without a heartbeat for this long it counts as hung [s]; 0 means three quarters of a
            policy period.
        hang_s: with a request and without progress for this long it counts as hung [s]; 0 means a policy
            period.
        hang_factor: not before this many times the 95th percentile of its inference time; with reranking, nor
            before as many times its deadline and the slowest inference of the warm-up.
        request_timeout_s: longest wait for a server's answer, which is a failed inference then, not a
            hung worker [s]; of no concern to a bundle.
        reranking: how to choose among candidates, with room for as many as it draws; None takes the first.
        critic, critic_digest: folder and digest of a bundle whose critic judges; empty takes that of the
            policy's own bundle.
        nice: added to its niceness, so that it gives way to the control loop.
        startup_s, shutdown_s: longest wait for it to become ready and to end [s].
    """

    python: str = ""
    threads: int = 1
    provider: str = "auto"
    max_candidates: int = 1
    warmup: int = 5
    stale_s: float = 0.0
    hang_s: float = 0.0
    hang_factor: float = 3.0
    request_timeout_s: float = REQUEST_TIMEOUT_S
    reranking: RerankConfig | None = None
    critic: str = ""
    critic_digest: str = ""
    nice: int = 0
    startup_s: float = 60.0
    shutdown_s: float = 2.0

    def __post_init__(self) -> None:
        if min(self.startup_s, self.shutdown_s, self.request_timeout_s) <= 0:
            raise ConfigError("startup_s, shutdown_s and request_timeout_s must be positive [s]")
        if min(self.stale_s, self.hang_s) < 0:
            raise ConfigError(f"stale_s and hang_s must be >= 0 [s], got {self.stale_s}, {self.hang_s}")
        if not self.hang_factor >= 1 or not 0 <= self.nice <= 19:
            raise ConfigError(f"need hang_factor >= 1 and nice 0..19, got {self.hang_factor}, {self.nice}")
        if self.reranking is not None and self.reranking.num_candidates > self.max_candidates:
            raise ConfigError(
                f"reranking draws {self.reranking.num_candidates} candidates, max_candidates is "
                f"{self.max_candidates}"
            )
        if bool(self.critic) != bool(self.critic_digest):  # else a restart could take up another one
            raise ConfigError(f"critic {self.critic!r} and critic_digest {self.critic_digest!r} go together")


class WorkerClient:
    """An ``InferenceClient`` whose policy runs in a process of its own; a context manager.

    Args:
        endpoint: a bundle, whose directory must stay: the worker reads it again, pinned to the same
            digest; or a server, to which the worker connects.
        wait: until it is ready; else ``is_ready`` tells, and nothing may be asked before.
    Raises:
        WorkerError: it does not become ready; quotes the end of its output.
    """

    def __init__(self, endpoint: Endpoint, config: WorkerConfig | None = None, *, wait: bool = True) -> None:
        self._config = config = config or WorkerConfig()
        self._specs = endpoint.policy_specs
        self._asked = 0
        self._ready = False
        period_s = 1 / self._specs.specs.policy_rate
        self._stale_s = config.stale_s or _STALE_PERIODS * period_s
        hang_s = config.hang_s or period_s
        if not isinstance(endpoint, Bundle):
            hang_s = max(hang_s, _PATIENCE * config.request_timeout_s)
        if config.reranking is not None:
            hang_s = max(hang_s, config.hang_factor * config.reranking.deadline_s)
        self._watch = Watch(
            stale_ns=round(self._stale_s * 1e9),
            hang_ns=round(hang_s * 1e9),
            hang_factor=config.hang_factor,
            varies=config.reranking is not None,
        )
        layout = Layout(self._specs, config.max_candidates)
        self._segment = create(layout.size)
        self._channel = Channel(self._segment, layout)
        self._started_ns = time.monotonic_ns()
        try:
            self._process = WorkerProcess(config.python, self._options(endpoint))
        except BaseException:
            self._release()
            raise
        if wait:
            try:
                while not self.is_ready():
                    time.sleep(_STARTUP_POLL_S)
            except BaseException:
                self.close()
                raise

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._specs

    @property
    def max_candidates(self) -> int:
        """Most candidates of one request."""
        return self._config.max_candidates

    @property
    def num_candidates(self) -> int | None:
        """That are chosen among; None where nobody chooses."""
        return None if self._config.reranking is None else self._config.reranking.num_candidates

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it can be asked; WorkerError when it has ended or takes too long to come up."""
        self._ready = self._ready or self._channel.status().state == READY
        if (status := self._process.status) is not None:  # a spare may die long after it was ready
            what = f"ended with status {status}" if self._ready else "ended before it was ready"
            raise WorkerError(self._process.describe(what))
        if self._ready:
            return True
        if time.monotonic_ns() - self._started_ns > self._config.startup_s * 1e9:
            raise WorkerError(self._process.describe(f"was not ready within {self._config.startup_s} s"))
        return False

    def request(self, request: Request) -> int:
        self._channel.send_request(self._asked + 1, request)
        self._asked += 1
        self._process.wake()
        return self._asked

    def poll(self, now_ns: int) -> Response | None:
        if self._process.status is not None:
            raise WorkerError(self._process.describe(f"ended with status {self._process.status}"))
        wrong = self._watch.look(self._channel.status(), self._asked, now_ns)
        if wrong:
            raise WorkerError(self._process.describe(wrong))
        response = self._channel.receive_response()
        if response is not None:
            self._watch.measured(response.inference_ns)
        return response

    def close(self, *, patience_s: float | None = None) -> None:
        """End the worker, by force after ``patience_s`` (``shutdown_s`` unless given), and remove the
        shared memory; may be called twice."""
        self._process.close(self._config.shutdown_s if patience_s is None else patience_s)
        self._release()

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _options(self, endpoint: Endpoint) -> dict[str, object]:
        config = self._config
        if isinstance(endpoint, Bundle):
            where: dict[str, object] = {"bundle": endpoint.directory.resolve()}
        else:
            where = {"connect": endpoint.url}
        if config.reranking is not None:
            where["reranking"] = json.dumps(to_tree(config.reranking))
            where.update({"critic": config.critic, "critic-digest": config.critic_digest})
        return {
            **where,
            "digest": endpoint.digest,
            "segment": self._segment.name,
            "layout": self._channel.layout.fingerprint,
            "max-candidates": config.max_candidates,
            "threads": config.threads,
            "provider": config.provider,
            "warmup": config.warmup,
            "nice": config.nice,
            "request-timeout-s": config.request_timeout_s,
            "heartbeat-s": self._stale_s / _BEATS,
        }

    def _release(self) -> None:
        self._segment.close()
        with contextlib.suppress(FileNotFoundError):  # closed before
            self._segment.unlink()
