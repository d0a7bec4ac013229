"""``metrics.jsonl``: one line per measurement, each {"step": ..., name: value, ...}."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

FILE = "metrics.jsonl"


class MetricsLog:
    """Appends; what cannot be written (a full disk) waits for the next line.

    Args:
        run: folder of the training.
        step: that it goes on from. Lines of later steps are of a run that broke off, and are dropped.
        warn: told once when the file cannot be written.
    """

    def __init__(self, run: Path, *, step: int, warn: Callable[[str], None]) -> None:
        self._path, self._warn = run / FILE, warn
        self._waiting: list[str] = []
        self._failed = False
        kept = [line for line in _lines(self._path) if _step(line) <= step]
        partial = self._path.with_name(FILE + ".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        partial.replace(self._path)
        self._size = self._path.stat().st_size

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line, on the disk as far as the system is concerned."""
        self._waiting.append(json.dumps({"step": step, **values}))
        text = "".join(line + "\n" for line in self._waiting)
        try:
            with self._path.open("r+") as file:
                file.seek(self._size)
                file.write(text)
                file.truncate()  # over what an earlier attempt may have left
        except OSError as error:
            if not self._failed:
                self._warn(f"cannot write {self._path}: {error}; the lines wait")
            self._failed = True
            return
        self._size += len(text)
        self._waiting, self._failed = [], False


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _step(line: str) -> float:
    """Infinity for a line that was cut off in the middle."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
