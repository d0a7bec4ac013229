"""The two storages of rosbag2, with what this importer asks of them; MCAP through the ``rosbags`` library.

sqlite3 is read here: rosbags refuses a whole file over one definition that nobody asked for, for example of a
service, or one without a hash, as converted bags have.
"""

from __future__ import annotations

import contextlib
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.storage_mcap import McapReader

from robopolicy.core.errors import ImportFormatError

_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")


class Storage(Protocol):
    """One opened storage file; ``connections`` are its topics."""

    connections: list[Connection]

    @property
    def start_ns(self) -> int: ...

    def messages(
        self, connections: Iterable[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, Any]]: ...

    def close(self) -> None: ...


def open_storage(file: Path) -> Storage:
    """A .mcap or .db3 file; raises whatever its reader raises, with the file closed again."""
    storage: McapStorage | SqliteStorage = SqliteStorage(file) if file.suffix == ".db3" else McapStorage(file)
    try:
        storage.open()
    except BaseException:
        with contextlib.suppress(Exception):
            storage.close()  # rosbags leaves it open when opening fails half-way
        raise
    return storage


class McapStorage(McapReader):
    """rosbags' reader, but a schema of another kind (JSON, none) is an unknown one, not a refusal."""

    @property
    def start_ns(self) -> int:
        return self.metadata.start_time

    def read_index(self) -> None:
        super().read_index()
        self._forget_foreign_schemas()

    def meta_scan(self) -> None:
        super().meta_scan()
        self._forget_foreign_schemas()

    def _forget_foreign_schemas(self) -> None:
        for key in [key for key, schema in self.schemas.items() if schema.encoding not in _FORMATS]:
            del self.schemas[key]


class SqliteStorage:
    """Tables topics (id, name, type, serialization_format), messages (topic_id, timestamp, data) and, since
    ROS 2 Iron, message_definitions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Connection] = []
        self.start_ns = 0
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Raise ImportFormatError for a database of another kind or an unfinished one; sqlite3.Error."""
        journal = self.path.with_name(f"{self.path.name}-wal")
        if journal.is_file() and journal.stat().st_size:
            raise ImportFormatError(
                f"{self.path}: its last messages are still in {journal.name}; run "
                f"`sqlite3 {self.path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'` on a copy first"
            )
        place = urllib.parse.quote(str(self.path.absolute()))
        self._database = sqlite3.connect(f"file:{place}?immutable=1", uri=True)
        tables = {str(row[0]) for row in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if missing := sorted({"messages", "topics"} - tables):
            raise ImportFormatError(f"{self.path} is no rosbag2: no table {missing}; it has {sorted(tables)}")
        definitions: dict[str, MessageDefinition] = {}
        if "message_definitions" in tables:
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            for name, encoding, text in self._rows(query):
                if encoding in _FORMATS and isinstance(text, str) and text:
                    definitions[name] = MessageDefinition(_FORMATS[encoding], text)
        counts = dict(self._rows("SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id"))
        for key, topic, msgtype, form in self._rows(
            "SELECT id, name, type, serialization_format FROM topics"
        ):
            extra = ConnectionExtRosbag2(form, [])
            known = definitions.get(msgtype, _NO_DEFINITION)
            self.connections.append(
                Connection(key, topic, msgtype, known, "", counts.pop(key, 0), extra, self)
            )
        if counts:
            raise ImportFormatError(
                f"{self.path}: messages of topics {sorted(map(str, counts))}, which it lacks"
            )
        (self.start_ns,) = next(self._rows("SELECT MIN(timestamp) FROM messages")) or (0,)
        self.start_ns = 0 if self.start_ns is None else self.start_ns

    def messages(
        self, connections: Iterable[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, Any]]:
        """(connection, receive time [ns], CDR bytes) by receive time, ``start`` <= time < ``stop``."""
        wanted = {connection.id: connection for connection in connections}
        marks = ",".join("?" * len(wanted))
        query = (
            f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) "
            "AND timestamp >= ? AND timestamp < ? ORDER BY timestamp, id"
        )
        first, last = start or 0, 2**63 - 1 if stop is None else stop
        for key, time_ns, raw in self._rows(query, (*wanted, first, last)):
            yield wanted[key], time_ns, raw

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[Any]:
        assert self._database is not None
        return iter(self._database.execute(query, values))
