"""Chosen messages of a topic as blocks of samples, in time order and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.importers._boundary import IMAGE_BLOCK, STATE_BLOCK, foreign
from robopolicy.datasets.importers.rosbag2.bag import Bag
from robopolicy.datasets.importers.rosbag2.times import Samples, TopicIndex

Convert = Callable[[Any, str], NDArray[Any]]
_BLOCK_BYTES = 64 * 2**20
#: Undecoded messages that wait for an earlier stamp.
_MAX_WAITING_BYTES = 512 * 2**20


def read_blocks(
    bag: Bag, index: TopicIndex, samples: Samples, convert: Convert, origin_ns: int
) -> Iterator[Signal]:
    """Blocks of at most 64 frames (4096 vectors), or 64 MiB; times relative to ``origin_ns`` [ns].

    Raises:
        ImportFormatError: a message cannot be decoded or changes shape; names bag, topic and message.
        NonFiniteValueError: NaN or infinity.
    """
    values: list[NDArray[Any]] = []
    shape: tuple[int, ...] | None = None
    done = 0
    for value, where in read_values(bag, index, samples, convert):
        if shape is None:
            shape = value.shape
            usual = IMAGE_BLOCK if value.ndim > 1 else STATE_BLOCK
            limit = max(1, min(usual, _BLOCK_BYTES // value.nbytes))
        if value.shape != shape:
            raise ImportFormatError(f"{where}: shape {value.shape}, the messages before it have {shape}")
        values.append(value)
        if len(values) == limit or done + len(values) == len(samples):
            times = samples.time_ns[done : done + len(values)] - origin_ns
            done += len(values)
            yield Signal(np.stack(values), times)
            values = []


def read_values(
    bag: Bag, index: TopicIndex, samples: Samples, convert: Convert
) -> Iterator[tuple[NDArray[Any], str]]:
    """Each sample's value, with the words that name its message."""
    decode = bag.decoder(index.topic)
    for number, raw in _in_time_order(bag, index, samples):
        where = f"{bag.name}, {index.topic}, message {number}"
        with foreign(where):
            value = convert(decode(raw), where)
        yield value, where


def _in_time_order(bag: Bag, index: TopicIndex, samples: Samples) -> Iterator[tuple[int, bytes]]:
    """Chosen messages by number; one that comes too early waits, undecoded."""
    by_number = np.argsort(samples.message)
    wanted = samples.message[by_number]
    waiting: dict[int, tuple[int, bytes]] = {}
    position = rank = size = 0
    for number, raw in _from_first(bag, index, wanted):
        if number != wanted[position]:
            continue
        waiting[int(by_number[position])] = (number, raw)
        position, size = position + 1, size + len(raw)
        if size > _MAX_WAITING_BYTES:
            raise ImportFormatError(
                f"{bag.name}, {index.topic}, message {number}: too far out of order to sort"
            )
        while rank in waiting:
            size -= len(waiting[rank][1])
            yield waiting.pop(rank)
            rank += 1
        if position == len(wanted):
            return
    raise ImportFormatError(
        f"{bag.name}, {index.topic}: message {wanted[position]} is gone on second reading"
    )


def _from_first(bag: Bag, index: TopicIndex, wanted: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    """(number, raw) from the first wanted message on; skips what the storage can skip."""
    receive = index.receive_ns
    number, start = 0, None
    if (np.diff(receive) >= 0).all():
        start = int(receive[wanted[0]]) - 1  # rosbags leaves out a chunk that ends at ``start`` itself
        number = int(np.searchsorted(receive, start))
    for _, time_ns, raw in bag.messages({index.topic}, start=start):
        if number >= len(receive) or time_ns != receive[number]:
            raise ImportFormatError(
                f"{bag.name}, {index.topic}, message {number}: another receive time on second reading"
            )
        yield number, raw
        number += 1
