"""When a topic's messages were sampled: header or receive times, in order, without a copy of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers.rosbag2.mapping import FieldMap

Times = NDArray[np.int64]
#: Two clocks of one machine, or of machines in sync, differ by less [ns].
_SAME_CLOCK_NS = 60 * 1_000_000_000
#: An interval longer than this many usual ones is a gap: at least one sample is missing.
GAP = 1.5


@dataclass(frozen=True)
class TopicIndex:
    """All times of one topic, (n,) each [Unix ns], in the order of the bag."""

    topic: str
    receive_ns: Times
    header_ns: Times | None


@dataclass(frozen=True)
class Samples:
    """Which messages of a topic are samples of a signal.

    Args:
        time_ns: (n,) strictly increasing [Unix ns].
        message: (n,) number of the message in the topic, as counted in the bag.
        stamp: "header" or "receive": whose times these are.
    """

    time_ns: Times
    message: Times
    stamp: str

    def __len__(self) -> int:
        return len(self.time_ns)

    def between(self, start_ns: int, stop_ns: int) -> Samples:
        """Those with start <= time < stop."""
        first, last = np.searchsorted(self.time_ns, [start_ns, stop_ns])
        return Samples(self.time_ns[first:last], self.message[first:last], self.stamp)

    def since_last_before(self, time_ns: int) -> Samples:
        """From the last one at or before ``time_ns`` on; all when there is none."""
        first = max(int(np.searchsorted(self.time_ns, time_ns, side="right")) - 1, 0)
        return Samples(self.time_ns[first:], self.message[first:], self.stamp)


def choose(index: TopicIndex, field: FieldMap, where: str) -> tuple[Samples, str]:
    """The samples of one signal, and a note on what was left out ("" for nothing).

    Raises:
        ImportFormatError: no header, unset or foreign stamps, or stamps that do not increase and the
            mapping does not say ``reorder``; names the message.
    """
    stamp = _stamp(index, field, where)
    times = index.header_ns if stamp == "header" else index.receive_ns
    assert times is not None
    backwards = np.flatnonzero(np.diff(times) <= 0)
    if not backwards.size:
        return Samples(times, np.arange(len(times), dtype=np.int64), stamp), ""
    if not field.reorder:
        at = int(backwards[0]) + 1
        how = "equals" if times[at] == times[at - 1] else "comes before"
        raise ImportFormatError(
            f"{where}, message {at}: its {stamp} stamp {times[at]} ns {how} that of message {at - 1}; "
            f"say `reorder: true` to sort"
        )
    order = np.argsort(times, kind="stable")
    keep = np.append(np.diff(times[order]) > 0, True)
    note = f"{where}: {backwards.size} stamps out of order, sorted; {int((~keep).sum())} equal ones left out"
    return Samples(times[order][keep], order[keep].astype(np.int64), stamp), note


def _stamp(index: TopicIndex, field: FieldMap, where: str) -> str:
    unset = None if index.header_ns is None else np.flatnonzero(index.header_ns == 0)
    if field.stamp == "receive" or (
        field.stamp == "" and (unset is None or len(unset) == len(index.receive_ns))
    ):
        return "receive"
    if unset is None:
        raise ImportFormatError(f"{where}: its messages have no header; say `stamp: receive`")
    if unset.size:
        raise ImportFormatError(
            f"{where}, message {unset[0]}: its header stamp is not set; say `stamp: receive`"
        )
    return "header"


def clock_offset_ns(index: TopicIndex, samples: Samples) -> int:
    """Median of header minus receive time [ns], 0 for receive times; small when both are one clock."""
    if samples.stamp == "receive" or index.header_ns is None:
        return 0
    return int(np.median(index.header_ns - index.receive_ns))


def check_clocks(offsets_ns: dict[str, int], stamps: set[str], clock: str, where: str) -> None:
    """Refuse to mix Unix and simulated time.

    Raises:
        ImportFormatError: header stamps of a signal are on another clock than the bag's.
    """
    for name, offset in offsets_ns.items():
        if abs(offset) > _SAME_CLOCK_NS and (clock != "simulation" or "receive" in stamps):
            raise ImportFormatError(
                f"{where}, {name}: header stamps are {offset / 1e9:.1f} s off the receive times, so on "
                f"another clock; say `stamp: receive`, or `clock: simulation` with header stamps throughout"
            )


def gaps(samples: Samples) -> tuple[int, float]:
    """How many intervals exceed ``GAP`` usual ones, and the longest interval [s]."""
    intervals = np.diff(samples.time_ns)
    if len(intervals) < 2:
        return 0, 0.0
    return int((intervals > GAP * np.median(intervals)).sum()), float(intervals.max()) / 1e9
