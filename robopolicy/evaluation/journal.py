"""Finished episodes on disk, one line each, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.evaluation.results import EpisodeResult


class EpisodeJournal:
    """Appends results to a JSON Lines file and syncs each; reads back what was finished.

    Args:
        path: the file; made with the first episode.
        key: everything that decides the results (policy, environment, noise seed). It is the first line, and
            another key is refused: those episodes would be of something else.
    Raises:
        ConfigError: the file belongs to another key, or a line other than the last cannot be read.
    """

    def __init__(self, path: Path, key: dict[str, Any]) -> None:
        self._path = path
        self._key = json.loads(json.dumps(to_tree(key)))
        self.episodes: dict[int, EpisodeResult] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        whole = self._path.read_bytes()
        lines = whole.split(b"\n")
        if lines[-1]:  # cut off while being written: that episode runs again
            with self._path.open("r+b") as file:
                file.truncate(len(whole) - len(lines[-1]))
        for number, line in enumerate(lines[:-1], start=1):
            try:
                tree = json.loads(line)
                if number == 1:
                    self._check_key(tree)
                    continue
                episode = from_tree(EpisodeResult, tree)
            except (ValueError, TypeError, SpecError) as error:
                raise ConfigError(f"{self._path}, line {number} is damaged: {error}") from error
            self.episodes[episode.seed] = episode

    def _check_key(self, found: dict[str, Any]) -> None:
        differing = sorted(
            name for name in found.keys() | self._key.keys() if found.get(name) != self._key.get(name)
        )
        if differing:
            listing = "; ".join(f"{n}: {found.get(n)!r}, now {self._key.get(n)!r}" for n in differing)
            raise ConfigError(f"{self._path} belongs to another evaluation ({listing})")

    def append(self, episode: EpisodeResult) -> None:
        """Add one result; it is on disk when this returns."""
        lines = [] if self._path.exists() else [self._key]
        with self._path.open("ab") as file:
            for tree in (*lines, to_tree(episode)):
                file.write(json.dumps(tree).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.episodes[episode.seed] = episode
