"""What is shown while a training runs: a bar on a terminal, few lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console
from training_runs import quiet, said

from robopolicy.training.progress import LINE_SECONDS, TrainingProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_comes_now_and_then_and_at_the_end():
    clock, console = Clock(), quiet()
    with TrainingProgress(100, done=20, batch_size=8, console=console, clock=clock) as progress:
        for step in range(21, 101):
            clock.now += 1.0
            progress.update(step, 0.5)
    lines = said(console).splitlines()
    assert len(lines) == 80 // LINE_SECONDS + 1
    assert lines[0] == "step 50/100: loss 0.5000, 8 samples/s, 0:00:50 left"
    assert lines[-1].startswith("step 100/100") and "0:00:00 left" in lines[-1]


def test_time_spent_elsewhere_is_not_held_against_the_rate():
    clock = Clock()
    progress = TrainingProgress(100, done=0, batch_size=8, console=None, clock=clock)
    clock.now += 10
    progress.away(5)
    assert progress.seconds == 5 and progress.samples_per_s(10) == 16


def test_on_a_terminal_there_is_a_bar_with_the_last_measurement():
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=True, width=150)
    with TrainingProgress(10, done=0, batch_size=8, console=console, clock=clock) as progress:
        clock.now += 1
        progress.measured("held_out_loss", 0.25)
        progress.update(5, 0.125)
        progress.say("a remark")
    text = said(console)
    assert "5/10" in text and "loss 0.1250, held out loss 0.2500" in text and "a remark" in text


def test_a_quiet_console_stays_quiet():
    progress = TrainingProgress(10, done=0, batch_size=8, console=None)
    progress.update(10, 0.5)
    progress.say("nothing")
