"""The wanted start laid over the live picture, so that objects can be pushed until both agree."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, MissingDependencyError, ShapeError

EDGE = (255, 0, 170)  # no object of a lab is of this colour
ASPECT = 0.02  # relative difference of the sides' ratio that still counts as the same camera

Picture = NDArray[np.uint8]


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("overlays need opencv: pip install 'robopolicy[opencv]'") from error
    module: ModuleType = cv2
    return module


def read_photograph(path: Path) -> Picture:
    """(height, width, 3) uint8, red first; ConfigError where it is no picture."""
    cv2 = _cv2()
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise ConfigError(f"{path} is no picture that can be read")
    return np.asarray(picture, dtype=np.uint8)


def overlay(live: NDArray[Any], wanted: NDArray[Any] | None, *, blend: float = 0.5) -> Picture:
    """The live picture, the wanted one faint above it, and the wanted one's edges.

    Args:
        live: (height, width, 3) uint8.
        wanted: likewise, of any size; None shows the live picture alone.
        blend: weight of the wanted picture, 0 to 1; its edges show at any.
    Raises:
        ShapeError: not pictures, or of different proportions, so not by the same camera.
    """
    live = _checked("live picture", live)
    if wanted is None:
        return live
    cv2 = _cv2()
    wanted = _checked("photograph", wanted)
    height, width = live.shape[:2]
    ratio = wanted.shape[1] / wanted.shape[0] / (width / height)
    if abs(ratio - 1) > ASPECT:
        raise ShapeError(
            f"the photograph is {wanted.shape[1]} x {wanted.shape[0]}, the camera {width} x {height}: "
            "take the photographs with the camera that shows the live picture"
        )
    wanted = cv2.resize(wanted, (width, height), interpolation=cv2.INTER_AREA)
    mixed = cv2.addWeighted(live, 1 - blend, wanted, blend, 0)
    grey = cv2.GaussianBlur(cv2.cvtColor(wanted, cv2.COLOR_RGB2GRAY), (5, 5), 0)
    mixed[cv2.Canny(grey, 60, 150) > 0] = EDGE
    return np.asarray(mixed, dtype=np.uint8)


def jpeg(picture: Picture) -> bytes:
    """(height, width, 3), red first, as a JPEG file."""
    cv2 = _cv2()
    options = [cv2.IMWRITE_JPEG_QUALITY, 80]
    fine, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    assert fine
    return bytes(data)


def _checked(name: str, picture: NDArray[Any]) -> Picture:
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ShapeError(f"the {name} must be uint8 (height, width, 3), got {picture.dtype} {picture.shape}")
    return picture
