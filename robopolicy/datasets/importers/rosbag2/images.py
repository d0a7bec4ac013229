"""sensor_msgs/Image and CompressedImage to RGB frames or depth in millimetres."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
#: Encoding of REP-118's sense to stored channels and which of them are red, green, blue.
_COLOURS: dict[str, tuple[int, tuple[int, ...]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
}
_DEPTHS: tuple[str, ...] = ("16UC1", "mono16")
#: cv2 decodes to blue, green, red.
_CV2_CHANNELS = {1: (0, 0, 0), 3: (2, 1, 0), 4: (2, 1, 0)}
#: compressed_depth_image_transport puts its quantisation parameters before the PNG: int32, two float32.
_DEPTH_HEADER_BYTES = 12
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}


class Frames:
    """Turns image messages into frames: (h, w, 3) uint8 RGB, or (h, w, 1) uint16 depth [mm]."""

    def __init__(self, kind: str, msgtype: str, where: str) -> None:
        if msgtype not in (IMAGE, COMPRESSED):
            raise ImportFormatError(f"{where}: kind {kind} needs {IMAGE} or {COMPRESSED}, got {msgtype}")
        self._kind = kind
        self._decode = _decode_raw if msgtype == IMAGE else _decode_compressed

    def __call__(self, message: Any, where: str) -> NDArray[Any]:
        """Raise ImportFormatError for an unknown encoding, or bytes that are cut off or no picture."""
        return self._decode(message, self._kind, where)


def _decode_raw(message: Any, kind: str, where: str) -> NDArray[Any]:
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    known = _DEPTHS if kind == "depth" else tuple(_COLOURS)
    pixel_bytes, order = (2, ()) if kind == "depth" else _COLOURS.get(encoding, (0, ()))
    if encoding not in known:
        raise ImportFormatError(f"{where}: encoding {encoding!r} for kind {kind} is not one of {known}")
    if height < 1 or width < 1 or step < width * pixel_bytes or len(message.data) != step * height:
        raise ImportFormatError(
            f"{where}: {len(message.data)} bytes are no {width} x {height} {encoding} image in rows of {step}"
        )
    rows = np.asarray(message.data, dtype=np.uint8).reshape(height, step)[:, : width * pixel_bytes]
    if kind == "depth":
        stored = np.ascontiguousarray(rows).view(">u2" if message.is_bigendian else "<u2")
        return stored.astype(np.uint16).reshape(height, width, 1)
    return rows.reshape(height, width, pixel_bytes)[..., list(order)]


def _decode_compressed(message: Any, kind: str, where: str) -> NDArray[Any]:
    data = np.asarray(message.data, dtype=np.uint8)
    if "compressedDepth" in message.format:
        data = data[_DEPTH_HEADER_BYTES:]
    head, tail = data[:2].tobytes(), data[-64:].tobytes()
    if head not in _ENDS:
        raise ImportFormatError(f"{where}: format {message.format!r}, expected JPEG or PNG, got {head!r}...")
    if _ENDS[head] not in tail:  # cv2 would make up the missing rows
        raise ImportFormatError(f"{where}: a cut-off picture of {len(data)} bytes")
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImportFormatError(f"{where}: no picture: {error.err}") from error
    if pixels is None:
        raise ImportFormatError(f"{where}: {len(data)} bytes are no picture")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    channels = pixels.shape[-1]
    if kind == "depth":
        if pixels.dtype != np.uint16 or channels != 1:
            raise ImportFormatError(f"{where}: depth needs a 16-bit PNG, got {channels} x {pixels.dtype}")
        return np.asarray(pixels)
    if pixels.dtype != np.uint8 or channels not in _CV2_CHANNELS:
        raise ImportFormatError(f"{where}: a colour picture has 8 bits, got {channels} x {pixels.dtype}")
    return np.asarray(pixels[..., list(_CV2_CHANNELS[channels])])
