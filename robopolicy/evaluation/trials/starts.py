"""The starts that a person restores before every trial: photographs, or positions in a YAML file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robopolicy.core.errors import ConfigError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Start:
    """One initial condition.

    Args:
        name: for people, and for the report.
        photograph: of the scene, taken by the camera that also shows the live picture; None without.
        positions: object to its place, (x, y) or (x, y, z) in the robot's base frame [m].
    """

    name: str
    photograph: Path | None = None
    positions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over everything above, the photograph's bytes included."""
        sha = hashlib.sha256(repr((self.name, sorted(self.positions.items()))).encode())
        sha.update(self.photograph.read_bytes() if self.photograph else b"")
        return sha.hexdigest()


def load_starts(path: Path) -> tuple[Start, ...]:
    """Every picture of a folder, by name; or the entries of a YAML file.

    An entry is ``{name: ..., positions: {cube: [0.5, 0.1]}, photograph: left.png}``; it needs the name and
    one of the others. Photographs lie beside the file.

    Raises:
        ConfigError: nothing there, an entry that cannot be read (named), or a name twice.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        starts = tuple(Start(file.stem, file) for file in files)
    elif path.is_file():
        starts = _from_yaml(path)
    else:
        raise ConfigError(f"no folder of photographs and no YAML file at {path}")
    if not starts:
        raise ConfigError(f"{path} holds no start: no picture ending in {', '.join(PICTURES)}, no entry")
    names = [start.name for start in starts]
    if len(set(names)) < len(names):
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        raise ConfigError(f"{path}: the names {twice} occur more than once")
    return starts


def _from_yaml(path: Path) -> tuple[Start, ...]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(entries, list):
        raise ConfigError(f"{path} must be a list of starts, got {type(entries).__name__}")
    return tuple(_entry(path, place, entry) for place, entry in enumerate(entries, start=1))


def _entry(path: Path, place: int, entry: Any) -> Start:
    where = f"{path}, entry {place}"
    known = {"name", "photograph", "positions"}
    if not isinstance(entry, dict) or not entry.get("name") or set(entry) - known:
        raise ConfigError(f"{where} must be a mapping of name and {sorted(known - {'name'})}, got {entry!r}")
    positions = {}
    for thing, place_of in (entry.get("positions") or {}).items():
        numbers = isinstance(place_of, list) and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in place_of
        )
        if not numbers or len(place_of) not in (2, 3):
            raise ConfigError(f"{where}: {thing} needs [x, y] or [x, y, z] in metres, got {place_of!r}")
        positions[str(thing)] = tuple(float(v) for v in place_of)
    photograph = path.parent / entry["photograph"] if entry.get("photograph") else None
    if photograph is not None and not photograph.is_file():
        raise ConfigError(f"{where}: no photograph at {photograph}")
    if photograph is None and not positions:
        raise ConfigError(f"{where} needs a photograph or positions, got {entry!r}")
    return Start(str(entry["name"]), photograph, positions)
