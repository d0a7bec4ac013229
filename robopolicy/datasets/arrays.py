"""Zarr v3 arrays of the two shapes that a store needs, without zarr's cost per call (~1 ms).

A *block* is an array in one chunk; *frames* are a shard that holds one chunk per frame, so that any frame
can be read alone. Both are plain Zarr v3 (codecs bytes, blosc, crc32c, sharding_indexed); the tests hold
them against zarr-python and tensorstore. Source: Zarr core specification 3.1 and ``sharding_indexed`` 1.0.
"""

from __future__ import annotations

import json
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import StoreError
from robopolicy.datasets import codecs

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
_INDEX_ROW = 16  # bytes: offset and size of one frame, each uint64


def group(attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Metadata of a Zarr group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}


def block(value: NDArray[Any], attributes: dict[str, Any] | None = None) -> tuple[dict[str, Any], bytes]:
    """Metadata and the one chunk of a compressed array."""
    width = value.dtype.itemsize
    shuffle = numcodecs.Blosc.SHUFFLE if width > 1 else numcodecs.Blosc.NOSHUFFLE
    blosc = {"typesize": width, "cname": "zstd", "clevel": 3, "blocksize": 0}
    blosc["shuffle"] = "shuffle" if width > 1 else "noshuffle"
    raw = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    data = bytes(numcodecs.Blosc("zstd", 3, shuffle).encode(raw))
    data += google_crc32c.value(data).to_bytes(4, "little")
    chain: list[dict[str, Any]] = [_LITTLE, {"name": "blosc", "configuration": blosc}, _CRC]
    return _array(value.shape, value.dtype, value.shape, chain, attributes), data


def frames(
    count: int, frame: tuple[int, ...], dtype: Any, chain: list[dict[str, Any]], attributes: dict[str, Any]
) -> dict[str, Any]:
    """Metadata of ``count`` frames in one shard, each encoded by ``chain``."""
    shape = (count, *frame)
    sharding = {"chunk_shape": [1, *frame], "codecs": chain, "index_codecs": [_LITTLE, _CRC]}
    codec = {"name": "sharding_indexed", "configuration": {**sharding, "index_location": "end"}}
    return _array(shape, np.dtype(dtype), shape, [codec], attributes)


def shard_index(offsets: NDArray[np.uint64], sizes: NDArray[np.uint64]) -> bytes:
    """What ends a shard: offset and size of every frame, and a CRC-32C."""
    table = np.stack([offsets, sizes], axis=1).astype("<u8").tobytes()
    return table + int(google_crc32c.value(table)).to_bytes(4, "little")


def read_shard_index(data: bytes, count: int, size: int, where: str) -> NDArray[np.int64]:
    """(count, 2) offset and size of every frame, from the last bytes of a shard of ``size`` bytes."""
    expected = index_size(count)
    if len(data) != expected:
        raise StoreError(f"{where}: the file is cut ({size} bytes)")
    table = np.frombuffer(codecs.checked(data, f"{where}, frame index"), "<u8").reshape(count, 2)
    table = table.astype(np.int64)
    if (table < 0).any() or (table > size).any() or (table.sum(axis=1) > size - expected).any():
        raise StoreError(f"{where}: the frame index points outside the file")
    return table


def index_size(count: int) -> int:
    return count * _INDEX_ROW + 4


def read_block(metadata: dict[str, Any], data: bytes, where: str) -> NDArray[Any]:
    """The array in ``data``; StoreError when it is damaged or of codecs that a store never has."""
    found = [codec["name"] for codec in metadata["codecs"]]
    if found != ["bytes", "blosc", "crc32c"]:
        raise StoreError(f"{where}: unknown codecs {found}")
    out = np.empty(metadata["shape"], np.dtype(metadata["data_type"]).newbyteorder("<"))
    try:
        raw = numcodecs.blosc.decompress(codecs.checked(data, where))
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(raw, np.uint8)
    except (RuntimeError, ValueError) as error:
        raise StoreError(f"{where}: cannot be decoded: {error}") from error
    return out.astype(out.dtype.newbyteorder("="), copy=False)


def inner_chain(metadata: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Codecs of one frame of a sharded array."""
    first = metadata["codecs"][0]
    if (
        first["name"] != "sharding_indexed"
        or metadata["shape"][1:] != first["configuration"]["chunk_shape"][1:]
    ):
        raise StoreError(f"{where}: not one chunk per frame in a shard")
    return list(first["configuration"]["codecs"])


def is_frames(metadata: dict[str, Any]) -> bool:
    return bool(metadata["codecs"][0]["name"] == "sharding_indexed")


def to_json(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, indent=2).encode() + b"\n"


def chunk_key(metadata: dict[str, Any]) -> str:
    """Where the only chunk (or shard) lies below the array's folder."""
    return "/".join(["c", *("0" for _ in metadata["shape"])])


def _array(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunk: tuple[int, ...],
    chain: list[dict[str, Any]],
    attributes: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if dtype == np.bool_ else 0,
        "codecs": chain,
        "attributes": attributes or {},
        "storage_transformers": [],
    }
