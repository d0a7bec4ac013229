"""Short MP4 files, small enough to live inside an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import MissingDependencyError


def write_video(path: Path, frames: list[NDArray[np.uint8]], rate: float) -> None:
    """H.264 at ``rate`` frames per second [Hz]; frames are (height, width, 3), sides even."""
    try:
        import imageio.v2 as imageio
    except ImportError as error:
        raise MissingDependencyError("videos need imageio: pip install 'robopolicy[viz]'") from error
    options: dict[str, Any] = {"fps": rate, "codec": "libx264", "quality": 7, "macro_block_size": 2}
    with imageio.get_writer(path, **options) as writer:
        for frame in frames:
            writer.append_data(frame)


def mark_outcome(frames: list[NDArray[np.uint8]], success: bool) -> list[NDArray[np.uint8]]:
    """A green or red border, so that outcomes can be told apart at a glance."""
    colour = np.array([46, 160, 67] if success else [218, 54, 51], dtype=np.uint8)
    marked = []
    for frame in frames:
        frame = frame.copy()
        for edge in (frame[:4], frame[-4:], frame[:, :4], frame[:, -4:]):
            edge[...] = colour
        marked.append(frame)
    return marked
