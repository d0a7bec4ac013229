"""PNG: bit-equal and smaller than ``lossless``, slower to decode; for depth (16 bit) and colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import SpecError, StoreError
from robopolicy.core.specs import ArraySpec
from robopolicy.datasets.codecs import opencv

ZARR_NAME = "robopolicy.png"


@dataclass(frozen=True)
class Config:
    """Args:
    level: 0 (fast) to 9 (small).
    """

    level: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 9:
            raise SpecError(f"PNG level must be in 0..9, got {self.level}")


def check(spec: ArraySpec) -> None:
    if spec.kind not in ("image", "depth"):
        raise SpecError(f"PNG stores images and depth, not {spec.kind} {spec.dtype} {spec.shape}")


def chain(config: Config, spec: ArraySpec) -> list[dict[str, Any]]:
    return [{"name": ZARR_NAME, "configuration": {"level": config.level}}]


def encode(config: Config, frame: NDArray[Any]) -> bytes:
    """(height, width, 3) uint8 RGB or (height, width, 1) uint16 to a PNG file's bytes."""
    cv2 = opencv()
    ok, data = cv2.imencode(".png", frame[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, config.level])
    if not ok:
        raise StoreError(f"PNG cannot encode a frame of {frame.shape} {frame.dtype}")
    return bytes(data)


def decode(data: bytes | memoryview, out: NDArray[Any]) -> None:
    cv2 = opencv()
    colour = out.shape[-1] == 3
    flag = cv2.IMREAD_COLOR_RGB if colour else cv2.IMREAD_UNCHANGED
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if frame is None or frame.dtype != out.dtype or frame.shape[:2] != out.shape[:2]:
        raise ValueError(f"not a PNG of {out.shape} {out.dtype}")
    out[...] = frame.reshape(out.shape)
