"""Codecs of Zarr v2 chunks, none of which may run code or read past the bytes it was given."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numcodecs
import numpy as np

from robopolicy.core.errors import ImportFormatError, MissingDependencyError
from robopolicy.datasets.importers._boundary import foreign

#: Codecs that only turn bytes into bytes. Others are refused: ``pickle`` would run code from the archive.
CODECS = ("blosc", "zstd", "zlib", "gzip", "lz4", "lzma", "bz2", "shuffle", "delta")
IMAGE_CODECS = "imagecodecs_"
BLOSC_HEADER = 16


def decoder(header: dict[str, Any], size: int, where: str) -> Callable[[bytes], memoryview]:
    """A function from a chunk's stored bytes to its ``size`` plain bytes.

    Args:
        header: the array's ``.zarray``.
    Raises:
        ImportFormatError: a codec that is not known; MissingDependencyError: no ``imagecodecs`` for one that
            needs it. The function raises ImportFormatError for what cannot be decoded to that size.
    """
    with foreign(where, "has a damaged header"):
        compressor, filters = header.get("compressor"), list(header.get("filters") or [])
        settings = [dict(codec) for codec in (*filters, compressor) if codec is not None]
        names = [str(codec["id"]) for codec in settings]
    unknown = sorted(name for name in names if name not in CODECS and not name.startswith(IMAGE_CODECS))
    if unknown:
        raise ImportFormatError(
            f"{where} is coded with {unknown}; known: {', '.join(CODECS)}, {IMAGE_CODECS}*"
        )
    for name in names:
        if name.startswith(IMAGE_CODECS):
            _register(name, where)
    with foreign(where, "has a damaged header"):
        chain = [numcodecs.get_codec(codec) for codec in reversed(settings)]
    outer = names[-1] if names else ""
    plain = size if len(names) == 1 else None  # filters may change the size in between

    def decode(data: bytes) -> memoryview:
        if outer == "blosc":
            check_blosc(data, plain, where)
        with foreign(where, "cannot be decoded"):
            result: Any = data
            for codec in chain:
                result = codec.decode(result)
            if isinstance(result, np.ndarray):
                result = np.ascontiguousarray(result)
            whole = memoryview(result).cast("B")
        if len(whole) != size:
            raise ImportFormatError(f"{where} cannot be decoded: a chunk of {len(whole)} bytes, not {size}")
        return whole

    return decode


def check_blosc(data: bytes, size: int | None, where: str) -> None:
    """Refuse a Blosc chunk whose header does not fit its bytes; the library trusts it.

    Source: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
    """
    if len(data) < BLOSC_HEADER:
        raise ImportFormatError(f"{where} cannot be decoded: a chunk of {len(data)} bytes is cut short")
    plain, _, stored = struct.unpack("<III", data[4:BLOSC_HEADER])
    if stored != len(data) or (size is not None and plain != size):
        said = f"a chunk of {len(data)} bytes says {plain} bytes in {stored}, not {size}"
        raise ImportFormatError(f"{where} cannot be decoded: {said}")


def _register(name: str, where: str) -> None:
    """Make an image codec known; the package is large and only UMI archives need it."""
    if name in numcodecs.registry.codec_registry:
        return
    try:
        import imagecodecs.numcodecs as image_codecs
    except ImportError as error:
        raise MissingDependencyError(f"{where} is coded with {name}: pip install imagecodecs") from error
    image_codecs.register_codecs([name], verbose=False)
    if name not in numcodecs.registry.codec_registry:
        raise ImportFormatError(f"{where} is coded with {name}, which imagecodecs does not offer")
