"""Design A: plain Zarr v3, immutable episode groups, a version file per commit (``robopolicy.datasets``)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from designs.episodes import CAMERA, SPECS, content
from robopolicy.datasets import editing
from robopolicy.datasets.reader import Frames
from robopolicy.datasets.store import EpisodeStore


class Ours:
    """As an import writes it: every signal at once, encoded in this thread."""

    ways = ("one by one", "by zarr-python")
    conflicts = 0

    def __init__(self, path: Path) -> None:
        self.path, self.store = path, EpisodeStore.open(path)
        self._cameras: list[Frames] = []
        self._arrays: list[Any] = []

    @classmethod
    def create(cls, path: Path) -> Ours:
        EpisodeStore.create(path, SPECS)
        return cls(path)

    def append(self, seed: int) -> tuple[float, float]:
        signals = content(seed)
        begun = time.perf_counter()
        with self.store.begin(seed=seed, journalled=False, background=False) as writer:
            for name, signal in signals.items():
                writer.add(name, signal)
            written = time.perf_counter()
            writer.commit()
        ended = time.perf_counter()
        return ended - begun, ended - written

    def touch(self, number: int) -> None:
        self.store.change(f"touch {number}")

    def touched(self) -> int:
        return self.store.latest()

    def _names(self) -> dict[int, str]:
        return {entry.seed: name for name, entry in self.store.entries.items() if entry.seed is not None}

    def seeds(self) -> list[int]:
        return list(self._names())

    def read(self, seed: int) -> dict[str, NDArray[Any]]:
        signals = self.store.read(self._names()[seed]).signals()
        return {f"{name}/{part}": array for name, s in signals for part, array in vars(s).items()}

    def open_cameras(self, seeds: list[int]) -> None:
        names = self._names()
        self._cameras = [self.store.reader(names[seed]).frames(CAMERA) for seed in seeds]
        if "by zarr-python" in self.ways:
            groups = (zarr.open_group(self.path / "episodes" / names[seed], mode="r") for seed in seeds)
            self._arrays = [group[f"{CAMERA}/value"] for group in groups]

    def frames(self, which: NDArray[np.int64], way: str) -> NDArray[np.uint8]:
        if way == "by zarr-python":
            return np.stack([self._arrays[camera][step] for camera, step in which.tolist()])
        storage, read = self.store.storage, []
        for camera, step in which.tolist():
            read.append(self._cameras[camera].read(storage, np.array([step])))
        return np.concatenate(read)

    def tag(self, name: str) -> None:
        editing.tag(self.store, name)

    def count_at(self, path: Path, tag: str | None, back: int) -> int:
        version = self.store.version - back if tag is None else tag
        return len(EpisodeStore.open(path, version))
