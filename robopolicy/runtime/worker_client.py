"""The control loop's side of the inference process: start, ask, watch, stop."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from robopolicy.core.errors import ConfigError, WorkerError
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.bundle import Bundle
from robopolicy.runtime.channel import READY, Channel, Layout
from robopolicy.runtime.client import Request, Response
from robopolicy.runtime.shared_memory import create

_TAIL_BYTES = 2000
_STARTUP_POLL_S = 0.005


@dataclass(frozen=True)
class WorkerConfig:
    """How the inference process runs.

    Args:
        python: executable of the environment it lives in, which has robopolicy and an inference
            engine; empty means this one.
        threads, provider: see ``OnnxRuntimeBackend``.
        max_candidates: most candidates of one request.
        warmup: inferences on zeros before it reports ready.
        stale_s: without a heartbeat for this long it counts as hung; above the slowest inference [s].
        startup_s, shutdown_s: longest wait for it to become ready and to end [s].
    """

    python: str = ""
    threads: int = 1
    provider: str = "auto"
    max_candidates: int = 1
    warmup: int = 5
    stale_s: float = 0.5
    startup_s: float = 60.0
    shutdown_s: float = 2.0

    def __post_init__(self) -> None:
        if min(self.stale_s, self.startup_s, self.shutdown_s) <= 0:
            raise ConfigError("stale_s, startup_s and shutdown_s must be positive [s]")


class WorkerClient:
    """An ``InferenceClient`` whose policy runs in a process of its own; a context manager.

    Args:
        bundle: its directory must stay; the worker reads it again, pinned to the same digest.
    Raises:
        WorkerError: it does not become ready; quotes the end of its output.
    """

    def __init__(self, bundle: Bundle, config: WorkerConfig | None = None) -> None:
        self._config = config or WorkerConfig()
        self._specs = bundle.policy_specs
        self._next_id = 1
        self._beat = (0, 0)  # count, and when it was first seen [ns]
        layout = Layout(self._specs, self._config.max_candidates)
        self._segment = create(layout.size)
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        try:
            self._channel = Channel(self._segment, layout)
            self._process = self._spawn(bundle)
        except BaseException:
            self._release()
            raise
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._specs

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def request(self, request: Request) -> int:
        request_id = self._next_id
        self._next_id += 1
        self._channel.send_request(request_id, request)
        self._wake()
        return request_id

    def poll(self, now_ns: int) -> Response | None:
        self._check(now_ns)
        return self._channel.receive_response()

    def close(self) -> None:
        """End the worker and remove the shared memory; may be called twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()  # the worker takes this as its end
        try:
            self._process.wait(self._config.shutdown_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._release()

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spawn(self, bundle: Bundle) -> subprocess.Popen[bytes]:
        config = self._config
        command = [config.python or sys.executable, "-m", "robopolicy.runtime.worker"]
        options = {
            "bundle": bundle.directory.resolve(),
            "digest": bundle.digest,
            "segment": self._segment.name,
            "layout": self._channel.layout.fingerprint,
            "max-candidates": config.max_candidates,
            "threads": config.threads,
            "provider": config.provider,
            "warmup": config.warmup,
        }
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        environment = dict(os.environ)
        if not config.python:  # the same interpreter finds the same packages, installed or not
            environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            raise WorkerError(f"cannot start {command[0]!r}: {error}") from error
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _wake(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already
        except BrokenPipeError as error:
            raise WorkerError(self._describe("ended")) from error

    def _wait_until_ready(self) -> None:
        started_ns = time.monotonic_ns()
        while self._channel.heartbeat()[1] != READY:
            if self._process.poll() is not None:
                raise WorkerError(self._describe("ended before it was ready"))
            if time.monotonic_ns() - started_ns > self._config.startup_s * 1e9:
                raise WorkerError(self._describe(f"was not ready within {self._config.startup_s} s"))
            time.sleep(_STARTUP_POLL_S)

    def _check(self, now_ns: int) -> None:
        if self._process.poll() is not None:
            raise WorkerError(self._describe(f"ended with status {self._process.returncode}"))
        count, _ = self._channel.heartbeat()
        if count not in (self._beat[0], -1) or self._beat[1] == 0:
            self._beat = (count, now_ns)
        elif now_ns - self._beat[1] > self._config.stale_s * 1e9:
            age_s = (now_ns - self._beat[1]) * 1e-9
            raise WorkerError(self._describe(f"hangs: no heartbeat for {age_s:.3f} s"))

    def _describe(self, what: str) -> str:
        output = self._output.fileno()  # pread: the worker shares the file's position
        start = max(os.fstat(output).st_size - _TAIL_BYTES, 0)
        tail = os.pread(output, _TAIL_BYTES, start).decode(errors="replace").strip()
        quoted = f"; its last output:\n{tail}" if tail else ""
        return f"inference worker {self._process.pid} {what}{quoted}"

    def _release(self) -> None:
        self._output.close()
        self._segment.close()
        with contextlib.suppress(FileNotFoundError):  # closed before
            self._segment.unlink()
