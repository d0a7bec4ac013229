"""What a training shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_SECONDS = 30.0  # between lines where there is no terminal


class TrainingProgress:
    """Steps done, samples/s, loss, the last measurement and the time left.

    Args:
        steps: of the whole training.
        done: that an earlier run has made of them.
        batch_size: windows per step.
        console: None shows nothing.
        clock: monotonic [s].
    """

    def __init__(
        self,
        steps: int,
        *,
        done: int,
        batch_size: int,
        console: Console | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps, self._first, self._batch_size = steps, done, batch_size
        self._console, self._clock = console, clock
        self._started = self._shown = clock()
        self._away = 0.0
        self._measured: dict[str, float] = {}
        self._bar: Progress | None = None
        if console is not None and console.is_terminal:
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[s]}"),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("train", total=steps, completed=done, s="")

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Spent on training steps since the start, without the time ``away`` [s]."""
        return self._clock() - self._started - self._away

    def samples_per_s(self, step: int) -> float:
        """Windows per second since the start."""
        return (step - self._first) * self._batch_size / max(self.seconds, 1e-9)

    def away(self, seconds: float) -> None:
        """Time that went into something else than training steps."""
        self._away += seconds

    def update(self, step: int, loss: float) -> None:
        """After ``step`` updates; ``loss`` is a recent mean."""
        rate = self.samples_per_s(step)
        left = (self._steps - step) * self._batch_size / rate if rate else 0.0
        found = "".join(f", {name.replace('_', ' ')} {value:.4f}" for name, value in self._measured.items())
        status = f"loss {loss:.4f}{found}, {rate:.0f} samples/s, {_clock_face(left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, s=status)
        elif self._console is not None and (
            self._clock() - self._shown >= LINE_SECONDS or step == self._steps
        ):
            self._shown = self._clock()
            self._console.print(f"step {step}/{self._steps}: {status}", highlight=False)

    def measured(self, name: str, value: float) -> None:
        """A held-out loss or a success rate, shown from now on."""
        self._measured[name] = value

    def say(self, message: str) -> None:
        """One line that stays."""
        if self._console is not None:
            self._console.print(message, highlight=False, markup=False)


def _clock_face(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
