"""Read one episode of a store: whole, or single camera frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import StoreError
from robopolicy.datasets import arrays, codecs, schema
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.storage import Storage
from robopolicy.datasets.versions import Entry

FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class Frames:
    """Where the frames of one camera lie, and how to decode them.

    Args:
        file: name of the shard.
        places: (count, 2) int64 offset and size [bytes].
        shape, dtype: of one frame.
        decode: one frame's bytes, checksum taken off, into an array.
        where: for messages.
        first: number in the file of the first frame that counts, for messages.
    """

    file: str
    places: NDArray[np.int64]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    decode: codecs.Decode
    where: str
    first: int = 0

    def __len__(self) -> int:
        return len(self.places)

    def ranges(self, indices: NDArray[np.int64]) -> list[tuple[str, int, int]]:
        """What to ask the storage for."""
        chosen = self.places[indices]
        return [(self.file, start, start + size) for start, size in chosen.tolist()]

    def decode_into(self, index: int, data: bytes, out: NDArray[Any]) -> None:
        """StoreError names the frame when its checksum is off or it cannot be decoded."""
        decode_frame(self.decode, data, out, f"{self.where}, frame {self.first + index}")

    def read(self, storage: Storage, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(len(indices), *shape) decoded frames."""
        out = np.empty((len(indices), *self.shape), self.dtype)
        for start in range(0, len(indices), FRAMES_AT_ONCE):
            part = indices[start : start + FRAMES_AT_ONCE]
            for row, (index, data) in enumerate(zip(part.tolist(), storage.read_ranges(self.ranges(part)))):
                self.decode_into(index, data, out[start + row])
        return out


def decode_frame(decode: codecs.Decode, data: bytes, out: NDArray[Any], where: str) -> None:
    """Check and decode one frame into ``out``; StoreError names it when it is damaged."""
    payload = codecs.checked(data, where)
    try:
        decode(payload, out)
    except Exception as error:  # a codec's own; the checksum fits, so the frame was written so
        raise StoreError(f"{where}: cannot be decoded: {error}") from error


