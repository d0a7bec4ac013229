"""Frames of LeRobot's cameras: parts of mp4 files, or images inside the rows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers._boundary import IMAGE_BLOCK, foreign
from robopolicy.datasets.importers.lerobot.layout import Clip


def frame_count(path: Path) -> int:
    """Frames that a video's header promises, 0 when it does not say; ImportFormatError when it is damaged."""
    with foreign(str(path)), av.open(str(path)) as container:
        return int(container.streams.video[0].frames)


def read_clip(
    clip: Clip, timestamps: NDArray[np.float64], period: float, shape: tuple[int, ...], where: str
) -> Iterator[NDArray[np.uint8]]:
    """The frames of one episode, in blocks of at most ``IMAGE_BLOCK``.

    Args:
        timestamps: (length,) of the episode's rows [s]; frame k belongs to row k.
        period: of one frame [s].
        shape: (height, width, 3).
    Returns:
        (count, height, width, 3) red, green, blue.
    Raises:
        ImportFormatError: damaged, too short, of another size, or frames lie elsewhere in time than the rows.
    """
    block: list[NDArray[np.uint8]] = []
    frames = _decoded(clip, clip.start_s + timestamps[0] - period / 2, where)
    for index, due in enumerate(clip.start_s + timestamps):
        time, pixels = next(frames, (None, None))
        if time is None or pixels is None:
            raise ImportFormatError(f"{where}: {clip.path} ends after {index} of {len(timestamps)} frames")
        if abs(time - due) > period / 2:
            raise ImportFormatError(
                f"{where}, frame {index}: {clip.path} shows it at {time:.4f} s, its row is due at {due:.4f} s"
            )
        if pixels.shape != shape:
            raise ImportFormatError(
                f"{where}: {clip.path} has frames of {pixels.shape}, meta/info.json {shape}"
            )
        block.append(pixels)
        if len(block) == IMAGE_BLOCK:
            yield np.stack(block)
            block = []
    frames.close()
    if block:
        yield np.stack(block)


def _decoded(clip: Clip, start_s: float, where: str) -> Any:
    """Time [s] and pixels of every frame from ``start_s`` on.

    Colours are FFmpeg's default conversion, as in LeRobot's own reader, which is one level darker than exact.
    """
    container: Any
    with foreign(where, f"cannot be decoded from {clip.path}"), av.open(str(clip.path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if start_s > 0:
            container.seek(int(start_s / stream.time_base), stream=stream)  # to the key frame before
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= start_s:
                yield frame.time, frame.to_ndarray(format="rgb24")


def read_image(content: Any, shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """(height, width, 3) of one PNG or JPEG, its "bytes" as Hugging Face's Image feature stores them."""
    container: Any
    with foreign(where, "holds no readable image"), av.open(io.BytesIO(content["bytes"])) as container:
        pixels: NDArray[np.uint8] = next(container.decode(video=0)).to_ndarray(format="rgb24")
    if pixels.shape != shape:
        raise ImportFormatError(f"{where}: an image of {pixels.shape}, meta/info.json says {shape}")
    return pixels
