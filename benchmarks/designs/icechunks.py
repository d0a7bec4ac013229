"""Design B: Icechunk, one commit per episode, camera frames in one shard per episode, codecs as ours.

``Groups`` keeps a group per episode, as ours does; ``Flat`` appends every episode to one array per signal.
Both are told each episode's name (its seed), so that two writers never choose the same one.
"""

from __future__ import annotations

import asyncio
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from designs.episodes import CAMERA, SPECS, STEPS, flat
from robopolicy.datasets.arrays import index_size, read_shard_index
from robopolicy.datasets.codecs import FrameCodec, checked, decoder


def how_stored(array: NDArray[Any]) -> dict[str, Any]:
    """Chunks, shards and codecs of one episode's array: those of our store."""
    if array.ndim == 4:
        image = zarr.codecs.BloscCodec(cname="lz4hc", clevel=5, shuffle="noshuffle")
        chunking = {"chunks": (1, *array.shape[1:]), "shards": array.shape}
        return {**chunking, "compressors": (image, zarr.codecs.Crc32cCodec())}
    block = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    return {"chunks": array.shape, "compressors": (block, zarr.codecs.Crc32cCodec())}


class Groups:
    """One group per episode."""

    ways = ("one by one", "64 at once", "64 ranges at once, our decoder")

    def __init__(self, path: Path) -> None:
        self.path, self.conflicts = path, 0
        self.repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
        self._cameras: list[Any] = []

    @classmethod
    def create(cls, path: Path) -> Groups:
        repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
        session = repo.writable_session("main")
        cls.prepare(session.store)
        session.commit("create")
        return cls(path)

    @staticmethod
    def prepare(store: Any) -> None:
        zarr.create_group(store, path="episodes")
        zarr.create_group(store, path="touched")

    def append(self, seed: int) -> tuple[float, float]:
        arrays = flat(seed)
        begun = time.perf_counter()
        session = self.repo.writable_session("main")
        self.write(session.store, seed, arrays)
        written = time.perf_counter()
        self._commit(session, f"record {seed}")
        ended = time.perf_counter()
        return ended - begun, ended - written

    def _commit(self, session: Any, message: str) -> None:
        """As the manual has it: after a conflict rebase, which fails if both changed the same thing."""
        while True:
            try:
                session.commit(message)
                return
            except icechunk.ConflictError:
                self.conflicts += 1
                session.rebase(icechunk.ConflictDetector())

    def touch(self, number: int) -> None:
        session = self.repo.writable_session("main")
        zarr.create_group(session.store, path=f"touched/{number}")
        self._commit(session, f"touch {number}")

    def touched(self) -> int:
        root: Any = self._root()
        return len(list(root["touched"].group_keys()))

    def write(self, store: Any, seed: int, arrays: dict[str, NDArray[Any]]) -> None:
        zarr.create_group(store, path=f"episodes/{seed:06d}", attributes={"seed": seed})
        for name, array in arrays.items():
            zarr.create_array(store, name=f"episodes/{seed:06d}/{name}", data=array, **how_stored(array))

    def _root(self) -> zarr.Group:
        return zarr.open_group(self.repo.readonly_session("main").store, mode="r")

    def seeds(self) -> list[int]:
        return self._listed(self._root())

    def _listed(self, root: zarr.Group) -> list[int]:
        return sorted(int(name) for name in root["episodes"].group_keys())  # type: ignore[union-attr]

    def read(self, seed: int) -> dict[str, NDArray[Any]]:
        group: Any = self._opened[0][f"episodes/{seed:06d}"]
        return {name: group[name][:] for name in flat(0)}

    @cached_property
    def _opened(self) -> tuple[Any, list[int]]:
        """The newest version at the first read, and its episodes."""
        root = self._root()
        return root, self._listed(root)

    def open_cameras(self, seeds: list[int]) -> None:
        root = self._root()
        self._cameras = [root[f"episodes/{seed:06d}/{CAMERA}/value"] for seed in seeds]
        self._open_shards([f"episodes/{seed:06d}/{CAMERA}/value/c/0/0/0/0" for seed in seeds])

    def _open_shards(self, keys: list[str]) -> None:
        """Where each frame lies, for the way that goes around zarr-python."""
        self._keys, self._store = keys, self.repo.readonly_session("main").store
        tails = asyncio.run(self._get([(key, SuffixByteRequest(index_size(STEPS))) for key in keys]))
        self._index = [read_shard_index(tail, STEPS, 1 << 40, key) for tail, key in zip(tails, keys)]
        chain = FrameCodec("lossless", SPECS.observation["camera"]).chain
        self._decode = decoder(chain, "icechunk")

    async def _get(self, wanted: list[tuple[str, Any]]) -> list[bytes]:
        prototype = default_buffer_prototype()
        found = await asyncio.gather(*(self._store.get(key, prototype, part) for key, part in wanted))
        return [buffer.to_bytes() for buffer in found if buffer is not None]

    def _decoded(self, which: NDArray[np.int64]) -> NDArray[np.uint8]:
        wanted = []
        for camera, step in which.tolist():
            start, size = self._index[camera][step].tolist()
            wanted.append((self._keys[camera], RangeByteRequest(start, start + size)))
        out = np.empty((len(wanted), *SPECS.observation["camera"].shape), np.uint8)
        for row, data in enumerate(asyncio.run(self._get(wanted))):
            self._decode(checked(data, "icechunk"), out[row])
        return out

    def place(self, camera: int, step: int) -> tuple[Any, int]:
        """The array and the row of one frame."""
        return self._cameras[camera], step

    def frames(self, which: NDArray[np.int64], way: str) -> NDArray[np.uint8]:
        if way == self.ways[2]:
            return self._decoded(which)
        places = [self.place(camera, step) for camera, step in which.tolist()]
        if way == "one by one":
            return np.stack([array[row] for array, row in places])

        async def gather() -> list[Any]:
            return await asyncio.gather(*(array.async_array.getitem(row) for array, row in places))

        return np.stack(asyncio.run(gather()))

    def tag(self, name: str) -> None:
        self.repo.create_tag(name, self.repo.lookup_branch("main"))

    def count_at(self, path: Path, tag: str | None, back: int) -> int:
        repo = type(self)(path).repo
        if tag is None:
            for number, snapshot in enumerate(repo.ancestry(branch="main")):
                if number == back:
                    session = repo.readonly_session(snapshot_id=snapshot.id)
                    break
        else:
            session = repo.readonly_session(tag=tag)
        return len(self._listed(zarr.open_group(session.store, mode="r")))


