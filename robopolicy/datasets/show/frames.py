"""Frames of a store's cameras, a few at a time, as small encoded pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import MissingDependencyError
from robopolicy.core.specs import Specs
from robopolicy.datasets import codecs
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.reader import EpisodeReader

BLOCK = 32


def cameras(specs: Specs) -> list[str]:
    """Observations that are pictures: colour and depth."""
    return [key for key, spec in specs.observation.items() if spec.kind != "state"]


def frame_blocks(reader: EpisodeReader, key: str, size: int = BLOCK) -> Iterator[Signal]:
    """One camera of one episode, ``size`` decoded frames at a time."""
    places, times = reader.frames(f"observation/{key}"), reader.times(f"observation/{key}")
    for start in range(0, len(times), size):
        indices = np.arange(start, min(start + size, len(times)))
        yield Signal(places.read(reader.storage, indices), times[indices])


def jpeg_blocks(
    reader: EpisodeReader, key: str, quality: int, size: int = BLOCK
) -> Iterator[tuple[list[bytes], NDArray[np.int64]]]:
    """One colour camera as JPEG files, ``size`` at a time, and when they were taken [ns].

    A camera that is stored as JPEG is passed on as it is; ``quality`` is for the others.
    """
    places, times = reader.frames(f"observation/{key}"), reader.times(f"observation/{key}")
    if places.decode is not codecs.load("jpeg").decode:
        for block in frame_blocks(reader, key, size):
            yield [jpeg(frame, quality) for frame in block.value], block.time_ns
        return
    for start in range(0, len(times), size):
        indices = np.arange(start, min(start + size, len(times)))
        stored = reader.storage.read_ranges(places.ranges(indices))
        where = [f"{places.where}, frame {index}" for index in indices]
        yield [bytes(codecs.checked(data, at)) for data, at in zip(stored, where)], times[indices]


def frames_at(reader: EpisodeReader, key: str, fractions: Sequence[float]) -> NDArray[Any]:
    """(len(fractions), height, width, channels) frames at those fractions, 0..1, of a camera's recording."""
    places = reader.frames(f"observation/{key}")
    indices = [round(fraction * (len(places) - 1)) for fraction in fractions]
    return places.read(reader.storage, np.array(indices))


def jpeg(frame: NDArray[np.uint8], quality: int, height: int | None = None) -> bytes:
    """A JPEG file's bytes.

    Args:
        frame: (height, width, 3) red, green, blue, or (height, width) grey.
        height: scale down to this many pixels; smaller pictures stay as they are.
    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("pictures need pillow: pip install 'robopolicy[viz]'") from error
    picture = Image.fromarray(frame)
    if height is not None and picture.height > height:
        picture = picture.resize((max(round(picture.width * height / picture.height), 1), height))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=height is not None)
    return buffer.getvalue()


def grey_depth(depth: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Depth (..., height, width, 1) as grey (..., height, width), near bright, 0 ("no reading") black."""
    valid = depth[depth > 0]
    if not valid.size:
        return np.zeros(depth.shape[:-1], np.uint8)
    near, far = np.percentile(valid, (2, 98))
    scaled = 255 - 215 * np.clip((depth[..., 0] - near) / max(far - near, 1.0), 0, 1)
    return np.where(depth[..., 0] > 0, scaled, 0).astype(np.uint8)
