"""The training loop: update, measure, save, in an order that an interrupted run takes up exactly."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robopolicy.core.errors import NonFiniteValueError, RobopolicyError
from robopolicy.core.provenance import write_json
from robopolicy.datasets.loader import TensorBatch
from robopolicy.training.checkpoint import checkpoints, save_checkpoint
from robopolicy.training.failures import (
    BadLossError,
    InterruptedTrainingError,
    OutOfMemoryError,
    StopRequest,
    in_words,
    is_out_of_memory,
    memory_advice,
)
from robopolicy.training.inputs import Inputs
from robopolicy.training.metrics_log import MetricsLog
from robopolicy.training.progress import TrainingProgress
from robopolicy.training.rollouts import SUCCESS
from robopolicy.training.trackers import Trackers
from robopolicy.training.update import Update

RECENT = 100  # steps whose mean is the final loss
CHECK_EVERY = 20  # steps between looks at the loss on a GPU, which has to wait for each look
POLICY, BEST, FAILURE = "policy", "best", "failure.json"
HELD_OUT = "held_out_loss"
RANKS = "mean_accuracy"  # of a critic, how well it ranks
#: What the best weights are chosen by, the first of these that is measured; and whether more is better.
CHOSEN_BY = {SUCCESS: True, RANKS: True, HELD_OUT: False}


@dataclass
class Position:
    """How far a training has come; saved with every checkpoint.

    Args:
        step: updates made.
        measured: the step that held-out loss and rollouts were last due at and done.
        seconds: spent on updates, earlier runs included [s].
        recent: (loss, gradient norm) of the last steps.
        best: {"step", "name", "value"} of the best measurement; empty before the first.
    """

    step: int = 0
    measured: int = 0
    seconds: float = 0.0
    recent: deque[list[float]] = field(default_factory=deque)
    best: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        return {**vars(self), "recent": list(self.recent)}


@dataclass(frozen=True)
class Outputs:
    """Where a training's results go.

    Args:
        run: its folder.
        save_policy: writes the averaged policy (or critic) into a folder.
        blame: of a step, on which windows it was computed (``failures.blame``).
        name: of the folder within the run that the result is saved in.
        command: of robopolicy that resumes it.
    """

    run: Path
    save_policy: Callable[[Path], None]
    blame: Callable[..., dict[str, Any]]
    log: MetricsLog | None
    trackers: Trackers
    progress: TrainingProgress
    name: str = POLICY
    command: str = "train"


class Loop:
    """Runs a training to its end.

    Args:
        batches: from ``position.step`` on.
        measures: name of each measurement to how often it is due [steps] and what makes it, on the main
            process; it raises InterruptedTrainingError to give up.
        stop: asked after every update.
    """

    def __init__(
        self,
        update: Update,
        batches: Iterator[TensorBatch],
        inputs: Inputs,
        outputs: Outputs,
        *,
        position: Position,
        measures: dict[str, tuple[int, Callable[[], dict[str, float]]]],
        stop: StopRequest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.update, self.config, self.outputs, self.position = update, update.config, outputs, position
        self._batches, self._inputs, self._measures = batches, inputs, measures
        self._stop, self._clock = stop, clock
        self._processes = update.processes
        self._unseen: list[tuple[int, Tensor]] = []  # loss and norm of steps that nobody has looked at yet
        self._earlier = position.seconds
        self._saved = position.step
        position.recent = deque(position.recent, maxlen=max(RECENT, self.config.log_every))

    def run(self) -> None:
        """Train until the last step, or until the time is up.

        Raises:
            InterruptedTrainingError: asked to stop; the state is saved.
            BadLossError: a loss or gradient is no number.
            OutOfMemoryError: says what to lower. CheckpointError: the final state could not be written.
        """
        position, config = self.position, self.config
        while True:
            end = position.step >= config.steps or self._out_of_time()
            self._measure(end=end)
            if self._asked_to_stop():
                self._interrupt()
            if end:
                break
            if position.step % config.save_every == 0 and position.step > self._saved:
                self.save()
            self._train()
            if position.step % config.log_every == 0 or position.step == config.steps:
                self._log()
        self.save(final=True)

    def save(self, *, final: bool = False, random: dict[str, Any] | None = None) -> None:
        """A checkpoint and the averaged policy. A disk that is full now may not be so at the next one:
        only where it is the ``final`` one a failure is an error."""
        self._look()
        step = self.position.step
        state = {"training": self.position.state(), **self.update.state(random)}

        def write() -> None:
            save_checkpoint(self.outputs.run, step, state, keep=self.config.keep)
            self.outputs.save_policy(self.outputs.run / self.outputs.name)

        started = self._clock()
        try:
            self._processes.on_main(write)
            self._saved = step
        except (RobopolicyError, OSError) as error:
            if final:
                raise
            self.outputs.progress.say(
                f"step {step}: {error}; {self._last_checkpoint()}; the training goes on"
            )
        self.outputs.progress.away(self._clock() - started)

    def _train(self) -> None:
        """One update, after which either everything has changed or nothing."""
        before = self.update.random_state()
        try:
            values = self.update(self._inputs.place(next(self._batches), self.position.step))
        except NonFiniteValueError as error:
            self._bad_loss(error, self.position.step + 1, before)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._out_of_memory(error, before)
        self.position.step += 1
        self._unseen.append((self.position.step, values))
        if self.update.prompt or len(self._unseen) >= CHECK_EVERY:
            self._look()
        self.position.seconds = self._earlier + self.outputs.progress.seconds

    def _look(self) -> None:
        """Fetch the losses of the last steps and check them."""
        if not self._unseen:
            return
        steps, values = zip(*self._unseen)
        self._unseen = []
        for step, pair in zip(steps, torch.stack(values).tolist()):
            try:
                self.update.check(pair)
            except NonFiniteValueError as error:
                self._bad_loss(error, step, None)
            self.position.recent.append(pair)

    def _log(self) -> None:
        self._look()
        position = self.position
        count = min(self.config.log_every, len(position.recent))
        last = list(position.recent)[-count:]
        means = {"loss": sum(p[0] for p in last) / count, "gradient_norm": sum(p[1] for p in last) / count}
        means = self._processes.average(means)
        if not self._processes.main:
            return
        values = {
            **means,
            "learning_rate": self.update.schedule.get_last_lr()[0],
            "samples_per_s": self.outputs.progress.samples_per_s(position.step),
            "seconds": position.seconds,
            **self.update.policy.metrics(),
        }
        self.outputs.progress.update(position.step, means["loss"])
        self._record(values)

    def _record(self, values: dict[str, float]) -> None:
        if self.outputs.log is not None:
            self.outputs.log.write(self.position.step, values)
        self.outputs.trackers.log(self.position.step, values)

    def _measure(self, *, end: bool) -> None:
        """What is due at this step, all of it at the end; nothing that was done before the run broke off."""
        position = self.position
        if position.step <= position.measured:
            return
        step = position.step
        due = {name: work for name, (every, work) in self._measures.items() if end or step % every == 0}
        if not due:
            return
        self._look()
        started = self._clock()
        values: dict[str, float] = {}

        def work() -> None:
            for name, measure in due.items():
                try:
                    values.update(measure())
                except InterruptedTrainingError:
                    return
                except Exception as error:  # a simulator that dies must not take the training along
                    self.outputs.progress.say(
                        f"step {position.step}: {name} not measured: {type(error).__name__}: {error}"
                    )

        device = torch.device(self._processes.device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # a policy draws its weights
            self._processes.on_main(work)
        if not self._processes.any(bool(self._stop)):  # else all of it is repeated when the run goes on
            position.measured = position.step
            if self._processes.main and values:
                self._record(values)
                self._keep_best(values)
        self.outputs.progress.away(self._clock() - started)

    def _keep_best(self, values: dict[str, float]) -> None:
        """By success where there are rollouts, of a critic by how well it ranks, else by held-out loss; of
        equal ones the earlier, by success the later."""
        for name in reversed(CHOSEN_BY):
            if name in values:
                self.outputs.progress.measured(name, values[name])
        name = next((name for name in CHOSEN_BY if name in self._measures), HELD_OUT)
        if name == RANKS and name not in values:  # there is nothing among the held-out episodes to compare
            name = HELD_OUT
        value, best = values.get(name, math.nan), self.position.best
        if not math.isfinite(value):
            return
        if best and best["name"] == name:
            gain = (value - best["value"]) * (1 if CHOSEN_BY[name] else -1)
            if gain < 0 or (gain == 0 and name != SUCCESS):
                return
        elif best and name == HELD_OUT:  # by what counts for more
            return
        found = {"step": self.position.step, "name": name, "value": value}
        try:
            self.outputs.save_policy(self.outputs.run / BEST)
            write_json(self.outputs.run / BEST / "measured.json", found)
        except (RobopolicyError, OSError) as error:
            self.outputs.progress.say(f"step {self.position.step}: {error}; the earlier best policy stays")
            return
        self.position.best = found

    def _asked_to_stop(self) -> bool:
        return self._meeting and self._processes.any(bool(self._stop))

    def _out_of_time(self) -> bool:
        limit = self.config.seconds
        return bool(limit) and self._meeting and self._processes.any(self.position.seconds >= limit)

    @property
    def _meeting(self) -> bool:
        """Whether processes agree at this step; on GPUs every time costs a wait for the computation."""
        return self.update.prompt or self._processes.count == 1 or self.position.step % CHECK_EVERY == 0

    def _interrupt(self) -> None:
        step, run = self.position.step, self.outputs.run
        signum = self._stop.signum or 15  # another process was told
        try:
            self.save(final=True)
            told = f"saved at step {step}"
        except (RobopolicyError, OSError) as error:
            told = f"could not save step {step} ({error}); {self._last_checkpoint()}"
        raise InterruptedTrainingError(
            f"interrupted, {told}; go on with: robopolicy {self.outputs.command} --resume {run}", signum
        )

    def _bad_loss(self, error: NonFiniteValueError, step: int, before: dict[str, Any] | None) -> None:
        """Stop, naming the batch; where the weights are still as before the step, save them.

        Args:
            before: random state before the step; None where later steps have followed.
        """
        blamed = self.outputs.blame(step=step)
        words = in_words(blamed)
        if self._processes.main:
            with contextlib.suppress(OSError):
                write_json(self.outputs.run / FAILURE, {"step": step, "problem": str(error), **blamed})
        self._unseen = []
        if before is not None:
            self.save(random=before)
        raise BadLossError(
            f"{error} at step {step}; lower the learning rate; computed on {words}, all of them in "
            f"{self.outputs.run / FAILURE}; {self._last_checkpoint()}",
            step,
            blamed,
        ) from error

    def _out_of_memory(self, error: BaseException, before: dict[str, Any]) -> None:
        device, config = self._processes.device, self.config
        advice = memory_advice(
            error, batch_size=config.batch_size, accumulate=config.accumulate, device=device
        )
        self.update.optimiser.zero_grad(set_to_none=True)
        if not self.update.stepping and self._processes.count == 1:
            with contextlib.suppress(RuntimeError, MemoryError):
                self.save(random=before)
        raise OutOfMemoryError(
            f"step {self.position.step + 1}: {advice}; {self._last_checkpoint()}"
        ) from error

    def _last_checkpoint(self) -> str:
        found = checkpoints(self.outputs.run)
        return f"the last checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
