"""Changes to which episodes count and what is said of them. Each makes a version; data are never touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from robopolicy.core.errors import ConfigError, StoreError
from robopolicy.datasets import schema, versions
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.versions import Version

_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Relabel:
    """New facts; None leaves one as it is.

    Args:
        success: "yes", "no" or "unknown".
    """

    instruction: str | None = None
    success: str | None = None

    def __post_init__(self) -> None:
        if self.success not in (None, "yes", "no", "unknown"):
            raise ConfigError(f"success must be 'yes', 'no' or 'unknown', got {self.success!r}")
        if self.instruction is None and self.success is None:
            raise ConfigError("nothing to relabel: give an instruction, a success, or both")


def resolve(store: EpisodeStore, chosen: Iterable[str]) -> list[str]:
    """Episode names from what a person writes: "3", "000003", "3-7".

    Raises:
        StoreError: one of them is no episode of this version; ConfigError: not a number or a range.
    """
    names: list[str] = []
    for text in chosen:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if match is None:
            raise ConfigError(f"{text!r} is no episode: write a number (12) or a range (3-7)")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"the range {text!r} is backwards")
        found = [name for name in store.names if first <= int(name) <= last]
        if match[2] is None or not found:
            found = [store.entry(schema.episode_name(first)).name]
        names += [name for name in found if name not in names]
    return names


def delete(store: EpisodeStore, names: Sequence[str]) -> int:
    """A version without these episodes; their data stay, and older versions still hold them.

    Raises:
        StoreError: one of them is not there; ConfigError: none is named. Nothing is changed.
    """
    _some(names)
    for name in names:
        store.entry(name)
    return store.change(f"delete {_list(names)}", removed=names)


def trim(store: EpisodeStore, name: str, start: int, stop: int) -> int:
    """A version in which only steps ``start`` to ``stop`` (exclusive) of an episode count, as now counted.

    Raises:
        StoreError: no such episode; ConfigError: the span is empty or reaches beyond its steps.
    """
    entry = store.entry(name)
    if not 0 <= start < stop <= entry.length:
        raise ConfigError(f"episode {name} has steps 0..{entry.length}; cannot keep {start}..{stop}")
    shorter = replace(entry, start=entry.start + start, stop=entry.start + stop, length=stop - start)
    return store.change(f"trim {name} to {start}..{stop}", put=[shorter])


def relabel(store: EpisodeStore, names: Sequence[str], labels: Relabel) -> int:
    """A version in which these episodes have other facts.

    Raises:
        StoreError: one of them is not there; ConfigError: none is named. Nothing is changed.
    """
    _some(names)
    changed = []
    for name in names:
        entry = store.entry(name)
        if labels.instruction is not None:
            entry = replace(entry, instruction=labels.instruction)
        if labels.success is not None:
            entry = replace(entry, success={"yes": True, "no": False, "unknown": None}[labels.success])
        changed.append(entry)
    return store.change(f"relabel {_list(names)}", put=changed)


def restore(store: EpisodeStore, version: int) -> int:
    """A new version that holds what an old one held. Nothing in between is lost: it can be restored too."""
    old = versions.entries_at(version, store.read_version)
    removed = [name for name in store.names if name not in old]
    changed = [entry for entry in old.values() if store.entries.get(entry.name) != entry]
    return store.change(f"restore version {version}", put=changed, removed=removed)


def tag(store: EpisodeStore, name: str, version: int | None = None) -> int:
    """Give a version a name, once and for all.

    Raises:
        ConfigError: not a name; StoreError: the name is taken, or there is no such version.
    """
    if not _TAG.fullmatch(name):
        raise ConfigError(f"{name!r} is no tag: a letter, then letters, digits, '_', '.', '-'")
    number = store.version if version is None else version
    store.read_version(number)
    folder = store.path / versions.TAGS
    with store.writing():
        store.files.make_folder(folder)
        store.files.sync_folder(store.path)
        try:
            store.files.create(folder / f"{name}.json", json.dumps({"version": number}).encode() + b"\n")
        except FileExistsError as error:
            taken = tags(store)[name]
            raise StoreError(f"{store.where}: tag {name!r} is version {taken}; tags never move") from error
    return number


def tags(store: EpisodeStore) -> dict[str, int]:
    """Tag to version."""
    found = {}
    for file in sorted(store.storage.list(versions.TAGS)):
        if file.endswith(".json") and not file.startswith("."):
            try:
                found[file.removesuffix(".json")] = int(
                    json.loads(store.storage.read(f"{versions.TAGS}/{file}"))["version"]
                )
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{store.where}: {versions.TAGS}/{file} is damaged: {error}") from error
    return found


def log(store: EpisodeStore) -> list[Version]:
    """Every version, the newest first."""
    return [store.read_version(number) for number in range(store.latest(), -1, -1)]


def _some(names: Sequence[str]) -> None:
    if not names:
        raise ConfigError("no episode named: write numbers (12) or ranges (3-7)")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:7])} and {len(names) - 7} more"
