"""Small stores to work with, and what the tests of deleting, copying and recovering ask about them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from power import UnsyncedFiles
from synthetic import make_episode, make_specs

from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.store import EpisodeStore

TESTS = Path(__file__).resolve().parent
SPECS = make_specs(image=True).select(("goal", "scene"))


def make_store(path: Path, lengths: Sequence[int] = (9, 12, 5), first: int = 0, **facts: Any) -> EpisodeStore:
    """One state, one camera, two extras; seeds count from ``first``. Not synced: quick."""
    store = EpisodeStore.create(path, SPECS, {"made": "by a test"}, files=UnsyncedFiles())
    for seed, length in enumerate(lengths, start=first):
        store.append(make_episode(SPECS, length, seed, **facts))
    return store


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, locks aside."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and "lock" not in p.name)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Code in a process of its own, with tests/ importable."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_python(code: str, *arguments: object, expect: int = 0) -> str:
    """As ``start_python``; waits, and returns the output."""
    with start_python(code, *arguments) as process:
        out, error = process.communicate(timeout=120)
    assert process.returncode == expect, error
    return out


def steps_of(episode: Episode, start: int, stop: int) -> list[tuple[str, Signal]]:
    """The share of every signal that belongs to steps ``start`` to ``stop``."""
    found = []
    for name, whole in episode.signals():
        each = len(whole.value) // len(episode)
        part = slice(start * each, stop * each)
        found.append((name, Signal(whole.value[part], whole.time_ns[part])))
    return found
