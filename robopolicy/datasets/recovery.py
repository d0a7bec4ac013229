"""Episodes that their recorder did not finish: found, turned into episodes, or thrown away."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.errors import StoreError
from robopolicy.core.serial import to_tree
from robopolicy.datasets import codecs, draft, journal, locks
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.writer import EpisodeWriter, staging_folders

Place = tuple[int, int]  # of a frame in the file that becomes its shard: offset and size [bytes]


@dataclass(frozen=True)
class Unfinished:
    """One of them.

    Args:
        name: of its staging folder.
        bytes: written so far.
    """

    name: str
    folder: Path
    bytes: int


def unfinished(store: EpisodeStore) -> list[Unfinished]:
    """Journals that no living recorder holds. Reads names and sizes only: quick, however long they are."""
    found = []
    for folder in staging_folders(store.path):
        whole = not (folder / "episode").is_dir()  # it got its name; only the journal was not cleared away
        if (folder / journal.FILE).is_file() and not whole and not locks.is_held(folder / locks.FILE):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append(Unfinished(folder.name, folder, size))
    return found


def discard(store: EpisodeStore, item: Unfinished) -> None:
    """Throw an unfinished episode away. StoreError when its recorder lives after all."""
    with _held(store, item):
        shutil.rmtree(item.folder)


def recover(store: EpisodeStore, item: Unfinished) -> str:
    """Make an episode of what was written; returns its name. Nobody has judged it: success is unknown.

    What was cut short is left out: a last record that is not whole, frames whose checksum is off, actions
    before every observation was there.

    Raises:
        StoreError: nothing usable was written, or its recorder lives after all; it stays as it is.
    """
    with _held(store, item):
        try:
            header, tracks = _read(item)
        except OSError as error:
            raise StoreError(f"{item.folder} cannot be read: {error}") from error
        if not header:
            raise StoreError(f"{item.folder}: nothing was written; discard it")
        if header.get("specs") != to_tree(store.specs):
            raise StoreError(f"{item.folder}: recorded under other specs than {store.where}")
        needed = ["action", *(f"observation/{key}" for key in store.specs.observation)]
        lacking = [name for name in needed if name not in tracks]
        if lacking:
            raise StoreError(f"{item.folder}: nothing was written of {lacking}; discard it")
        ready = max(int(tracks[name][0][0]) for name in needed[1:])
        facts = {**header["facts"], "success": None}
        facts["metadata"] = {**facts["metadata"], "recovered": True}
        where = f"unfinished episode {item.name}"
        with store.begin(where=where, journalled=False, background=False, **facts) as writer:
            for name, (times, values) in tracks.items():
                keep = times >= ready if name == "action" else np.ones(len(times), bool)
                if not keep.any():
                    raise StoreError(
                        f"{item.folder}: no action after every observation was there; discard it"
                    )
                if isinstance(values, list):
                    _copy_frames(writer, name, times, values, item.folder)
                else:
                    writer.add(name, Signal(values[keep], times[keep]))
            name = writer.commit()
        shutil.rmtree(item.folder)
    return name


def _held(store: EpisodeStore, item: Unfinished) -> locks.Lock:
    try:
        return locks.Lock(item.folder / locks.FILE, wait=False)
    except BlockingIOError as error:
        raise StoreError(f"{item.folder} is being recorded; {store.where} keeps it") from error
    except FileNotFoundError as error:
        raise StoreError(f"{item.folder} is gone: somebody else recovered or discarded it") from error


def _copy_frames(writer: EpisodeWriter, name: str, times: Any, places: list[Place], folder: Path) -> None:
    writer.open_track(name)
    with draft.shard_path(folder / "episode", name).open("rb") as file:
        for time_ns, (offset, size) in zip(times.tolist(), places):
            file.seek(offset)
            writer.add_encoded(name, time_ns, file.read(size))


def _read(item: Unfinished) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """The journal's header, and per signal its times and either values or the places of its frames."""
    entries = journal.records((item.folder / journal.FILE).read_bytes())
    header = next(entries, ({}, b""))[0]
    times: dict[str, list[Any]] = {}
    values: dict[str, list[Any]] = {}
    for head, body in entries:
        name, count = head["signal"], head["shape"][0]
        if not count:
            continue
        time_ns = np.frombuffer(body[: 8 * count], np.int64)
        if head["places"]:
            frames = _frames(item.folder, name, head["places"])
            time_ns = time_ns[: len(frames)]
            values.setdefault(name, []).extend(frames)
        else:
            block = np.frombuffer(body[8 * count :], head["dtype"]).reshape(head["shape"])
            values.setdefault(name, []).append(block)
        times.setdefault(name, []).append(time_ns)
    joined = {
        name: values[name] if isinstance(values[name][0], tuple) else np.concatenate(values[name])
        for name in times
        if values[name]
    }
    return header, {name: (np.concatenate(times[name]), joined[name]) for name in joined}


def _frames(folder: Path, name: str, places: list[Place]) -> list[Place]:
    """Where the frames lie whose checksum fits, up to the first that does not."""
    whole = []
    with draft.shard_path(folder / "episode", name).open("rb") as file:
        for offset, size in places:
            file.seek(offset)
            try:
                codecs.checked(file.read(size), name)
            except StoreError:
                break
            whole.append((offset, size))
    return whole
