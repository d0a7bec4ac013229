"""Random numbers of one process's rows, drawn as if it held the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Functions that draw a tensor of a given size.
_SIZED: frozenset[Callable[..., Any]] = frozenset({torch.randn, torch.rand, torch.randint})
#: Functions that draw per row of a given tensor.
_PER_ROW: frozenset[Callable[..., Any]] = frozenset(
    {torch.multinomial, torch.bernoulli, torch.rand_like, torch.randn_like}
)


class SharedDraws(TorchFunctionMode):
    """Inside it, draws with a generator are those of the global batch, cut to this process's rows.

    With generators in the same state on every process, row ``i`` of the global batch meets the same noise,
    levels and augmentation however many processes share the batch, and the generators stay in the same
    state. A draw counts as per row where its first axis is a whole multiple of the process's rows; others
    (one crop offset for all, say) come out alike everywhere. With one row a process all draws count as per
    row: those that are meant for the whole batch differ there from process to process.

    Args:
        rows: of the batch on this process.
        rank, count: which process this is, of how many.
    Raises:
        NotImplementedError: within it, another function that takes a generator: its draws would be those of
            this process alone.
    """

    def __init__(self, rows: int, rank: int, count: int) -> None:
        super().__init__()
        self.rows, self.rank, self.count = rows, rank, count

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is not None:
            if func in _SIZED:
                return self._sized(func, list(args), dict(kwargs))
            if func in _PER_ROW:
                return self._per_row(func, args, kwargs)
            known = sorted(one.__name__ for one in _SIZED | _PER_ROW)
            raise NotImplementedError(
                f"{func.__name__} with a generator draws for this process alone; use one of {known}"
            )
        return func(*args, **kwargs)

    def _sized(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        place = next((i for i, given in enumerate(args) if isinstance(given, (tuple, list))), None)
        if "size" in kwargs:
            size = tuple(kwargs.pop("size"))
        elif place is not None:
            size = tuple(args.pop(place))
        else:  # torch.rand(2, 3): the size as separate numbers
            size, args = tuple(args), []
        if not self._is_per_row(size):
            return self._draw(func, args, size, kwargs)
        drawn = self._draw(func, args, (size[0] * self.count, *size[1:]), kwargs)
        return drawn[self._mine(size[0])]

    def _draw(
        self, func: Callable[..., Any], args: list[Any], size: tuple[int, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        result: Tensor = func(*args, size=size, **kwargs)
        return result

    def _per_row(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        mine = args[0]
        if not self._is_per_row(mine.shape):
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        # the others' rows take as many random numbers whatever their probabilities are
        every = mine.repeat(self.count, *(1 for _ in mine.shape[1:]))
        drawn: Tensor = func(every, *args[1:], **kwargs)
        return drawn[self._mine(len(mine))]

    def _is_per_row(self, size: Sequence[int]) -> bool:
        return len(size) > 0 and size[0] > 0 and size[0] % self.rows == 0

    def _mine(self, rows: int) -> slice:
        return slice(self.rank * rows, (self.rank + 1) * rows)
