"""Write one episode as it happens: samples go to the disk at once, the finished episode appears whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from robopolicy.core.errors import StoreError
from robopolicy.core.serial import to_tree
from robopolicy.datasets import draft, journal, locks, schema
from robopolicy.datasets.backlog import Backlog
from robopolicy.datasets.episode import Signal

if TYPE_CHECKING:
    from robopolicy.datasets.files import AppendFile
    from robopolicy.datasets.store import EpisodeStore

# What a crash may cost of an unfinished episode: of a kill the backlog, of a power cut both. Under a second.
SYNC_SECONDS = 0.5
BACKLOG_SECONDS = 0.4
BACKLOG_BLOCKS = 256


class EpisodeWriter:
    """One unfinished episode; ``EpisodeStore.begin`` makes it. A context manager.

    Every sample that ``add`` returned for is written, or ``commit`` raises: when the disk or the encoder
    cannot keep up, ``add`` waits and ``blocked_s`` tells how long, and nothing is dropped. Leaving the
    ``with`` block without ``commit`` keeps what was journalled as an unfinished episode; ``discard``
    removes it. Several threads may add at once, each its own signals.

    Args:
        journalled: keep samples on the disk while recording. Off for data that exist elsewhere (imports).
        background: encode and write in a thread of its own, so that a control loop is not held up.
        now_s: seconds, monotonic.
    """

    def __init__(
        self,
        store: EpisodeStore,
        facts: Mapping[str, Any],
        *,
        where: str,
        journalled: bool = True,
        background: bool = True,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.where, self.blocked_s = where, 0.0
        self._store, self._files, self._clock = store, store.files, now_s
        self._facts = draft.checked_facts(facts, where)
        self._tracks: dict[str, draft.Track] = {}
        self._chains: dict[str, list[dict[str, Any]]] = {}
        self._shards: dict[str, AppendFile] = {}
        self._hashes: dict[str, Any] = {}
        self._journal: AppendFile | None = None
        self._ended, self._finished = False, False
        self._error: BaseException | None = None
        self._adding = threading.Lock()
        self._synced = now_s()
        self.staging = store.path / schema.STAGING / uuid.uuid4().hex
        with store.writing():
            self._files.make_folder(self.staging / "episode")
            self._lock = locks.Lock(self.staging / locks.FILE, wait=False)
            try:
                if journalled:
                    self._start_journal()
            except BaseException:
                self._journal_is_needless()
                raise
        self._backlog = Backlog[tuple[str, Signal]](BACKLOG_BLOCKS, BACKLOG_SECONDS, now_s)
        self._thread = threading.Thread(target=self._drain, name="episode-writer", daemon=True)
        self._background = background
        if background:
            self._thread.start()

    def add(self, name: str, block: Signal) -> None:
        """Samples of one signal, in order of time: "observation/KEY", "action" or "extra/KEY".

        Args:
            block: value (count, *shape) and time_ns (count,) [ns]; copied.
        Raises:
            SpecError, ShapeError, NonFiniteValueError: the samples break the specs; none of them is stored.
            StoreError: the disk refused; what was written before stays recoverable.
        """
        where = f"{self.where}, {name}"
        block = Signal(np.asarray(block.value), np.asarray(block.time_ns))
        with self._adding:
            if self._ended:
                raise StoreError(f"{where}: this episode is finished")
            self._raise_error()
            track = self._tracks.get(name) or draft.new_track(self._store.specs, name, block)
            admitted = track.admit(block, where)
            if not len(admitted.time_ns):
                return
            if name not in self._tracks:
                self._open_track(name, track)
            if not self._background:
                with self._store.writing():
                    self._write_or_note(name, admitted)
                return
            started = self._clock()
            self._backlog.put((name, admitted))
            self.blocked_s += self._clock() - started

    def commit(
        self,
        *,
        success: bool | None = None,
        instruction: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Make the episode visible, durably; returns its name. Arguments override what ``begin`` was told.

        Raises:
            ShapeError, SpecError: a signal is missing or starts too late, or a fact is off; StoreError: the
                disk refused, or the episode is finished already. The journalled samples stay as an
                unfinished episode.
        """
        if not self._end():
            raise StoreError(f"{self.where}: this episode is finished")
        try:
            self._raise_error()
            draft.check_complete(self._tracks, self._store.specs, self.where)
            told = {"success": success, "instruction": instruction}
            facts = {**self._facts, **{key: value for key, value in told.items() if value is not None}}
            facts["metadata"] = {**facts["metadata"], **(metadata or {})}
            facts = {**draft.checked_facts(facts, self.where), "length": self._tracks["action"].count}
            with self._store.writing():
                digest = self._finish_files(facts)
                name = self._store.publish(self.staging / "episode", facts, digest)
        except BaseException:
            self.close()
            raise
        self._journal_is_needless()
        return name

    def discard(self) -> None:
        """Forget the episode, unless it was committed."""
        self._end()
        self._journal_is_needless()

    def close(self) -> None:
        """Stop; what was journalled stays as an unfinished episode."""
        self._end()
        if self._finished:
            return
        if self._journal is None:
            self._journal_is_needless()
        else:
            with contextlib.suppress(OSError):
                self._sync()
            self._release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_encoded(self, name: str, time_ns: int, data: bytes) -> None:
        """One camera frame as the store holds it; for recovery and copies, which need no new encoding."""
        track = self._tracks[name]
        offset = self._shards[name].write(data)
        self._hashes[name].update(data)
        track.times.append(np.array([time_ns]))
        track.places.append((offset, len(data)))
        track.captured += 1

    def open_track(self, name: str) -> None:
        """Declare a camera before its first ``add_encoded``."""
        empty = Signal(np.empty(0), np.empty(0, np.int64))
        self._open_track(name, draft.new_track(self._store.specs, name, empty))

    def _open_track(self, name: str, track: draft.Track) -> None:
        if track.camera:
            path = draft.shard_path(self.staging / "episode", name)
            with self._store.writing():
                self._files.make_folder(path.parent)
                self._shards[name] = self._files.append_file(path)
                if self._journal is not None:  # the journal's frames need their file's name on the disk too
                    for folder in path.parents:
                        self._files.sync_folder(folder)
                        if folder == self.staging:
                            break
            self._chains[name] = self._store.codec(name.partition("/")[2]).chain
            self._hashes[name] = hashlib.sha256()
        self._tracks[name] = track

    def _drain(self) -> None:
        while not self._backlog.is_over:
            item = self._backlog.first(SYNC_SECONDS)
            if self._error is None:  # else keep emptying, so that nobody waits forever
                with contextlib.suppress(Exception):  # the next add or commit raises it
                    self._write_or_note(*(item or ()))
            if item is not None:
                self._backlog.done()

    def _write_or_note(self, *item: Any) -> None:
        """Write a block, if one is given, and sync when due. After an error nothing more is written: where
        the files end is then unknown."""
        try:
            if item:
                self._write(*item)
            self._sync_when_due()
        except BaseException as error:
            self._error = error
            raise

    def _write(self, name: str, block: Signal) -> None:
        track = self._tracks[name]
        places = []
        if track.camera:
            codec = self._store.codec(name.partition("/")[2])
            for frame in block.value:
                data = codec.encode(frame)
                places.append((self._shards[name].write(data), len(data)))
                self._hashes[name].update(data)
            track.places += places
        else:
            track.values.append(block.value)
        track.times.append(block.time_ns)
        if self._journal is not None:
            header = {"signal": name, "dtype": block.value.dtype.name, "shape": list(block.value.shape)}
            body = b"" if track.camera else block.value.tobytes()
            self._log({**header, "places": places}, block.time_ns.tobytes() + body)

    def _start_journal(self) -> None:
        self._journal = self._files.append_file(self.staging / journal.FILE)
        self._log({"facts": self._facts, "specs": to_tree(self._store.specs)})
        self._journal.sync()
        for folder in (self.staging, self.staging.parent, self._store.path):
            self._files.sync_folder(folder)

    def _log(self, header: dict[str, Any], body: bytes = b"") -> None:
        assert self._journal is not None
        self._journal.write(journal.record(header, body))

    def _sync_when_due(self) -> None:
        if self._journal is not None and self._clock() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        if self._journal is not None:
            for shard in list(self._shards.values()):  # a copy: meanwhile ``add`` may open another
                shard.sync()  # frames first: the journal never points at what is not there
            self._journal.sync()
        self._synced = self._clock()

    # -- finishing --------------------------------------------------------------------------------------

    def _finish_files(self, facts: dict[str, Any]) -> str:
        folder = self.staging / "episode"
        files, tails = draft.episode_files(self._tracks, self._chains, facts)
        for name, tail in tails.items():
            self._shards[name].write(tail)
            self._hashes[name].update(tail)
            self._shards[name].sync()
        self._files.write_tree(folder, files)
        for shard in self._shards.values():
            parent = shard.path.parent
            while parent != folder:
                self._files.sync_folder(parent)
                parent = parent.parent
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        hashes.update(
            {
                shard.path.relative_to(folder).as_posix(): self._hashes[name].hexdigest()
                for name, shard in self._shards.items()
            }
        )
        return draft.data_digest(hashes)

    def _end(self) -> bool:
        """Take no more samples and write those taken; False when this episode had ended before."""
        with self._adding:
            before, self._ended = self._ended, True
        if self._background and self._thread.is_alive():
            self._backlog.close()
            self._thread.join()
        return not before

    def _raise_error(self) -> None:
        if self._error is not None:
            message = getattr(self._error, "strerror", None) or str(self._error)
            raise StoreError(f"{self.where}: cannot write to {self._store.path}: {message}") from self._error

    def _journal_is_needless(self) -> None:
        self._release()
        shutil.rmtree(self.staging, ignore_errors=True)

    def _release(self) -> None:
        if self._finished:
            return
        self._finished = True
        for file in (*self._shards.values(), *([self._journal] if self._journal else [])):
            file.close()
        self._lock.release()


def staging_folders(root: Path) -> list[Path]:
    """Staging folders, of live and of dead recorders."""
    folder = root / schema.STAGING
    return sorted(path for path in folder.iterdir() if path.is_dir()) if os.path.isdir(folder) else []
