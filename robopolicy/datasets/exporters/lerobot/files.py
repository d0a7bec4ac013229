"""Files of a LeRobot v3.0 dataset that hold many episodes and end at a size: parquet tables and videos."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError

CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
#: Every second frame stands for itself, as LeRobot encodes: training asks for single frames. In h264 no frame
#: depends on a later one, so that frames are decoded in the order in which they are shown.
CODECS = {
    "h264": ("libx264", {"crf": "23", "g": "2", "bf": "0"}),
    "av1": ("libsvtav1", {"crf": "30", "g": "2", "preset": "10"}),
}


class Files:
    """Names of consecutive files: 1000 to a chunk folder."""

    def __init__(self, root: Path, template: str, limit: int) -> None:
        self._root, self._template, self._limit, self._number = root, template, limit, -1

    @property
    def place(self) -> dict[str, int]:
        return {"chunk_index": self._number // CHUNKS_SIZE, "file_index": self._number % CHUNKS_SIZE}

    @property
    def path(self) -> Path:
        return self._root / self._template.format(**self.place)

    def is_full(self) -> bool:
        """Never before the file is there: an encoder may hold back its first packets."""
        return self.path.exists() and self.path.stat().st_size >= self._limit

    def advance(self) -> Path:
        self._number += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path


class Tables:
    """Rows in parquet files of about ``limit`` bytes; an episode's rows stay in one file."""

    def __init__(self, root: Path, template: str, schema: pa.Schema, limit: int) -> None:
        self._files, self._schema = Files(root, template, limit), schema
        self._writer: pq.ParquetWriter | None = None

    def next_place(self) -> dict[str, int]:
        """Where the next episode goes; begins another file when this one is full."""
        if self._writer is not None and self._files.is_full():
            self.close()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._files.advance(), self._schema, compression="snappy")
        return self._files.place

    def add(self, columns: dict[str, Any]) -> None:
        """A row group: each column an Arrow array or a list."""
        assert self._writer is not None, "next_place comes first"
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for field, column in ((field, columns[field.name]) for field in self._schema)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Videos:
    """One camera: episodes end to end in mp4 files of about ``limit`` bytes.

    Raises:
        ConfigError: the codec is unknown, or cannot hold frames of this size.
    """

    def __init__(
        self, root: Path, key: str, shape: tuple[int, ...], rate: Fraction, codec: str, limit: int
    ) -> None:
        if codec not in CODECS:
            raise ConfigError(f"video codec {codec!r} is not one of {sorted(CODECS)}")
        height, width = shape[:2]
        self.pixel_format = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        if codec == "av1" and self.pixel_format == "yuv444p":
            raise ConfigError(f"{key}: av1 needs an even size, not {height} x {width}; use h264 or no video")
        self._files = Files(root, VIDEO_PATH.replace("{video_key}", key), limit)
        self._size, self._rate, self._codec = (height, width), rate, codec
        self._container: Any = None
        self._stream: Any = None
        self._frames = 0

    def add_episode(self, blocks: Iterator[NDArray[np.uint8]]) -> dict[str, Any]:
        """Encode one episode; returns chunk_index, file_index, from_timestamp and to_timestamp [s]."""
        if self._container is not None and self._files.is_full():
            self.close()
        if self._container is None:
            self._open()
        first = self._frames
        for block in blocks:
            for pixels in block:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts, frame.time_base = self._frames, 1 / self._rate
                self._container.mux(self._stream.encode(frame))
                self._frames += 1
        return {
            **self._files.place,
            "from_timestamp": float(first / self._rate),
            "to_timestamp": float(self._frames / self._rate),
        }

    def _open(self) -> None:
        name, options = CODECS[self._codec]
        self._container = av.open(str(self._files.advance()), "w")
        self._stream = self._container.add_stream(name, rate=self._rate, options=dict(options))
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt = self.pixel_format
        self._frames = 0

    def close(self) -> None:
        if self._container is not None:
            container, self._container = self._container, None
            with container:
                if self._frames:
                    container.mux(self._stream.encode())


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(height, width, 3) as a PNG file."""
    codec = av.CodecContext.create("png", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = pixels.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode()])
