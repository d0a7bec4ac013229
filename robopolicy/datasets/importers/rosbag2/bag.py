"""One bag on disk: its storage files, topics and raw messages, through the ``rosbags`` library."""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zstandard
from rosbags.interfaces import Connection, ConnectionExtRosbag2

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers._boundary import foreign
from robopolicy.datasets.importers.rosbag2.files import METADATA, storage_files
from robopolicy.datasets.importers.rosbag2.storage import Storage, open_storage
from robopolicy.datasets.importers.rosbag2.times import TopicIndex
from robopolicy.datasets.importers.rosbag2.types import Decoder, make_decoder


class Bag:
    """An opened bag. Use as a context manager.

    Args:
        path: a storage file, or a folder with metadata.yaml.
        distro: whose standard messages to assume where the bag carries no definitions.
        definitions: message type to .msg text, for further types that the bag does not define.
    Raises:
        ImportFormatError: damaged, cut off or of an unknown storage; names the file.
    """

    def __init__(
        self, path: Path, distro: str = "humble", definitions: Mapping[str, str] | None = None
    ) -> None:
        self.name = path.name
        self._distro = distro
        self._definitions = definitions or {}
        self._storages: list[Storage] = []
        self._stack = contextlib.ExitStack()
        with foreign(str(path / METADATA)):
            self._metadata = _read_metadata(path)
        self._by_message = str(self._metadata.get("compression_mode") or "").lower() == "message"
        try:
            for file in storage_files(path, self._metadata):
                with foreign(str(file)):
                    self._storages.append(self._open(file))
        except BaseException:
            self._stack.close()
            raise
        self._decoders: dict[str, Decoder] = {}

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def start_ns(self) -> int:
        """Unix time of the first message, as the storage says [ns]."""
        return min(storage.start_ns for storage in self._storages)

    @property
    def topics(self) -> dict[str, str]:
        """Topic to message type, of those with messages."""
        found = {c.topic: c.msgtype for s in self._storages for c in s.connections if c.msgcount}
        return dict(sorted(found.items()))

    def count(self, topic: str) -> int:
        return sum(c.msgcount for c in self._connections({topic}))

    def promised(self, topic: str) -> int | None:
        """How many messages metadata.yaml counts, None where it does not say."""
        entries = self._metadata.get("topics_with_message_count")
        for entry in entries if isinstance(entries, list) else ():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                if entry["topic_metadata"]["name"] == topic:
                    return int(entry["message_count"])
        return None

    def decoder(self, topic: str) -> Decoder:
        """Raise ImportFormatError when the topic mixes types, is not CDR, or its type is undefined."""
        if topic not in self._decoders:
            where = f"{self.name}, {topic}"
            connections = self._connections({topic})
            types = sorted({c.msgtype for c in connections})
            if len(types) != 1:
                raise ImportFormatError(f"{where}: expected one message type, got {types}")
            for extra in (c.ext for c in connections):
                if isinstance(extra, ConnectionExtRosbag2) and extra.serialization_format != "cdr":
                    raise ImportFormatError(f"{where}: {extra.serialization_format!r} is not 'cdr'")
            carried = connections[0].msgdef
            with foreign(f"{where}: the definition of {types[0]}"):
                self._decoders[topic] = make_decoder(
                    types[0], carried, self._distro, self._definitions, where
                )
        return self._decoders[topic]

    def messages(
        self, topics: set[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """(topic, receive time [ns], CDR bytes) in the storage's order, ``start`` <= time < ``stop``."""
        where = f"{self.name}, {sorted(topics)}"
        decompress = zstandard.ZstdDecompressor().decompress if self._by_message else bytes
        for storage in self._storages:
            connections = [c for c in storage.connections if c.topic in topics]
            if not connections:
                continue
            source = storage.messages(connections, start, stop)
            while True:
                with foreign(where):
                    item = next(source, None)
                    if item is None:
                        break
                    connection, time_ns, raw = item
                    if type(time_ns) is not int or not 0 <= time_ns < 2**63:
                        raise ImportFormatError(f"{where}: a receive time of {time_ns!r} ns")
                    if not isinstance(raw, bytes):
                        raise ImportFormatError(f"{where}: a message of type {type(raw).__name__}")
                    raw = decompress(raw)
                yield connection.topic, time_ns, raw

    def index(self, topics: set[str]) -> dict[str, TopicIndex]:
        """All times of these topics, in one pass over the bag.

        Raises:
            ImportFormatError: a message cannot be read, or fewer come out than the storage counts.
        """
        receive = {topic: array("q") for topic in topics}
        header = {topic: array("q") for topic in topics if self.decoder(topic).has_header}
        for topic, time_ns, raw in self.messages(topics):
            if topic in header:
                with foreign(f"{self.name}, {topic}, message {len(receive[topic])}"):
                    header[topic].append(self.decoder(topic).header_ns(raw))
            receive[topic].append(time_ns)
        for topic in topics:
            if len(receive[topic]) != self.count(topic):
                raise ImportFormatError(
                    f"{self.name}, {topic}: the storage counts {self.count(topic)} messages, "
                    f"{len(receive[topic])} can be read"
                )
        return {
            topic: TopicIndex(
                topic,
                np.array(receive[topic], dtype=np.int64),
                np.array(header[topic], dtype=np.int64) if topic in header else None,
            )
            for topic in topics
        }

    def _connections(self, topics: set[str]) -> list[Connection]:
        return [c for s in self._storages for c in s.connections if c.topic in topics]

    def _open(self, file: Path) -> Storage:
        if file.suffix == ".zstd":
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            with file.open("rb") as packed, (folder / file.stem).open("wb") as plain:
                zstandard.ZstdDecompressor().copy_stream(packed, plain)
            file = folder / file.stem
        storage = open_storage(file)
        self._stack.callback(storage.close)
        for c in storage.connections:
            if not (isinstance(c.topic, str) and isinstance(c.msgtype, str) and type(c.msgcount) is int):
                raise ImportFormatError(f"{file}: a topic {c.topic!r} of type {c.msgtype!r}")
        if type(storage.start_ns) is not int:
            raise ImportFormatError(f"{file}: a start time of {storage.start_ns!r}")
        return storage


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    if not path.is_dir() or not file.is_file():
        return {}
    tree = yaml.safe_load(file.read_text())
    if not isinstance(tree, dict) or not isinstance(tree.get("rosbag2_bagfile_information"), dict):
        raise ImportFormatError(f"{file} has no rosbag2_bagfile_information")
    return dict(tree["rosbag2_bagfile_information"])
