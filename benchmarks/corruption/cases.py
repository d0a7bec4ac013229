"""Ways to damage a bundle, and ways to forge one."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.runtime.bundle.contract import NORMALISERS
from robopolicy.runtime.bundle.directory import SPECS
from robopolicy.runtime.bundle.manifest import MANIFEST, canonical, checksum, describe_file

Files = dict[str, bytes]


@dataclass(frozen=True)
class Case:
    """One altered bundle.

    Args:
        kind: what was done.
        told: files of which the refusal must name one.
        files: name to content, all of them.
        also: what else to do in the folder.
    """

    kind: str
    told: tuple[str, ...]
    files: Files
    also: Callable[[Path], None] = lambda folder: None

    def write(self, folder: Path, good: Path) -> None:
        """Into an existing empty folder; what is unchanged is linked."""
        unchanged = {path.name: path.read_bytes() for path in good.iterdir()}
        for name, data in self.files.items():
            if unchanged.get(name) == data:
                os.link(good / name, folder / name)
            else:
                (folder / name).write_bytes(data)
        self.also(folder)

    def named(self, message: str) -> bool:
        return any(re.search(re.escape(name), message) for name in self.told)


def damage(good: Files, other: Files, flips: int) -> Iterator[Case]:
    """What disks, networks and hands do: nothing of it is consistent.

    Args:
        good, other: two valid bundles of the same layout.
        flips: bits to flip in each file.
    """
    rng = np.random.default_rng(0)
    for name, data in good.items():
        places = {0, len(data) - 1, *rng.integers(0, len(data), flips).tolist()}
        for place in sorted(places):
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            yield Case("bit flipped", (name,), {**good, name: bytes(flipped)})
        for size in sorted({0, 1, len(data) // 2, len(data) - 1}):
            yield Case("truncated", (name,), {**good, name: data[:size]})
        for tail in (b" ", b"\n", bytes(1024), data):
            yield Case("extended", (name,), {**good, name: data + tail})
        for partner, content in good.items():
            if partner > name and content != data:
                yield Case("two swapped", (name, partner), {**good, name: content, partner: data})
        if other[name] != data:
            # A whole foreign manifest is consistent with itself: the files that it lists are not there.
            told = tuple(good) if name == MANIFEST else (name,)
            yield Case("of another bundle", told, {**good, name: other[name]})
        yield from _missing_and_replaced(good, name)
    yield from _added(good)
    for edited, what in _edits(json.loads(good[MANIFEST])):
        text = (json.dumps(edited, indent=2, sort_keys=True) + "\n").encode()
        yield Case(f"manifest {what}", (MANIFEST,), {**good, MANIFEST: text})


def forgeries(good: Files, other: Files) -> Iterator[Case]:
    """What someone does who makes the hashes agree: only contradictions show, or a pinned digest."""
    for edited, what in _edits(json.loads(good[MANIFEST])):
        if isinstance(edited, dict):
            edited["checksum"] = checksum(edited)
            yield Case(f"manifest {what}", (MANIFEST, *good), {**good, MANIFEST: canonical(edited)})
    for name in (n for n in good if n.endswith((SPECS, NORMALISERS))):
        for edited, what in _edits(json.loads(good[name])):
            data = (json.dumps(edited, indent=2) + "\n").encode()
            yield Case(f"{name} {what}", tuple(good), rehash({**good, name: data}))
    graphs = [name for name in good if name.endswith(".onnx")]
    for name in good:
        if name != MANIFEST and other[name] != good[name]:
            yield Case("of another bundle", tuple(good), rehash({**good, name: other[name]}))
    for name in graphs:
        for partner in graphs:
            if partner > name:
                swapped = {**good, name: good[partner], partner: good[name]}
                yield Case("two graphs swapped", tuple(good), rehash(swapped))
        half = {**good, name: good[name][: len(good[name]) // 2]}
        yield Case("half a graph", tuple(good), rehash(half))


def rehash(files: Files) -> Files:
    """The manifest made to agree with the files."""
    tree = json.loads(files[MANIFEST])
    for name in tree["files"]:
        entry = describe_file(files[name])
        tree["files"][name] = {"bytes": entry.bytes, "sha256": entry.sha256}
    tree["checksum"] = checksum(tree)
    return {**files, MANIFEST: canonical(tree)}


def _missing_and_replaced(good: Files, name: str) -> Iterator[Case]:
    rest = {key: data for key, data in good.items() if key != name}
    yield Case("removed", (name,), rest)
    for new in (f"{name}.bak", name.upper(), f".{name}"):
        yield Case("renamed", (name, new), {**rest, new: good[name]})

    def linked(folder: Path) -> None:
        (folder.parent / "elsewhere").write_bytes(good[name])
        (folder / name).symlink_to(folder.parent / "elsewhere")

    replaced: dict[str, Callable[[Path], None]] = {
        "a link to the same bytes": linked,
        "a dangling link": lambda folder: (folder / name).symlink_to(folder / "nothing"),
        "a directory": lambda folder: (folder / name).mkdir(),
        "a pipe": lambda folder: os.mkfifo(folder / name),
    }
    for what, make in replaced.items():
        yield Case(f"replaced by {what}", (name,), rest, make)


def _added(good: Files) -> Iterator[Case]:
    for name in ("weights.bin", ".hidden", "manifest.json~", "code.py", "model.pkl"):
        yield Case("file added", (name,), {**good, name: b"x"})
    yield Case("directory added", ("extra",), good, lambda folder: (folder / "extra").mkdir())
    yield Case("link added", ("extra",), good, lambda folder: (folder / "extra").symlink_to("specs.json"))


def _edits(tree: Any) -> Iterator[tuple[Any, str]]:
    """Copies of a JSON tree with one thing changed: every value, every key removed, one added anywhere."""
    for path in _paths(tree):
        holder, key = _at(tree, path[:-1]), path[-1]
        for value in _other_values(holder[key]):
            if value == holder[key]:
                continue
            changed = copy.deepcopy(tree)
            _at(changed, path[:-1])[key] = value
            yield changed, "value changed"
        removed = copy.deepcopy(tree)
        del _at(removed, path[:-1])[key]
        yield removed, "entry removed"
    for path in [(), *(p for p in _paths(tree) if isinstance(_at(tree, p), dict))]:
        added = copy.deepcopy(tree)
        _at(added, path)["surprise"] = 1
        yield added, "entry added"


def _other_values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, (int, float)):
        return [value + 1, -value - 1, "text"]
    if isinstance(value, str):
        return [f"{value}x", "", 7]
    return [[], {}, None] if value else [[1], {"a": 1}]


def _paths(tree: Any, start: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield (*start, key)
        yield from _paths(value, (*start, key))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
