"""Episodes of every kind of signal, as a recorder hands them over; disks that are full or slow."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from power import UnsyncedFiles
from synthetic import STEP_NS, assert_same_signal, make_episode, make_specs

from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.files import AppendFile, Files
from robopolicy.datasets.recovery import Unfinished, recover
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.writer import EpisodeWriter, staging_folders

STATES = make_specs(image=True)
WRIST = ArraySpec((6, 5, 3), "uint8", kind="image")
RANGE = ArraySpec((3, 4, 1), "uint16", ("mm",), kind="depth")
COUNTS = ArraySpec((2,), "int16", ("1", "1"))
SPECS = Specs(
    {**STATES.observation, "wrist": WRIST, "range": RANGE, "counts": COUNTS},
    STATES.action,
    STATES.policy_rate,
)
FACTS = {"instruction": "do it", "success": True, "metadata": {"who": "test"}, "seed": 4}
#: In the thread that adds, or in one of its own.
MODES = pytest.mark.parametrize("background", [False, True])


def episode_of(length: int, seed: int = 4) -> Episode:
    """Every kind of signal; rates differ."""
    whole, rng = make_episode(STATES, length, seed), np.random.default_rng(seed)
    slow = np.arange(0, length, 2, dtype=np.int64) * STEP_NS
    more = {
        "wrist": Signal(rng.integers(0, 256, (len(slow), *WRIST.shape), dtype=np.uint8), slow),
        "range": Signal(rng.integers(0, 65536, (len(slow), *RANGE.shape), dtype=np.uint16), slow - 5),
        "counts": Signal(rng.integers(-9, 9, (length, 2)).astype(np.int16), whole.action.time_ns),
    }
    return Episode({**whole.observation, **more}, whole.action, extra=whole.extra, **FACTS)


EPISODE = episode_of(8)


def samples(episode: Episode) -> list[tuple[str, Signal]]:
    """One sample per ``add``, as a recorder meets them: in order of time, whatever the signal."""
    found = [
        (int(signal.time_ns[i]), name, Signal(signal.value[i : i + 1], signal.time_ns[i : i + 1]))
        for name, signal in episode.signals()
        for i in range(len(signal.value))
    ]
    return [(name, block) for _, name, block in sorted(found, key=lambda item: item[:2])]


def new_store(folder: Path, files: Files | None = None, specs: Specs = SPECS, **codec: Any) -> EpisodeStore:
    """Created on a sound disk, then open on ``files``."""
    EpisodeStore.create(folder / "s.zarr", specs, files=UnsyncedFiles(), **codec)
    return EpisodeStore.open(folder / "s.zarr", files=files or UnsyncedFiles())


def sound(store: EpisodeStore) -> EpisodeStore:
    """The same store, on a disk that works again."""
    return EpisodeStore.open(store.path, files=UnsyncedFiles())


def staged(store: EpisodeStore) -> list[Path]:
    return staging_folders(store.path)


def assert_prefix(found: Episode, whole: Episode) -> None:
    """Every signal bit for bit the beginning of the whole one's."""
    signals = dict(whole.signals())
    for name, signal in found.signals():
        count = len(signal.value)
        assert count > 0
        assert_same_signal(signal, Signal(signals[name].value[:count], signals[name].time_ns[:count]))


def begun(store: EpisodeStore, **options: Any) -> EpisodeWriter:
    """A writer that has been given all of ``EPISODE``."""
    episode = store.begin(**options, **FACTS)
    for name, signal in EPISODE.signals():
        episode.add(name, signal)
    return episode


def recovered_from(store: EpisodeStore, item: Unfinished) -> Episode:
    """What becomes of an unfinished episode."""
    store = sound(store)
    return store.read(recover(store, item))


def writer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "episode-writer"]


class FullFiles(UnsyncedFiles):
    """A disk with ``room`` bytes left for what grows; as on a real one, the last write is half done."""

    def __init__(self, room: int) -> None:
        self.room = room

    def append_file(self, path: Path) -> AppendFile:
        return _OnFullDisk(path, self)


class _OnFullDisk(AppendFile):
    def __init__(self, path: Path, disk: FullFiles) -> None:
        super().__init__(path)
        self._disk = disk

    def write(self, data: bytes) -> int:
        fits, self._disk.room = data[: max(self._disk.room, 0)], self._disk.room - len(data)
        if len(fits) < len(data):
            os.write(self._descriptor, fits)
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)

    def sync(self) -> None:
        return None


class GatedFiles(UnsyncedFiles):
    """A disk on which one camera's frames wait for ``gate`` to be written, or to be synced."""

    def __init__(self, camera: str, operation: str) -> None:
        self.camera, self.operation = camera, operation
        self.gate, self.waits = threading.Event(), threading.Event()

    def append_file(self, path: Path) -> AppendFile:
        return _Gated(path, self) if self.camera in path.parts else super().append_file(path)


class _Gated(AppendFile):
    def __init__(self, path: Path, disk: GatedFiles) -> None:
        super().__init__(path)
        self._disk = disk

    def write(self, data: bytes) -> int:
        self._wait("write")
        return super().write(data)

    def sync(self) -> None:
        self._wait("sync")

    def _wait(self, operation: str) -> None:
        if operation != self._disk.operation:
            return
        self._disk.waits.set()
        if not self._disk.gate.wait(20):
            raise OSError(errno.EIO, "the gate never opened")


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread
