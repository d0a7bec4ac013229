"""What can end a training, told so that its owner knows what to do next."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from robopolicy.core.errors import NonFiniteValueError, RobopolicyError
from robopolicy.datasets.mixture import Mixture
from robopolicy.datasets.windows import Windows, WindowSource

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EPISODES_NAMED = 8  # in a message; the file beside it has all


class InterruptedTrainingError(RobopolicyError):
    """The training was asked to stop, and what it had done is saved.

    Args:
        signum: of the signal; a command ends with status 128 + signum.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


class OutOfMemoryError(RobopolicyError):
    """The training needs more memory than there is; says what to lower."""


class BadLossError(NonFiniteValueError):
    """The loss or its gradients are no finite numbers.

    Args:
        step: of the update that they belong to, from 1.
        facts: what is written beside the run.
    """

    def __init__(self, message: str, step: int, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.step, self.facts = step, facts


class StopRequest:
    """Remembers the first signal; the second one of SIGINT ends at once, as without it."""

    def __init__(self) -> None:
        self.signum = 0

    def __bool__(self) -> bool:
        return self.signum != 0

    def heed(self) -> None:
        """Raise InterruptedTrainingError where something long should be given up."""
        if self:
            raise InterruptedTrainingError("asked to stop", self.signum)

    def receive(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within it SIGTERM and SIGINT become a request; elsewhere than in the main thread nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_out_of_memory(error: BaseException) -> bool:
    """Of the GPU, of the CPU's allocator (which raises a plain RuntimeError), or of Python."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def memory_advice(error: BaseException, *, batch_size: int, accumulate: int, device: str) -> str:
    """What happened and which option to change."""
    first = str(error).strip().splitlines()[:1] or [type(error).__name__]
    where = "GPU" if device.startswith("cuda") else "main"
    return (
        f"not enough {where} memory: {first[0][:200]}. Raise --train.accumulate (now {accumulate}: the same "
        f"batch in more parts), lower --train.batch-size (now {batch_size}), "
        + ("or use --train.precision bf16" if where == "GPU" else "or lower --train.memory-gib")
    )


def blame(windows: WindowSource, *, seed: int, batch_size: int, step: int) -> dict[str, Any]:
    """Which windows update ``step`` (from 1) was computed on.

    Returns:
        {"windows": numbers as ``WindowSource.batch`` takes them, "episodes": "store: episode" texts}.
    """
    epoch, place = divmod(step - 1, windows.batches_per_epoch(batch_size))
    indices = windows.order(seed=seed, epoch=epoch)[place * batch_size : (place + 1) * batch_size]
    return {"windows": indices.tolist(), "episodes": sorted({_episode(windows, int(i)) for i in indices})}


def in_words(facts: dict[str, Any]) -> str:
    """The blamed episodes, a few of them by name."""
    episodes = facts["episodes"]
    more = f" and {len(episodes) - EPISODES_NAMED} more" if len(episodes) > EPISODES_NAMED else ""
    return f"{len(facts['windows'])} windows of episodes {', '.join(episodes[:EPISODES_NAMED])}{more}"


def _episode(windows: WindowSource, index: int) -> str:
    parts = windows.parts if isinstance(windows, Mixture) else [windows]
    for part in parts:
        if index < len(part):
            assert isinstance(part, Windows)
            return f"{part.where}: {part.names[part.episode[index]]}"
        index -= len(part)
    raise AssertionError(f"window {index} is in no store")
