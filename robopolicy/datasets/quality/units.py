"""Numbers too large for their unit: degrees in a column of radians, millimetres in one of metres."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import pi

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.signals import column_names, column_units, states
from robopolicy.datasets.quality.summaries import Summary, listed, measured

#: Unit to the largest believable magnitude and what larger numbers would suggest. Two turns either way are
#: more than any arm joint has; 50 m is farther than an arm's base moves in a demonstration.
BELIEVABLE = {
    "rad": (4 * pi, "degrees?"),
    "m": (50.0, "millimetres?"),
    "rad/s": (100.0, "degrees per second?"),
}


def measure(name: str, episode: Episode, specs: Specs) -> dict[str, NDArray[np.float64]]:
    """Largest magnitude per column of each state and of the action."""
    largest = {"action": np.abs(episode.action.value.astype(np.float64)).max(axis=0)}
    for key, signal, _ in states(episode, specs):
        largest[key] = np.abs(signal.value.astype(np.float64)).max(axis=0).reshape(-1)
    return largest


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """One warning per signal and unit."""
    labels = {"action": (list(specs.action.names), list(specs.action.units))}
    labels.update({key: (column_names(s), column_units(s)) for key, s in specs.observation.items()})
    largest: dict[str, NDArray[np.float64]] = {}
    for _, sizes in measured(summaries, "units"):
        for key, size in sizes.items():
            largest[key] = np.maximum(largest.get(key, size), size)
    for key, size in largest.items():
        names, units = labels[key]
        for unit, (bound, guess) in BELIEVABLE.items():
            over = [i for i, u in enumerate(units) if u == unit and size[i] > bound]
            if over:
                worst = max(over, key=lambda i: size[i])
                message = (
                    f"{listed([names[i] for i in over])}: up to {size[worst]:.4g} {unit} "
                    f"(believable: {bound:.3g}); {guess}"
                )
                yield Finding("warning", "units", "", key, message)
