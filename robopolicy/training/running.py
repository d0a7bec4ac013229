"""Run a training to its end, or take one up where it stopped; whatever it is that learns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from robopolicy.core.provenance import package_versions
from robopolicy.datasets.loader import Loader
from robopolicy.datasets.windows import WindowSource
from robopolicy.training import failures
from robopolicy.training.checkpoint import newest_state
from robopolicy.training.inputs import Inputs
from robopolicy.training.loop import FAILURE, POLICY, RECENT, Loop, Outputs, Position
from robopolicy.training.metrics_log import MetricsLog
from robopolicy.training.progress import TrainingProgress
from robopolicy.training.trackers import Trackers, open_trackers
from robopolicy.training.update import Update

Measures = dict[str, tuple[int, Callable[[], dict[str, float]]]]


def restore(update: Update, run: Path, console: Console) -> Position:
    """Put everything where the newest checkpoint says."""
    (run / FAILURE).unlink(missing_ok=True)  # told again where it happens again
    found = newest_state(run)
    if found is None:
        console.print(f"{run} has no checkpoint yet: it begins at its first step", highlight=False)
        return Position()
    state, facts, problems = found
    for problem in problems:
        console.print(f"left out: {problem}", highlight=False, markup=False)
    training = state.pop("training")
    update.restore(state)
    here = {**package_versions(), "threads": torch.get_num_threads()}
    there = {**facts["versions"], "threads": facts["threads"]}
    differ = [
        f"{name} was {there.get(name)}, is {here[name]}" for name in here if here[name] != there.get(name)
    ]
    if differ:
        console.print(f"from here on not bit for bit the same: {'; '.join(differ)}", highlight=False)
    console.print(f"going on after step {training['step']}", highlight=False)
    return Position(**training)


def optimise(
    update: Update,
    loader: Loader,
    inputs: Inputs,
    *,
    output: Path,
    console: Console,
    told: Any,
    position: Position,
    source: WindowSource,
    save: Callable[[Path], None],
    measures: Callable[[failures.StopRequest], Measures],
    name: str = POLICY,
    command: str = "train",
) -> dict[str, Any]:
    """Train from ``position`` on.

    Args:
        told: the settings, as a tree, for trackers.
        source: of the loader's windows, to name those of a bad batch.
        measures: what is measured during the training, and how often; gets what asks it to give up.
        save, name, command: see ``Outputs``.
    Returns:
        {"train_seconds", "samples_per_s", "final_loss", "steps", "best"}.
    """
    config, done = update.config, position.step
    progress = TrainingProgress(config.steps, done=done, batch_size=config.batch_size, console=console)
    with contextlib.ExitStack() as stack:
        stack.enter_context(progress)
        stop = stack.enter_context(failures.stop_on_signals())
        batches = stack.enter_context(contextlib.closing(loader.batches(done)))
        trackers, log = Trackers({}, progress.say), None
        if update.processes.main:
            log = MetricsLog(output, step=done, warn=progress.say)
            trackers = open_trackers(config.trackers, output, config=told, step=done, warn=progress.say)
            stack.callback(trackers.close)
        blame = partial(failures.blame, source, seed=config.seed, batch_size=config.batch_size)
        outputs = Outputs(output, save, blame, log, trackers, progress, name, command)
        Loop(update, batches, inputs, outputs, position=position, measures=measures(stop), stop=stop).run()
    last = list(position.recent)[-RECENT:]
    return {
        "train_seconds": position.seconds,
        "samples_per_s": progress.samples_per_s(position.step),
        "final_loss": sum(pair[0] for pair in last) / max(1, len(last)),
        "steps": position.step,
        "best": position.best,
    }
