"""Pictures with nothing on them: black, one plain colour, or burnt out; depth without a reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.signals import runs

#: Pictures are thinned to about this many pixels an axis before they are looked at.
PIXELS = 48
#: A black picture's brightest percent is below this; a plain one's pixels spread less than that (of 255).
BLACK, PLAIN = 16, 4.0
#: Burnt-out pixels are at least this bright, and this share of the picture.
WHITE, BURNT = 250, 0.5
#: Drawn pictures have white grounds on purpose: of their other pixels, more than this share
#: equal the next one.
DRAWN = 0.5
#: Depth with fewer readings than this share.
READINGS = 0.05
#: Share of an episode's frames that makes it an error, and how many are worth a word.
MOSTLY, FEWEST = 0.9, 3


def check(name: str, episode: Episode, specs: Specs) -> Iterator[Finding]:
    """Per camera and fault: how many frames, and the longest run of them."""
    for key, signal in episode.observation.items():
        kind = specs.observation[key].kind
        if kind == "state":
            continue
        faults = (_depth_faults if kind == "depth" else _image_faults)(signal.value)
        for what, bad in faults.items():
            if bad.sum() < min(FEWEST, len(bad)):
                continue
            first, last = max(runs(bad), key=lambda run: run[1] - run[0])
            blind = what != "over-exposed" and bad.mean() >= MOSTLY
            message = f"{what} in {bad.sum()} of {len(bad)} frames, the longest run {last - first + 1}"
            yield Finding("error" if blind else "warning", "cameras", name, key, message, (first, last))


def _image_faults(video: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Fault to (count,) mask; a frame has at most one."""
    names = ("black", "nearly one colour", "over-exposed")
    faults = np.array([_image_fault(_thinned(frame)) for frame in video])
    return {name: faults == code for code, name in enumerate(names, start=1)}


def _image_fault(frame: NDArray[Any]) -> int:
    """0 none, 1 black, 2 nearly one colour, 3 over-exposed."""
    gray = frame.mean(axis=-1)
    if np.quantile(gray, 0.99) < BLACK:
        return 1
    if frame.std(axis=(0, 1)).max() < PLAIN:
        return 2
    white = frame.min(axis=-1) >= WHITE
    if white.mean() < BURNT:
        return 0
    pairs = ~white[:, 1:] & ~white[:, :-1]
    flat = (frame[:, 1:] == frame[:, :-1]).all(axis=-1)
    return 0 if pairs.any() and flat[pairs].mean() > DRAWN else 3


def _depth_faults(video: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    readings = np.array([(_thinned(frame) > 0).mean() for frame in video])
    return {f"fewer than {READINGS:.0%} of the pixels have a reading": readings < READINGS}


def _thinned(frame: NDArray[Any]) -> NDArray[Any]:
    height, width = frame.shape[:2]
    return frame[:: max(height // PIXELS, 1), :: max(width // PIXELS, 1)]
