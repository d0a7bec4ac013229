"""A versioned Zarr v3 store of episodes. Data are written once; versions say which of them count.

An episode is a Zarr group that never changes. What a store holds is what its newest version file lists
(``versions.py``); recording, deleting, trimming and relabelling each add one such file, atomically and
durably.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robopolicy.core.errors import RunExistsError, StoreError
from robopolicy.core.serial import to_tree
from robopolicy.core.specs import Specs
from robopolicy.datasets import arrays, journal, locks, schema, versions
from robopolicy.datasets.codecs import FrameCodec, choose_codecs
from robopolicy.datasets.draft import data_digest, plain_json
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.files import Files, as_store_error
from robopolicy.datasets.reader import EpisodeReader, file_hashes
from robopolicy.datasets.storage import Storage, is_url, open_storage
from robopolicy.datasets.versions import Entry, Version
from robopolicy.datasets.writer import EpisodeWriter, staging_folders


def utc_now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


class EpisodeStore:
    """Episodes under one set of specs, as one version of the store lists them. Use ``create`` or ``open``.

    What is opened stays as it is while others record; ``refresh`` moves to the newest version.

    Attributes:
        where: path or URL, for messages.
        version: number of the version in view.
        entries: name to entry of its episodes, in order of recording.
    """

    def __init__(
        self,
        where: str | Path,
        storage: Storage,
        version: int | None = None,
        *,
        files: Files | None = None,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self.where, self.storage, self.files, self._now = str(where), storage, files or Files(), now
        self._local = None if is_url(where) else Path(where)
        self.root = schema.read_root(self._read_json("zarr.json"), self.where)
        self.specs, self.metadata = self.root.specs, self.root.metadata
        self._codecs: dict[str, FrameCodec] = {}
        self._pinned = version is not None
        self.version, self.entries = -1, dict[str, Entry]()
        self._view(self.latest() if version is None else version)

    @classmethod
    def create(
        cls,
        path: str | Path,
        specs: Specs,
        metadata: Mapping[str, Any] | None = None,
        *,
        image_codec: str | Mapping[str, str] = "lossless",
        codec_settings: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> EpisodeStore:
        """A new, empty store.

        Args:
            image_codec: how camera frames are stored, a file name in ``codecs/``: one for all colour cameras,
                or one per camera by name. Depth is PNG unless said.
            codec_settings: of that codec, for example ``{"quality": 90}``.
        Raises:
            RunExistsError: something is already there; it is never overwritten.
            UnknownNameError: no such codec; SpecError: its settings, or a camera that it cannot store.
        """
        if is_url(path):
            raise StoreError(f"{path}: stores are recorded on a disk; 'robopolicy dataset copy' uploads one")
        path, files = Path(path), files or Files()
        if path.exists():
            raise RunExistsError(f"{path} already exists; choose another path or append to the store")
        for name in specs.observation:
            schema.check_signal_name(name)
        codecs = choose_codecs(specs, image_codec, codec_settings or {})
        told = plain_json(dict(metadata or {}), f"{path}: metadata")
        attributes = schema.root_attributes(specs, told, codecs)
        first = versions.encode(Version(0, utc_now(), "create", episodes=()))
        draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        content = {
            "zarr.json": arrays.to_json(arrays.group(attributes)),
            f"{schema.EPISODES}/zarr.json": arrays.to_json(arrays.group()),
            f"{versions.FOLDER}/{versions.file_name(0)}": first,
        }
        try:
            with as_store_error(path):
                files.write_tree(draft, content)
                files.rename(draft, path)
                files.sync_folder(path.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls.open(path, files=files)

    @classmethod
    def open(
        cls,
        where: str | Path,
        version: int | str | None = None,
        *,
        files: Files | None = None,
        now: Callable[[], str] = utc_now,
    ) -> EpisodeStore:
        """An existing store, to read or append.

        Args:
            where: a folder, or a URL that fsspec opens (``s3://bucket/store``), which is read only.
            version: a number or a tag; the newest unless given.
        Raises:
            StoreError: nothing there, not a robopolicy store, damaged, or no such version or tag;
            SchemaVersionError: another schema version.
        """
        storage = open_storage(where)
        try:
            number = versions.tagged(storage, version, str(where)) if isinstance(version, str) else version
            return cls(where, storage, number, files=files, now=now)
        except FileNotFoundError as error:
            raise StoreError(f"{where} is not a robopolicy store: it has no zarr.json") from error
        except OSError as error:
            raise StoreError(f"cannot read {where}: {error.strerror or error}") from error

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The store's folder; StoreError for a store by URL."""
        if self._local is None:
            raise StoreError(
                f"{self.where} is read only; copy it to a disk first ('robopolicy dataset copy')"
            )
        return self._local

    @property
    def names(self) -> list[str]:
        """Names of the episodes, in order of recording."""
        return list(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over every episode in view, data and facts: which data exactly these are."""
        return versions.content_digest(self.entries)

    def entry(self, name: str) -> Entry:
        """StoreError when this version has no such episode."""
        if name not in self.entries:
            raise StoreError(
                f"{self.where} has no episode {name!r} in version {self.version}; it has {_few(self.names)}"
            )
        return self.entries[name]

    def facts(self, name: str) -> dict[str, Any]:
        """Length, instruction, success, seed and clock of an episode; opens no file."""
        tree: dict[str, Any] = to_tree(self.entry(name))
        return {key: tree[key] for key in ("length", *schema.ENTRY_FIELDS)}

    def reader(self, name: str) -> EpisodeReader:
        """Access to parts of an episode, single camera frames included."""
        return EpisodeReader(self.storage, self.entry(name), f"{self.where}, episode {name}")

    def read(
        self, name: str, keys: tuple[str, ...] | None = None, extra: tuple[str, ...] | None = None
    ) -> Episode:
        """One episode in memory; ``keys`` and ``extra`` limit which signals are read."""
        return self.reader(name).episode(tuple(self.specs.observation) if keys is None else keys, extra)

    def episodes(self, keys: tuple[str, ...] | None = None) -> Iterator[Episode]:
        """Every episode in view, in order of recording."""
        for name in self.names:
            yield self.read(name, keys)

    def latest(self) -> int:
        """Number of the newest version."""
        numbers = versions.numbers(self.storage.list(versions.FOLDER))
        if not numbers:
            raise StoreError(f"{self.where} has no version; it is damaged or not a robopolicy store")
        return numbers[-1]

    def refresh(self) -> None:
        """See what others have recorded since."""
        self._view(self.latest())

    def read_version(self, number: int) -> Version:
        """One line of the log; StoreError when there is none, or it is damaged."""
        name = f"{versions.FOLDER}/{versions.file_name(number)}"
        try:
            return versions.decode(self.storage.read(name), f"{self.where}, {name}")
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.where} has no version {number} ({name}); the newest is {self.latest()}"
            ) from error
        except OSError as error:
            raise StoreError(f"{self.where}, {name} cannot be read: {error.strerror or error}") from error

    def codec(self, key: str) -> FrameCodec:
        """How frames of a camera are stored."""
        if key not in self._codecs:
            settings = dict(self.root.codecs[key])
            self._codecs[key] = FrameCodec(settings.pop("name"), self.specs.observation[key], **settings)
        return self._codecs[key]

    # -- changing ----------------------------------------------------------------------------------------

    def begin(
        self,
        *,
        where: str = "",
        journalled: bool = True,
        background: bool = True,
        now_s: Callable[[], float] = time.monotonic,
        **facts: Any,
    ) -> EpisodeWriter:
        """Start an episode; ``facts`` are those of ``Episode``. For the rest see ``EpisodeWriter``."""
        self._check_writable()
        where = where or f"episode {len(self)}"
        with self.writing(), self._locked():  # else a new folder, not yet locked, might be swept as debris
            self._clear_debris()
            return EpisodeWriter(
                self, facts, where=where, journalled=journalled, background=background, now_s=now_s
            )

    def append(self, episode: Episode) -> str:
        """Write a whole episode and make it visible, durably; returns its name.

        Raises:
            SpecError, ShapeError, NonFiniteValueError: the episode breaks the specs; nothing is written.
            StoreError: the disk refused (full, read-only); the store is as before.
        """
        episode.check(self.specs, f"episode {len(self)}")
        facts = {field: getattr(episode, field) for field in schema.EPISODE_FIELDS}
        with self.begin(journalled=False, background=False, **facts) as writer:
            for name, signal in episode.signals():
                writer.add(name, signal)
            return writer.commit()

    def change(self, message: str, put: Iterable[Entry] = (), removed: Iterable[str] = ()) -> int:
        """Add a version; returns its number. The store's view moves to it.

        Raises:
            StoreError: the disk refused, the version in view is an old one, or somebody else has changed
                one of the entries to put since; nothing is changed.
        """
        self._check_writable()
        put = tuple(put)
        with self.writing(), self._locked():
            newest = self.latest()
            if newest != self.version:
                now = versions.entries_at(newest, self.read_version)
                lost = [e.name for e in put if now.get(e.name) != self.entries.get(e.name)]
                if lost:
                    raise StoreError(
                        f"{self.where}: version {newest} has changed {_few(lost)} since version "
                        f"{self.version}; refresh and look again"
                    )
            return self._add_version(message, put, tuple(removed))

    def adopt(self) -> list[str]:
        """Take in complete episodes whose recorders died before a version listed them; returns their names.

        Whoever commits next does so too.
        """
        self._check_writable()
        with self.writing(), self._locked():
            return self._adopt()

    def publish(self, folder: Path, facts: Mapping[str, Any], digest: str) -> str:
        """Give a finished, synced episode folder its name and a version; for ``EpisodeWriter`` and copies."""
        with self._locked():
            name = self._take(folder)
            try:
                self._add_version(f"record {name}", (versions.make_entry(name, facts, digest),), ())
            except BaseException:
                self._give_back(name, folder)
                raise
        return name

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns refusals of the disk into StoreError."""
        with as_store_error(self.path):
            yield

    # -- inside ------------------------------------------------------------------------------------------

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            tree = json.loads(self.storage.read(name))
            return dict(tree["attributes"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.where}: {name} is damaged: {error}") from error

    def _view(self, number: int) -> None:
        self.entries = versions.entries_at(number, self.read_version)
        self.version = number

    def _check_writable(self) -> None:
        if self._pinned:
            raise StoreError(f"{self.path} is open at version {self.version}; open the newest to change it")

    def _locked(self) -> locks.Lock:
        self.files.make_folder(self.path / schema.STAGING)
        return locks.Lock(self.path / schema.LOCK, wait=True)

    def _take(self, folder: Path) -> str:
        """Move a finished episode among the others, under a name of its own."""
        self._adopt()
        target = self.path / schema.EPISODES
        taken = [int(p.name) for p in target.iterdir() if p.name.isdigit()]
        last = self.read_version(self.latest()).last
        name = schema.episode_name(max([last, *taken]) + 1)
        self.files.rename(folder, target / name)
        self.files.sync_folder(target)
        return name

    def _give_back(self, name: str, folder: Path) -> None:
        """Undo ``_take`` when no version came to list the episode: else the next recorder would adopt it."""
        with contextlib.suppress(OSError, StoreError):
            if self.read_version(self.latest()).last < int(name):
                self.files.rename(self.path / schema.EPISODES / name, folder)

    def _adopt(self) -> list[str]:
        """Take in an episode whose recorder died between naming it and adding the version: it is complete."""
        last = self.read_version(self.latest()).last
        folders = (
            p for p in (self.path / schema.EPISODES).iterdir() if p.name.isdigit() and int(p.name) > last
        )
        adopted = []
        for folder in sorted(folders, key=lambda p: int(p.name)):
            if not (folder / "zarr.json").is_file():
                continue
            name = folder.name
            try:
                facts = schema.read_episode(
                    self._read_json(f"{schema.EPISODES}/{name}/zarr.json"), str(folder)
                )
                reader = EpisodeReader(self.storage, versions.make_entry(name, facts, ""), str(folder))
                entry = versions.make_entry(name, facts, data_digest(file_hashes(reader)))
            except StoreError:  # never committed and damaged: set aside, so that recording goes on
                self.files.rename(folder, self.path / schema.STAGING / f"damaged-{name}-{uuid.uuid4().hex}")
                continue
            self._add_version(f"adopt {name}, whose recorder died", (entry,), ())
            adopted.append(name)
        return adopted

    def _add_version(self, message: str, put: tuple[Entry, ...], removed: tuple[str, ...]) -> int:
        newest = self.latest()
        if newest != self.version:
            self._view(newest)
        before = self.read_version(newest)
        after = versions.apply(self.entries, put, removed)
        version = versions.following(before, after, self._now(), message, put, removed)
        path = self.path / versions.FOLDER / versions.file_name(version.number)
        self.files.create(path, versions.encode(version))
        self.entries, self.version = after, version.number
        return version.number

    def _clear_debris(self) -> None:
        """Dead recorders that kept no journal, or whose episode got its name, left nothing to recover."""
        for folder in staging_folders(self.path):
            lock = folder / locks.FILE
            journalled = (folder / journal.FILE).exists() and (folder / "episode").exists()
            if lock.exists() and not journalled and not locks.is_held(lock):
                shutil.rmtree(folder, ignore_errors=True)


def _few(names: list[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:3])} ... {names[-1]} ({len(names)})"
