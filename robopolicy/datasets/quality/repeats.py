"""A camera that delivers the same picture again while the robot moves: it hangs or is slow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.matching import proprioception
from robopolicy.datasets.quality.signals import at_times, runs, states

#: Between two pictures something moved by more than this share of its range in the episode.
MOVED = 0.02
#: A picture that lasts this long [s] and this many frames hangs; such movement adds up to this share.
HANG, FRAMES, PATH = 0.5, 4, 0.1
#: More repeats than this share of the moving frames: the camera's own rate is lower.
SHARE = 0.2


def check(name: str, episode: Episode, specs: Specs) -> Iterator[Finding]:
    """At most one finding per camera or depth image, from pictures equal in every bit.

    A still scene repeats in a simulator but not before a real camera, whose sensor has noise.
    """
    for key, signal in episode.observation.items():
        if specs.observation[key].kind == "state" or len(signal.value) < 2 * FRAMES:
            continue
        same, moved = _same_as_last(signal), _movement(episode, specs, signal.time_ns)
        hangs = [
            (first, last + 1)
            for first, last in runs(same)
            if last - first + 1 >= FRAMES
            and signal.time_ns[last + 1] - signal.time_ns[first] >= HANG * 1e9
            and moved[first : last + 1].sum() > PATH
            and (moved[first : last + 1] > MOVED).any()
        ]
        moving = moved > MOVED
        share = float(same[moving].mean()) if moving.sum() >= 2 * FRAMES else 0.0
        if hangs:
            first, last = max(hangs, key=lambda run: run[1] - run[0])
            seconds = (signal.time_ns[last] - signal.time_ns[first]) / 1e9
            message = f"the same picture for {seconds:.2f} s while the robot moves ({len(hangs)} such times)"
            yield Finding("warning", "repeats", name, key, message, (first, last))
        elif share > SHARE:
            rate = 1e9 / float(np.median(np.diff(signal.time_ns)))
            message = (
                f"{share:.0%} of the pictures taken in motion repeat the one before: on average the camera "
                f"delivers about {rate * (1 - share):.3g} Hz, its stamps say {rate:.3g} Hz"
            )
            again = np.flatnonzero(same & moving) + 1
            yield Finding("warning", "repeats", name, key, message, (int(again[0]), int(again[-1])))


def _same_as_last(signal: Signal) -> NDArray[np.bool_]:
    """(count - 1,) one frame at a time, so that no copy of the video is made."""
    frames = signal.value
    return np.array([np.array_equal(a, b) for a, b in itertools.pairwise(frames)], dtype=bool)


def _movement(episode: Episode, specs: Specs, time_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """(count - 1,) the most that any column of the robot's state (or else a command) moves, in ranges."""
    own = proprioception(episode, specs)
    moving = [at_times(s, spec, time_ns) for key, s, spec in states(episode, specs) if key in own]
    values = np.concatenate(moving or [at_times(episode.action, None, time_ns)], axis=1)
    reach = np.ptp(values, axis=0)
    share = np.abs(np.diff(values, axis=0)) / np.where(reach > 0, reach, np.inf)
    return np.asarray(share.max(axis=1))
