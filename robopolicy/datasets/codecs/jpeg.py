"""JPEG: small and lossy, for colour cameras. Each frame stands alone, so any can be read first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import SpecError, StoreError
from robopolicy.core.specs import ArraySpec
from robopolicy.datasets.codecs import opencv

ZARR_NAME = "robopolicy.jpeg"


@dataclass(frozen=True)
class Config:
    """Args:
    quality: 1 to 100 (ITU T.81 scaling as libjpeg does it); 95 is hard to tell from the original.
    """

    quality: int = 95

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise SpecError(f"JPEG quality must be in 1..100, got {self.quality}")


def check(spec: ArraySpec) -> None:
    if spec.kind != "image":
        raise SpecError(f"JPEG stores colour images, not {spec.kind} {spec.dtype} {spec.shape}")


def chain(config: Config, spec: ArraySpec) -> list[dict[str, Any]]:
    return [{"name": ZARR_NAME, "configuration": {"quality": config.quality}}]


def encode(config: Config, frame: NDArray[Any]) -> bytes:
    """(height, width, 3) uint8 RGB to a JPEG file's bytes."""
    cv2 = opencv()
    ok, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, config.quality])
    if not ok:
        raise StoreError(f"JPEG cannot encode a frame of {frame.shape} {frame.dtype}")
    return bytes(data)


def decode(data: bytes | memoryview, out: NDArray[Any]) -> None:
    cv2 = opencv()
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if frame is None or frame.shape != out.shape:
        raise ValueError(f"not a JPEG of {out.shape}")
    out[...] = frame