class EpisodeReader:
    """One episode of one version. Raises StoreError for whatever is missing or damaged.

    Times and values are those of the steps that the version counts (``Entry.start`` to ``stop``): of every
    observation, the samples that those steps and the one after them see.
    """

    def __init__(self, storage: Storage, entry: Entry, where: str) -> None:
        self.storage, self.entry, self.where = storage, entry, where
        self.folder = f"{schema.EPISODES}/{entry.name}"

    @cached_property
    def tree(self) -> dict[str, Any]:
        """The episode's zarr.json."""
        data = self._read("zarr.json", "description")
        try:
            tree = dict(json.loads(data))
            nodes = tree["consolidated_metadata"]["metadata"]
            nodes["action/value"], tree["attributes"]
            _check_nodes(nodes)
            return tree
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise StoreError(f"{self.where}: zarr.json is damaged: {error}") from error

    @property
    def arrays(self) -> dict[str, dict[str, Any]]:
        """Path to metadata of every array."""
        nodes = self.tree["consolidated_metadata"]["metadata"]
        return {name: node for name, node in nodes.items() if node["node_type"] == "array"}

    @property
    def signals(self) -> list[str]:
        """Names as ``Episode.signals`` gives them."""
        return [name.removesuffix("/value") for name in self.arrays if name.endswith("/value")]

    @property
    def extras(self) -> tuple[str, ...]:
        return tuple(sorted(name[6:] for name in self.signals if name.startswith("extra/")))

    def file_names(self) -> list[str]:
        """Every file of the episode, relative to its folder."""
        nodes = self.tree["consolidated_metadata"]["metadata"]
        chunks = [f"{name}/{arrays.chunk_key(node)}" for name, node in self.arrays.items()]
        return ["zarr.json", *(f"{name}/zarr.json" for name in nodes), *chunks]

    def times(self, name: str) -> NDArray[np.int64]:
        """(count,) [ns]"""
        return self.block(f"{name}/time_ns")[self.span(name)]

    def values(self, name: str) -> NDArray[Any]:
        """(count, *shape); cameras are decoded."""
        metadata = self._metadata(f"{name}/value")
        span = self.span(name)
        if not arrays.is_frames(metadata):
            return self.block(f"{name}/value")[span]
        frames = self.frames(name)
        return frames.read(self.storage, np.arange(len(frames)))

    def frames(self, name: str, *, whole: bool = False) -> Frames:
        """The camera's frames that count, or all; reads the shard's index only."""
        path = f"{name}/value"
        metadata = self._metadata(path)
        where = f"{self.where}, {name}"
        decode = codecs.decoder(arrays.inner_chain(metadata, where), where)
        count, *shape = metadata["shape"]
        file = f"{self.folder}/{path}/{arrays.chunk_key(metadata)}"
        try:
            size = self.storage.size(file)
            tail = self.storage.read_ranges([(file, max(size - arrays.index_size(count), 0), size)])[0]
        except OSError as error:
            raise StoreError(f"{where}: cannot read {file}: {error.strerror or error}") from error
        places = arrays.read_shard_index(tail, count, size, where)
        span = slice(None) if whole else self.span(name)
        dtype = np.dtype(metadata["data_type"])
        return Frames(file, places[span], tuple(shape), dtype, decode, where, span.start or 0)

    def span(self, name: str) -> slice:
        """Which samples of the recording the version counts."""
        entry = self.entry
        whole = self._metadata("action/value")["shape"][0]
        if (entry.start, entry.stop) == (0, whole):
            return slice(None)
        if name == "action":
            return slice(entry.start, entry.stop)
        steps, times = self.block("action/time_ns"), self.block(f"{name}/time_ns")
        ends_early = entry.stop < whole
        if name.startswith("extra/"):
            stop = np.searchsorted(times, steps[entry.stop]) if ends_early else len(times)
            return slice(int(np.searchsorted(times, steps[entry.start])), int(stop))
        first = np.searchsorted(times, steps[entry.start], side="right") - 1
        stop = np.searchsorted(times, steps[entry.stop], side="right") if ends_early else len(times)
        return slice(int(first), int(stop))

    def episode(self, keys: tuple[str, ...], extra: tuple[str, ...] | None = None) -> Episode:
        """In memory, with these observations and extras (None for all extras)."""
        facts = schema.read_episode(self.tree["attributes"], self.where)
        facts.update({key: getattr(self.entry, key) for key in schema.ENTRY_FIELDS})
        del facts["length"]
        chosen = self.extras if extra is None else extra
        return Episode(
            observation={key: self.signal(f"observation/{key}") for key in keys},
            action=self.signal("action"),
            extra={key: self.signal(f"extra/{key}") for key in chosen},
            **facts,
        )

    def signal(self, name: str) -> Signal:
        return Signal(self.values(name), self.times(name))

    def _metadata(self, path: str) -> dict[str, Any]:
        try:
            return self.arrays[path]
        except KeyError as error:
            raise StoreError(
                f"{self.where}: no signal {path.rpartition('/')[0]!r}; it has {self.signals}"
            ) from error

    def block(self, path: str) -> NDArray[Any]:
        """A whole array that is no camera, untrimmed."""
        metadata = self._metadata(path)
        data = self._read(f"{path}/{arrays.chunk_key(metadata)}", path)
        return arrays.read_block(metadata, data, f"{self.where}, {path}")

    def _read(self, name: str, what: str) -> bytes:
        try:
            return self.storage.read(f"{self.folder}/{name}")
        except OSError as error:
            raise StoreError(
                f"{self.where}: {what!r} cannot be read: {error.strerror or type(error).__name__}"
            ) from error


def _check_nodes(nodes: dict[str, Any]) -> None:
    """Whatever the code here relies on; one of ``tree``'s errors when it is not so."""
    for name, node in nodes.items():
        if node["node_type"] == "group":
            continue
        first, shape = node["codecs"][0], node["shape"]
        inner = first["configuration"]["codecs"] if arrays.is_frames(node) else []
        sizes = [*shape, *(first["configuration"]["chunk_shape"] if inner else [])]
        if node["node_type"] != "array" or not shape or not all(type(size) is int for size in sizes):
            raise ValueError(f"{name} is {node['node_type']!r} of shape {shape}")
        if min(shape) < 0 or np.dtype(node["data_type"]).kind not in "biuf":
            raise ValueError(f"{name} holds {node['data_type']!r} of shape {shape}")
        if not all(isinstance(codec["name"], str) for codec in (*node["codecs"], *inner)):
            raise ValueError(f"{name} has odd codecs")
        value, times = (nodes[f"{name.rpartition('/')[0]}/{part}"]["shape"] for part in ("value", "time_ns"))
        if times[0] != value[0]:
            raise ValueError(f"{name} has {value[0]} samples but {times[0]} times")


def file_hashes(reader: EpisodeReader) -> dict[str, str]:
    """SHA-256 (hex) of every file of an episode, by name."""
    hashes = {}
    for name in reader.file_names():
        total = hashlib.sha256()
        path = f"{reader.folder}/{name}"
        try:
            size = reader.storage.size(path)
            for start in range(0, size, 1 << 24):
                total.update(reader.storage.read_ranges([(path, start, min(start + (1 << 24), size))])[0])
        except OSError as error:
            raise StoreError(f"{reader.where}: {name} cannot be read: {error.strerror or error}") from error
        hashes[name] = total.hexdigest()
    return hashes
