"""Batches for training: windows as tensors, prepared ahead, in an order that any run can resume."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.datasets.windows import WHOLE, Batch, Share, WindowSource

T = TypeVar("T", bound="TensorBatch")


@dataclass(frozen=True)
class TensorBatch:
    """As ``Batch``, in tensors: pinned when a GPU will take them.

    ``observation`` is what the training transform makes of it, an embedded "instruction" (batch,
    instruction_dim) included; ``instruction`` stays the (batch,) rows of the windows' texts.
    """

    observation: dict[str, Tensor]
    action: Tensor
    mask: Tensor
    instruction: Tensor

    def to(self, device: str | torch.device) -> Self:
        """On the device; from pinned memory the copy runs beside the computation."""
        pinned = self.action.is_pinned()
        return self._each(lambda tensor: tensor.to(device=device, non_blocking=pinned))

    def rows(self, part: slice | Tensor) -> Self:
        """Some rows of it."""
        return self._each(lambda tensor: tensor[part])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return dataclasses.replace(self, **_converted(self, change))


def as_tensors(
    batch: Batch, into: type[T], convert: Callable[[NDArray[Any]], Tensor] = torch.from_numpy
) -> T:
    """A batch in tensors, field by field."""
    return into(**_converted(batch, convert))


def _converted(batch: Any, convert: Callable[[Any], Tensor]) -> dict[str, Any]:
    """Every field that is an array, a dict of arrays, or None."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, dict):
            found[field.name] = {key: convert(array) for key, array in value.items()}
        else:
            found[field.name] = None if value is None else convert(value)
    return found


class Loader:
    """Shuffled batches without end; batch ``step`` is a pure function of (seed, step).

    Args:
        windows: of one store or of several.
        transform: applied to each batch in the loader's thread, normalising for example.
        pin: page-locked tensors, for fast copies to a GPU; None pins when there is one.
        prefetch: batches prepared ahead in a thread of their own; 0 prepares each when it is asked for.
        share: rows of every batch that are wanted, for processes that share the batches between them.
        into: what to make of each batch, with fields of the same names.
    Raises:
        ConfigError: fewer windows than one batch, a size out of range, or ``pin`` without CUDA.
    """

    def __init__(
        self,
        windows: WindowSource,
        batch_size: int,
        *,
        seed: int = 0,
        transform: Callable[[Batch], Batch] | None = None,
        pin: bool | None = None,
        prefetch: int = 2,
        share: Share = WHOLE,
        into: type[TensorBatch] = TensorBatch,
    ) -> None:
        if len(windows) < batch_size:
            raise ConfigError(f"{len(windows)} windows are fewer than one batch of {batch_size}")
        if batch_size < 1 or prefetch < 0:
            raise ConfigError(f"batch_size must be >= 1 and prefetch >= 0, got {batch_size} and {prefetch}")
        if pin and not torch.cuda.is_available():
            raise ConfigError("pin=True needs a CUDA device, and there is none; leave it at None")
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        self._transform, self._prefetch, self._share = transform, prefetch, share
        self._into = into
        self._pin = torch.cuda.is_available() if pin is None else pin

    def batches(self, start: int = 0) -> Generator[TensorBatch, None, None]:
        """Batch ``start`` and all after it, epoch upon epoch."""
        epoch, skip = divmod(start, self.windows.batches_per_epoch(self.batch_size))
        return self._ahead(self._endless(epoch, skip))

    def epoch(self, epoch: int, skip: int = 0) -> Generator[TensorBatch, None, None]:
        """The batches of one epoch, without the first ``skip``."""
        return self._ahead(self._epoch(epoch, skip))

    def _endless(self, epoch: int, skip: int) -> Generator[TensorBatch, None, None]:
        while True:
            yield from self._epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Generator[TensorBatch, None, None]:
        windows = self.windows.epoch(
            self.batch_size, seed=self.seed, epoch=epoch, skip=skip, share=self._share
        )
        for batch in windows:
            ready = batch if self._transform is None else self._transform(batch)
            yield as_tensors(ready, self._into, self._tensor)

    def _tensor(self, value: Any) -> Tensor:
        tensor = torch.from_numpy(value)
        return tensor.pin_memory() if self._pin else tensor

    def _ahead(self, source: Generator[TensorBatch, None, None]) -> Generator[TensorBatch, None, None]:
        return source if self._prefetch == 0 else _in_thread(source, self._prefetch)


def _in_thread(source: Generator[TensorBatch, None, None], ahead: int) -> Generator[TensorBatch, None, None]:
    """Draw from ``source`` in a thread, at most ``ahead`` items in front; its errors come out here."""
    ready: queue.Queue[TensorBatch | BaseException | None] = queue.Queue(ahead)
    stop = threading.Event()

    def put(item: TensorBatch | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def draw() -> None:
        try:
            for item in source:
                put(item)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=draw, name="loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
