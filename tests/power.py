"""A file layer that forgets, when the power is cut, all that was not synced."""

from __future__ import annotations

import os
import random
from pathlib import Path

from robopolicy.datasets.files import AppendFile, Files


class PowerCutError(Exception):
    """The machine is off."""


class _File(AppendFile):
    def __init__(self, path: Path, layer: PowerFiles) -> None:
        layer.tick()
        super().__init__(path)
        self._layer = layer

    def write(self, data: bytes) -> int:
        self._layer.tick()
        return super().write(data)

    def sync(self) -> None:  # the disk itself need not follow: what lasts is kept here
        self._layer.tick()
        self._layer.content[self.path.stat().st_ino] = self.path.read_bytes()


class PowerFiles(Files):
    """Counts operations and cuts the power before number ``cut_at``.

    A file's content lasts as of its last ``sync``, a folder's names as of its last ``sync_folder``: POSIX
    promises no more. With ``luck``, each unsynced file and folder survives with probability 1/2, as
    a real machine may well do.

    Args:
        survivors: where the tree that outlived the cut is laid out.
    """

    def __init__(self, root: Path, survivors: Path, cut_at: int | None, luck: int | None = None) -> None:
        self.root, self.survivors, self.cut_at, self.operations = root, survivors, cut_at, 0
        self._luck = None if luck is None else random.Random(luck)
        self.content: dict[int, bytes] = {}
        self.names: dict[int, dict[str, Path]] = {}
        self.is_cut = False
        for folder, _, files in os.walk(root):  # what is there before has been there long enough
            self._remember(Path(folder))
            for file in files:
                path = Path(folder, file)
                self.content[path.stat().st_ino] = path.read_bytes()

    def tick(self) -> None:
        if self.is_cut:
            raise PowerCutError
        self.operations += 1
        if self.operations == self.cut_at:
            self.is_cut = True
            self._survive(self.root.stat().st_ino, self.root, self.survivors)
            raise PowerCutError

    def append_file(self, path: Path) -> AppendFile:
        return _File(path, self)

    def make_folder(self, path: Path) -> None:
        self.tick()
        super().make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self.tick()
        if path.is_relative_to(self.root):
            self._remember(path)

    def rename(self, old: Path, new: Path) -> None:
        self.tick()
        super().rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        self.tick()
        super().link(old, new)

    def _remember(self, folder: Path) -> None:
        self.names[folder.stat().st_ino] = {
            entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)
        }

    def _survive(self, inode: int, now: Path | None, target: Path) -> None:
        target.mkdir()
        names = self.names.get(inode, {})
        if now is not None and self._lucky():
            names = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(now)}
        for name, (child, is_folder) in names.items():
            present = None if now is None else now / name
            if present is not None and not (present.exists() and present.stat().st_ino == child):
                present = None
            if is_folder:
                self._survive(child, present, target / name)
            elif present is not None and self._lucky():
                (target / name).write_bytes(present.read_bytes())
            else:
                (target / name).write_bytes(self.content.get(child, b""))

    def _lucky(self) -> bool:
        return self._luck is not None and self._luck.random() < 0.5


class UnsyncedFiles(Files):
    """For what the tests do before and after the cut: quick, and no test of anything."""

    def append_file(self, path: Path) -> AppendFile:
        return _Unsynced(path)

    def sync_folder(self, path: Path) -> None:
        return None


class _Unsynced(AppendFile):
    def sync(self) -> None:
        return None
