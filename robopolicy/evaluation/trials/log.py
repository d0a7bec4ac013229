"""Judged trials on disk, one line each and synced at once; no line tells which policy ran."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.serial import from_tree, to_tree

SUCCESS, FAILURE, PARTIAL, REDO, TAKEN_BACK = "success", "failure", "partial", "redo", "taken back"
OUTCOMES = (SUCCESS, FAILURE, PARTIAL, REDO, TAKEN_BACK)
BEST_SCORE = 4


@dataclass(frozen=True)
class Line:
    """What a person said of one run.

    Args:
        number: of the trial.
        outcome: one of ``OUTCOMES``. "redo": the run does not count and is repeated; "taken back": the person
            withdraws the judgement before, so that trial is repeated too.
        score: 0 to 4, for a task done in part.
        time: ISO 8601.
        sealed: what was measured; see ``sealing``.
    """

    number: int
    outcome: str
    score: int
    note: str
    time: str
    sealed: str


class TrialLog:
    """Appends lines; reads them back after an interrupt.

    Args:
        path: the file; made where there is none.
        header: everything that decides the order and what runs. It is the first line, and a file with another
            one is refused.
    Raises:
        ConfigError: another header (the fields that differ are named), or a line before the last is damaged.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._header: dict[str, Any] = json.loads(json.dumps(to_tree(header)))
        self.lines: list[Line] = []
        if path.exists():
            self._read()
        if not path.exists():
            self._write(self._header)
            _sync_folder(path.parent)

    def append(self, line: Line) -> None:
        """Add one; it is on disk when this returns."""
        if line.outcome not in OUTCOMES or not 0 <= line.score <= BEST_SCORE:
            raise ConfigError(f"an outcome is one of {OUTCOMES}, a score 0 to {BEST_SCORE}; got {line}")
        self._write(asdict(line))
        self.lines.append(line)

    def judged(self) -> dict[int, Line]:
        """The judgement that counts of every trial that has one."""
        found: dict[int, Line] = {}
        for line in self.lines:
            if line.outcome == TAKEN_BACK:
                found.pop(line.number, None)
            elif line.outcome != REDO:
                found[line.number] = line
        return found

    def runs(self, number: int) -> int:
        """How often a trial has been run and looked at, whether it counted or not."""
        return sum(line.number == number and line.outcome != TAKEN_BACK for line in self.lines)

    def _write(self, tree: Mapping[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(tree).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        whole = self._path.read_bytes()
        lines = whole.split(b"\n")
        if lines[-1]:  # cut off while being written: that trial runs again
            with self._path.open("r+b") as file:
                file.truncate(len(whole) - len(lines[-1]))
        if len(lines) == 1:
            self._path.unlink()
            return
        for number, text in enumerate(lines[:-1], start=1):
            try:
                tree = json.loads(text)
                if number == 1:
                    self._check_header(tree)
                else:
                    self.lines.append(from_tree(Line, tree))
            except (ValueError, TypeError, SpecError) as error:
                raise ConfigError(f"{self._path}, line {number} is damaged: {error}") from error

    def _check_header(self, found: dict[str, Any]) -> None:
        names = sorted(found.keys() | self._header.keys())
        differing = [name for name in names if found.get(name) != self._header.get(name)]
        if differing:
            raise ConfigError(
                f"{self._path} belongs to other trials: {', '.join(differing)} differ; "
                "give the command that began them, or another --output"
            )


def _sync_folder(folder: Path) -> None:
    """The file's name must survive a power cut as well."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
