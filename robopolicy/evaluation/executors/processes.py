"""Environments in processes of this machine. A process that dies is replaced; its episodes start again."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from robopolicy.core.errors import RobopolicyError, WorkerError
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.executors import Lost
from robopolicy.evaluation.hosting import Answer, EnvHost, Finished, Request

_CLOSE_SECONDS = 10.0  # for a worker to close its environments before it is killed


@dataclass(frozen=True)
class _Failure:
    """An exception in a worker, as text: exceptions do not all survive pickling."""

    message: str


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    asked: set[int] = field(default_factory=set)  # slots with a request under way
    playing: set[int] = field(default_factory=set)  # slots with an episode, lost if the process dies


class ProcessExecutor:
    """Slot s lives in worker s modulo their number.

    Processes are spawned, not forked: the caller may hold threads, OpenGL contexts and torch.
    """

    def __init__(self, make: Callable[[], Any], specs: PolicySpecs, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._make, self._specs = make, specs
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._start())
        except BaseException:
            self.close()
            raise

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._make, self._specs), name="robopolicy-environments", daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def send(self, request: Request) -> None:
        worker = self._workers[request.slot % len(self._workers)]
        worker.asked.add(request.slot)
        worker.playing.add(request.slot)
        with contextlib.suppress(OSError):  # it has died: ``receive`` finds out and reports every episode
            worker.pipe.send(request)

    def receive(self) -> list[Answer | Lost]:
        """As ``Executor.receive``.

        Raises:
            WorkerError: an environment raised; the message is its error's.
        """
        by_pipe = {worker.pipe: place for place, worker in enumerate(self._workers) if worker.asked}
        answers: list[Answer | Lost] = []
        for pipe in wait(list(by_pipe)):
            place = by_pipe[pipe]  # type: ignore[index]
            worker = self._workers[place]
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                answers.append(self._replace(place))
                continue
            if isinstance(answer, _Failure):
                raise WorkerError(answer.message)
            worker.asked.discard(answer.slot)
            if isinstance(answer, Finished):
                worker.playing.discard(answer.slot)
            answers.append(answer)
        return answers

    def _replace(self, place: int) -> Lost:
        worker = self._workers[place]
        worker.process.join()
        worker.pipe.close()
        self._workers[place] = self._start()
        reason = f"an environment process ended with code {worker.process.exitcode}"
        return Lost(tuple(sorted(worker.playing)), reason)

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # a worker ends when nobody can ask it anything
        for worker in self._workers:
            worker.process.join(_CLOSE_SECONDS)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def _serve(pipe: Connection, make: Callable[[], Any], specs: PolicySpecs) -> None:
    """The life of a worker: answer requests until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to handle
    host = EnvHost(make, specs)
    try:
        while True:
            try:
                request = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                answer: Any = host.handle(request)
            except RobopolicyError as error:
                answer = _Failure(str(error))
            except Exception as error:
                answer = _Failure(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            try:
                pipe.send(answer)
            except (BrokenPipeError, OSError):
                return
    finally:
        host.close()


def start(make: Callable[[], Any], specs: PolicySpecs, workers: int) -> ProcessExecutor:
    """Spawn the workers; they import what ``make`` needs while the caller goes on."""
    return ProcessExecutor(make, specs, workers)
