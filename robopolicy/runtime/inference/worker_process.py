"""The operating system's side of an inference process: command line, pipes, output, end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import IO

from robopolicy.core.errors import WorkerError

_TAIL_BYTES = 2000
_KILLED_S = 5.0  # a killed process may still be held by a driver that hangs


class WorkerProcess:
    """``python -m robopolicy.runtime.inference.worker``, woken and ended through its standard input.

    Args:
        python: executable; empty means this one, with the same import path.
        options: of the command line, without dashes.
    Raises:
        WorkerError: there is no such executable.
    """

    def __init__(self, python: str, options: Mapping[str, object]) -> None:
        command = [python or sys.executable, "-m", "robopolicy.runtime.inference.worker"]
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        environment = dict(os.environ)
        if not python:  # the same interpreter finds the same packages, installed or not
            environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            self._output.close()
            raise WorkerError(f"cannot start {command[0]!r}: {error}") from error
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        os.set_blocking(self._stdin.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wake(self) -> None:
        """Say that there is a request; WorkerError when it has ended."""
        try:
            self._stdin.write(b"\n")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already
        except BrokenPipeError as error:
            raise WorkerError(self.describe("ended")) from error

    def describe(self, what: str) -> str:
        """What happened to it, and the end of what it printed."""
        output = self._output.fileno()  # pread: the worker shares the file's position
        start = max(os.fstat(output).st_size - _TAIL_BYTES, 0)
        tail = os.pread(output, _TAIL_BYTES, start).decode(errors="replace").strip()
        quoted = f"; its last output:\n{tail}" if tail else ""
        return f"inference worker {self.pid} {what}{quoted}"

    def close(self, patience_s: float) -> None:
        """End it, by force after ``patience_s`` [s]; may be called twice."""
        if not self._stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._stdin.close()  # the worker takes this as its end
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILLED_S)
        self._output.close()
