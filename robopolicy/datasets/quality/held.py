"""Sensors slower than the recording: columns that repeat, then step, while the robot moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.matching import proprioception
from robopolicy.datasets.quality.signals import column_names, columns, states
from robopolicy.datasets.quality.summaries import Summary, listed, measured

#: A column is in motion where it changes by this share of its range within this time [s]. Slow motion of a
#: coarse encoder repeats too, and is not meant.
MOVED, WITHIN = 0.2, 0.5
#: Repeats in this share of the steps in motion, of at least so many, make the sensor slower than its stamps.
SHARE, FEWEST = 0.4, 50


def measure(name: str, episode: Episode, specs: Specs) -> dict[str, np.ndarray]:
    """Per state of the robot: (3, columns): steps in motion, repeats among them, rate of the stamps [Hz]."""
    counts = {}
    own = proprioception(episode, specs)
    for key, signal, spec in states(episode, specs):
        if key not in own or len(signal.value) < 3:
            continue
        values = columns(signal, spec)
        rate = 1e9 / float(np.median(np.diff(signal.time_ns)))
        window = max(round(WITHIN * rate), 2)
        reach = np.ptp(values, axis=0)
        moving = np.zeros((len(values) - 1, values.shape[1]), dtype=bool)
        if len(values) > window:
            far = np.abs(values[window:] - values[:-window]) > MOVED * np.where(reach > 0, reach, np.inf)
            for shift in range(window):
                moving[shift : shift + len(far)] |= far
        repeats = (np.diff(values, axis=0) == 0) & moving
        counts[key] = np.stack([moving.sum(axis=0), repeats.sum(axis=0), np.full(len(reach), rate)])
    return counts


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """One note per signal, with the rate at which new values really come."""
    every = [m for _, m in measured(summaries, "held")]
    for key, spec in specs.observation.items():
        told = [m[key] for m in every if key in m]
        if not told:
            continue
        moving, repeats, _ = np.sum(told, axis=0)
        rate = float(np.median([m[2, 0] for m in told]))
        share = repeats / np.maximum(moving, 1)
        slow = np.flatnonzero((moving >= FEWEST) & (share > SHARE))
        if slow.size:
            labels = column_names(spec)
            fresh = float(np.median(rate * (1 - share[slow])))
            message = (
                f"{listed([labels[i] for i in slow])}: in motion {np.median(share[slow]):.0%} of the samples "
                f"repeat the one before; new values come at about {fresh:.2g} Hz, stamps at {rate:.3g} Hz"
            )
            yield Finding("note", "held", "", key, message)
