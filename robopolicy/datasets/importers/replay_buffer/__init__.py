"""Diffusion Policy / UMI ReplayBuffer: Zarr v2, every episode end to end in one array per key.

Layout: ``data/KEY`` (frames, ...) and ``meta/episode_ends`` (episodes,), in a folder or a zip. Nothing in it
says what the numbers mean or how fast they were recorded, so a mapping is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, ImportFormatError, ShapeError
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.importers._boundary import choose_episodes, leave_out
from robopolicy.datasets.importers._frames import (
    action_values,
    blocks,
    describe,
    make_specs,
    observation_values,
)
from robopolicy.datasets.importers._windows import FrameArray
from robopolicy.datasets.importers.mapping import Mapping, load_mapping, shipped
from robopolicy.datasets.importers.replay_buffer.zarr_v2 import Archive, open_archive
from robopolicy.datasets.importers.source import ImportOptions, Report, SourceEpisode

ENDS = "meta/episode_ends"


def matches(path: Path) -> bool:
    """A zip, or a folder that is a Zarr v2 group."""
    return path.name.endswith(".zip") if path.is_file() else (path / ".zgroup").is_file()


@contextlib.contextmanager
def open_source(path: Path, options: ImportOptions) -> Iterator[ReplayBuffer]:
    """Open a ReplayBuffer; values will be copied bit-equal.

    Raises:
        ConfigError: no mapping; ImportFormatError: not a ReplayBuffer, damaged, or a mapped key is missing;
        ShapeError: a key has fewer frames than the actions.
    """
    with open_archive(path) as archive:
        known = archive.arrays("data")
        if not known or ENDS not in {f"meta/{name}" for name in archive.arrays("meta")}:
            raise ImportFormatError(f"{path} has no data/ group or {ENDS}")
        if options.mapping is None:
            raise ConfigError(
                f"{path} does not say what its arrays {known} mean nor their rate: "
                f"give --mapping, a YAML file or one of {shipped()}"
            )
        mapping = leave_out(load_mapping(options.mapping), options, known)
        yield ReplayBuffer(archive, mapping, options, known)


class ReplayBuffer:
    """A Source; see ``source.Source``."""

    def __init__(self, archive: Archive, mapping: Mapping, options: ImportOptions, known: list[str]) -> None:
        self._archive = archive
        self._mapping = mapping
        self._name = archive.path.name
        for name in mapping.sources:
            if name not in known:
                raise ImportFormatError(f"{archive.path} has no data/{name}; it has {known}")
        arrays = {name: self._open(name) for name in mapping.sources}
        headers = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        self.specs = make_specs(mapping, headers, str(archive.path), "data/")
        self._ends = self._read_ends(arrays)
        self._check_lengths(arrays)
        self.report = Report(ignored=sorted(set(known) - set(mapping.sources)))
        describe(mapping, headers, self.report)
        self._chosen = self._choose(arrays, options)

    def __len__(self) -> int:
        return len(self._chosen)

    def episodes(self) -> Iterator[SourceEpisode]:
        readers = {name: [self._open(m.source)] for name, m in self._mapping.observation.items()}
        readers["action"] = [self._open(p.source) for p in self._mapping.action.pieces]
        for number in self._chosen:
            start, stop = self._span(number)
            facts = {
                "instruction": self._mapping.instruction,
                "clock": "frame_index",
                "metadata": {"source_episode": number},
            }
            yield SourceEpisode(f"episode {number}", self._signals(readers, number, start, stop), facts)

    def _signals(
        self, readers: dict[str, list[FrameArray]], number: int, start: int, stop: int
    ) -> dict[str, Iterator[Signal]]:
        signals, rate = {}, self._mapping.rate
        for name, part in self._mapping.observation.items():
            read = self._observation_reader(readers[name][0], name, number, start)
            signals[f"observation/{name}"] = blocks(stop - start, rate, read, part.kind)
        ahead = self._mapping.action.ahead
        read = self._action_reader(readers["action"], number, start + ahead)
        return {**signals, "action": blocks(stop - start - ahead, rate, read)}

    def _observation_reader(
        self, array: FrameArray, name: str, number: int, start: int
    ) -> Callable[[int, int], NDArray[Any]]:
        part, where = self._mapping.observation[name], f"{self._name}, episode {number}, {name}"

        def read(first: int, last: int) -> NDArray[Any]:
            with _named(where):
                values = array.read(start + first, start + last)
            return observation_values(part, values, where, first)

        return read

    def _action_reader(
        self, arrays: list[FrameArray], number: int, start: int
    ) -> Callable[[int, int], NDArray[Any]]:
        def read(first: int, last: int) -> NDArray[Any]:
            with _named(f"{self._name}, episode {number}, action"):
                values = [array.read(start + first, start + last) for array in arrays]
            return action_values(self._mapping.action.pieces, values)

        return read

    def _open(self, name: str) -> FrameArray:
        return self._archive.array(f"data/{name}")

    def _span(self, number: int) -> tuple[int, int]:
        return (int(self._ends[number - 1]) if number else 0), int(self._ends[number])

    def _read_ends(self, arrays: dict[str, FrameArray]) -> NDArray[np.int64]:
        array = self._archive.array(ENDS)
        frames = arrays[self._mapping.action.pieces[0].source].shape[0]
        plain = array.dtype.kind in "iu" and len(array.shape) == 1 and array.shape[0] <= frames
        if not plain or self._archive.missing_frames(ENDS, array):
            raise ImportFormatError(
                f"{self._archive.path}: episode_ends must increase and end at {frames}, "
                f"got {array.dtype} {array.shape} or a part of it"
            )
        stops = array.read(0, array.shape[0]).astype(np.int64) if array.shape[0] else np.zeros(0, np.int64)
        if not len(stops) or (np.diff(stops, prepend=0) <= 0).any() or stops[-1] != frames:
            raise ImportFormatError(
                f"{self._archive.path}: episode_ends must increase and end at {frames}, got {stops}"
            )
        ahead = self._mapping.action.ahead
        short = np.flatnonzero(np.diff(stops, prepend=0) <= ahead)
        if short.size:
            raise ImportFormatError(
                f"{self._archive.path}, episode {short[0]}: too short for an action {ahead} frames ahead"
            )
        return stops

    def _check_lengths(self, arrays: dict[str, FrameArray]) -> None:
        frames = int(self._ends[-1])
        for name, array in arrays.items():
            if array.shape[0] != frames:
                number = int(np.searchsorted(self._ends, min(array.shape[0], frames - 1), side="right"))
                raise ShapeError(
                    f"{array.where} has {array.shape[0]} frames, the actions {frames}; they part in "
                    f"episode {number}, {name}"
                )

    def _choose(self, arrays: dict[str, FrameArray], options: ImportOptions) -> list[int]:
        """Episodes to import; those that lack a chunk are refused, or left out when asked."""
        chosen = choose_episodes(len(self._ends), options, str(self._archive.path))
        lacking: dict[int, str] = {}
        for name, array in arrays.items():
            for start, stop in self._archive.missing_frames(f"data/{name}", array):
                first = int(np.searchsorted(self._ends, start, side="right"))
                last = int(np.searchsorted(self._ends, stop - 1, side="right"))
                for number in range(first, last + 1):
                    lacking.setdefault(
                        number, f"episode {number}: data/{name} lacks frames {start} to {stop - 1}"
                    )
        lines = [lacking[number] for number in chosen if number in lacking]
        if lines and not options.skip_missing:
            raise ImportFormatError(
                f"{self._archive.path}, {lines[0]} (no chunk file, which Zarr reads as zeros); "
                f"--skip-missing leaves out the {len(lines)} episodes concerned"
            )
        self.report.missing.extend(lines)
        return [number for number in chosen if number not in lacking]


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Say which episode a chunk that cannot be decoded belongs to."""
    try:
        yield
    except ImportFormatError as error:
        raise ImportFormatError(f"{where}: {error}") from error
