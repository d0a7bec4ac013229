"""Where the episodes of one bag begin and end, and what was asked in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers._boundary import foreign
from robopolicy.datasets.importers.rosbag2.bag import Bag
from robopolicy.datasets.importers.rosbag2.mapping import BagMapping, MarkerMap

TEXT, TRUTH = "std_msgs/msg/String", "std_msgs/msg/Bool"
_NEVER_NS = 2**62


@dataclass(frozen=True)
class Cut:
    """One episode: start <= time < stop [Unix ns]."""

    name: str
    start_ns: int
    stop_ns: int


def cut(bag: Bag, mapping: BagMapping, origin_ns: int, notes: list[str]) -> list[Cut]:
    """The episodes of a bag, in time order.

    Args:
        origin_ns: where the mapping's ranges count from.
        notes: gets a line for what the bag leaves open.
    Raises:
        ImportFormatError: a marker that cannot be read or makes no sense; names the message.
    """
    if mapping.episodes.marker:
        spans = _by_marker(bag, mapping.episodes.marker, notes)
    elif mapping.episodes.ranges:
        spans = [(origin_ns + round(a * 1e9), origin_ns + round(b * 1e9)) for a, b in mapping.episodes.ranges]
    else:
        return [Cut(bag.name, -_NEVER_NS, _NEVER_NS)]
    return [Cut(f"{bag.name}#{number}", *span) for number, span in enumerate(spans)]


def texts(bag: Bag, topic: str, types: tuple[str, ...]) -> list[tuple[int, Any]]:
    """(receive time [ns], data) of every message of a std_msgs topic."""
    decoder = bag.decoder(topic)
    if decoder.msgtype not in types:
        raise ImportFormatError(f"{bag.name}, {topic}: expected {' or '.join(types)}, got {decoder.msgtype}")
    found = []
    for number, (_, time_ns, raw) in enumerate(bag.messages({topic})):
        with foreign(f"{bag.name}, {topic}, message {number}"):
            found.append((time_ns, decoder(raw).data))
    return sorted(found, key=lambda item: item[0])


def instruction_at(spoken: list[tuple[int, str]], span: Cut, first_action_ns: int, where: str) -> str:
    """The last text at or before the first action, else the first one in the episode.

    Raises:
        ImportFormatError: there is neither.
    """
    before = [text for time_ns, text in spoken if time_ns <= first_action_ns]
    after = [text for time_ns, text in spoken if first_action_ns < time_ns < span.stop_ns]
    if not before and not after:
        raise ImportFormatError(f"{where}: no instruction before its end")
    return before[-1] if before else after[0]


def _by_marker(bag: Bag, marker: MarkerMap, notes: list[str]) -> list[tuple[int, int]]:
    """Pairs of start and stop; a repeated truth value changes nothing, a repeated text is an error."""
    spans: list[tuple[int, int]] = []
    begun: int | None = None
    held: Any = None
    for number, (time_ns, data) in enumerate(texts(bag, marker.topic, (TEXT, TRUTH))):
        where = f"{bag.name}, {marker.topic}, message {number}"
        if isinstance(data, bool) and (data == held or (held is None and not data)):
            continue
        held = data
        starts, stops = _meaning(data, marker, where)
        if stops and begun is None:
            raise ImportFormatError(f"{where}: {data!r} without a start before it")
        if starts and begun is not None and marker.stop and not isinstance(data, bool):
            raise ImportFormatError(f"{where}: {data!r} while the episode before has no {marker.stop!r}")
        if begun is not None:
            spans.append((begun, time_ns))
        begun = time_ns if starts else None
    if begun is not None:
        spans.append((begun, _NEVER_NS))
        if marker.stop:
            notes.append(f"{bag.name}: the last episode has no stop on {marker.topic}; it ends with the bag")
    if not spans:
        raise ImportFormatError(f"{bag.name}, {marker.topic}: no episode is marked")
    if empty := [span for span in spans if span[0] >= span[1]]:
        raise ImportFormatError(f"{bag.name}, {marker.topic}: an episode of no duration at {empty[0][0]} ns")
    return spans


def _meaning(data: Any, marker: MarkerMap, where: str) -> tuple[bool, bool]:
    """(starts an episode, ends one)"""
    if isinstance(data, bool):
        return data, not data
    if marker.stop and data == marker.stop:
        return False, True
    if not marker.start or data == marker.start:
        return True, False
    raise ImportFormatError(f"{where}: {data!r} is neither {marker.start!r} nor {marker.stop!r}")
