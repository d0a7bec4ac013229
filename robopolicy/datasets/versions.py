"""The log of a store: which episodes each version holds. Its files are the one point where changes happen.

Episodes' data never change. Recording, deleting, trimming and relabelling each add one small file
``versions/NNNNNNNN.json`` with what changed; every ``CHECKPOINT``-th also lists all episodes, so that
reading the newest version opens few files.
The scheme is that of Delta Lake (Armbrust et al. 2020, section 3).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from robopolicy.core.errors import SpecError, StoreError
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.datasets.schema import ENTRY_FIELDS
from robopolicy.datasets.storage import Storage

FOLDER = "versions"
TAGS = "tags"
CHECKPOINT = 32


@dataclass(frozen=True)
class Entry:
    """One episode as a version sees it.

    Args:
        name: its folder in ``episodes/``; never given twice.
        length: policy steps, after trimming.
        data: SHA-256 (hex) over every file of the folder.
        start, stop: the steps of the recording that count.
        instruction, success, seed, clock, wall_minus_clock_ns: as in ``Episode``; relabelling changes them
            here only.
    """

    name: str
    length: int
    data: str
    start: int
    stop: int
    instruction: str = ""
    success: bool | None = None
    seed: int | None = None
    clock: str = "monotonic"
    wall_minus_clock_ns: int | None = None


@dataclass(frozen=True)
class Version:
    """One line of the log.

    Args:
        number: counts from 0, the empty store.
        time: UTC, ISO 8601, for people; nothing is ordered by it.
        message: what was done.
        put: entries that are new or replace the one of the same name.
        removed: names that this version no longer holds.
        last: highest name ever given, as a number; -1 for none.
        episodes: all entries, in checkpoints only.
    """

    number: int
    time: str
    message: str
    put: tuple[Entry, ...] = ()
    removed: tuple[str, ...] = ()
    last: int = -1
    episodes: tuple[Entry, ...] | None = None


def make_entry(name: str, facts: Mapping[str, Any], digest: str) -> Entry:
    """The entry of a newly recorded episode."""
    length = int(facts["length"])
    chosen = {key: facts[key] for key in ENTRY_FIELDS}
    return Entry(name=name, length=length, data=digest, start=0, stop=length, **chosen)


def file_name(number: int) -> str:
    return f"{number:08d}.json"


def numbers(listing: Iterable[str]) -> list[int]:
    """Version numbers among the names in ``versions/``."""
    stems = (name.removesuffix(".json") for name in listing if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def encode(version: Version) -> bytes:
    """A version file: JSON whose last field is the SHA-256 of the rest."""
    tree = to_tree(version)
    return json.dumps({**tree, "sha256": _digest(tree)}, indent=1).encode() + b"\n"


def decode(data: bytes, where: str) -> Version:
    """Raises StoreError when the file is damaged."""
    try:
        tree = json.loads(data)
        digest = tree.pop("sha256")
        if digest != _digest(tree):
            raise StoreError(f"{where}: checksum does not match; the file is damaged")
        return from_tree(Version, tree, where)
    except (ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
        raise StoreError(f"{where} is damaged: {error}") from error


def entries_at(number: int, read: Callable[[int], Version]) -> dict[str, Entry]:
    """Name to entry of every episode of a version, in order of recording.

    Args:
        read: the version of a number; called from ``number`` back to the newest checkpoint.
    """
    later: list[Version] = []
    version = read(number)
    while version.episodes is None:
        later.append(version)
        if version.number == 0:
            break
        version = read(version.number - 1)
    entries = {entry.name: entry for entry in version.episodes or ()}
    for change in reversed(later):
        entries = apply(entries, change.put, change.removed)
    return entries


def apply(entries: dict[str, Entry], put: Iterable[Entry], removed: Iterable[str]) -> dict[str, Entry]:
    """The entries after a change; order is that of the names."""
    gone = set(removed)
    after = {name: entry for name, entry in entries.items() if name not in gone}
    after.update({entry.name: entry for entry in put})
    return dict(sorted(after.items(), key=lambda item: int(item[0])))


def following(
    before: Version,
    after: dict[str, Entry],
    time: str,
    message: str,
    put: tuple[Entry, ...],
    removed: tuple[str, ...],
) -> Version:
    """The version after ``before``, whose entries are ``after``; every CHECKPOINT-th lists them all."""
    number = before.number + 1
    last = max([before.last, *(int(entry.name) for entry in put)])
    episodes = None if number % CHECKPOINT else tuple(after.values())
    return Version(number, time, message, put, removed, last, episodes)


def tagged(storage: Storage, tag: str, where: str) -> int:
    """The version that a tag names, or that its digits are; StoreError lists the tags when there is none."""
    if tag.isascii() and tag.isdigit():
        return int(tag)
    try:
        return int(json.loads(storage.read(f"{TAGS}/{tag}.json"))["version"])
    except FileNotFoundError as error:
        known = sorted(name.removesuffix(".json") for name in storage.list(TAGS))
        raise StoreError(f"{where} has no tag {tag!r}; known: {', '.join(known) or 'none'}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{where}: tag {tag!r} is damaged: {error}") from error


def content_digest(entries: dict[str, Entry]) -> str:
    """SHA-256 (hex) over every entry, and so over every byte of data: which episodes exactly these are."""
    return _digest([to_tree(entry) for entry in entries.values()])


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