class Flat(Groups):
    """One array per signal, all episodes one after the other: fewer arrays, and every commit resizes them."""

    @staticmethod
    def prepare(store: Any) -> None:
        zarr.create_group(store, path="touched")
        for name, array in flat(0).items():
            how = how_stored(array)
            zarr.create_array(store, name=name, shape=(0, *array.shape[1:]), dtype=array.dtype, **how)
        zarr.create_array(store, name="seed", shape=(0,), dtype="int64", chunks=(4096,))

    def write(self, store: Any, seed: int, arrays: dict[str, NDArray[Any]]) -> None:
        root = zarr.open_group(store, mode="r+")
        for name, array in {**arrays, "seed": np.array([seed])}.items():
            held: Any = root[name]
            stop = held.shape[0] + len(array)
            held.resize((stop, *array.shape[1:]))
            held[stop - len(array) : stop] = array

    def _listed(self, root: zarr.Group) -> list[int]:
        held: Any = root["seed"]
        return held[:].tolist()  # type: ignore[no-any-return]

    def read(self, seed: int) -> dict[str, NDArray[Any]]:
        root, listed = self._opened
        start = listed.index(seed) * STEPS
        return {name: root[name][start : start + STEPS] for name in flat(0)}

    def open_cameras(self, seeds: list[int]) -> None:
        root = self._root()
        self._cameras = [root[f"{CAMERA}/value"]]
        listed = self._listed(root)
        self._first = [listed.index(seed) * STEPS for seed in seeds]
        self._open_shards([f"{CAMERA}/value/c/{first // STEPS}/0/0/0" for first in self._first])

    def place(self, camera: int, step: int) -> tuple[Any, int]:
        return self._cameras[0], self._first[camera] + step
