"""Stages at once, each in a process with one thread, until the time is over."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any

from rich.console import Console


class Pool:
    """Runs the calls of one stage after those of another.

    Args:
        jobs: processes; minutes: begin nothing after that.
    """

    def __init__(self, jobs: int, minutes: float, console: Console) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started here
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(jobs, mp_context=context)
        self._console, self._stop = console, time.monotonic() + 60 * minutes

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(self, stage: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
        """All of them; the first failure ends the run, and what is finished stays."""
        for made in self._pool.map(_within, *zip(*((self._stop, stage, call) for call in calls))):
            if made:
                self._console.print(made, highlight=False, soft_wrap=True)


def _within(stop: float, stage: Callable[..., Any], call: tuple[Any, ...]) -> str:
    """What was made; nothing when the time is over. The processes of a machine share its monotonic clock."""
    if time.monotonic() > stop:
        return ""
    began = time.monotonic()
    made = stage(*call)
    return f"{made} ({time.monotonic() - began:.0f} s)"
