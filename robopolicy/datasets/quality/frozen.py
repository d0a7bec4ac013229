"""State signals that stand still: all through the data, through one episode, or for a while.

Objects rest and goals are constant by design, so only the robot's own state is expected to move, and only
while its commands do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.matching import match, proprioception
from robopolicy.datasets.quality.signals import column_names, columns, newest, runs, states
from robopolicy.datasets.quality.summaries import Summary, listed, measured

#: A hold is reported when commands keep moving in it for this long [s] and over this share of their range.
HELD, MOVED = 0.5, 0.1
#: A signal that moves in this share of the episodes is expected to in every one.
USUALLY = 0.8
#: Fewer episodes than this show no habit.
FEWEST = 3


def check(name: str, episode: Episode, specs: Specs) -> Iterator[Finding]:
    """The longest time in which a state of the robot repeats bit for bit although its commands move."""
    action, times = episode.action.value.astype(np.float64), episode.action.time_ns
    matches = [m for m in match(episode, specs) if m.part.space != "gripper_opening"]
    if len(times) < 3:
        return
    step = float(np.median(np.diff(times))) / 1e9
    for key in sorted({m.key for m in matches}):
        own = [m.action for m in matches if m.key == key]
        seen = newest(episode.observation[key], times).reshape(len(times), -1)
        if (seen == seen[0]).all():
            continue  # all through: ``check_all`` knows whether that is unusual
        reach = np.ptp(action[:, own], axis=0)
        usable = np.array(own)[reach > 0]
        if not usable.size:
            continue
        steps = np.abs(np.diff(action[:, usable], axis=0)) / np.ptp(action[:, usable], axis=0)
        active = steps.max(axis=1) > 1e-3
        held = [
            (first, last + 1)
            for first, last in runs((np.diff(seen, axis=0) == 0).all(axis=1))
            if active[first : last + 1].sum() * step >= HELD
            and (np.ptp(action[first : last + 2, usable], axis=0) > MOVED * reach[reach > 0]).any()
        ]
        if held:
            first, last = max(held, key=lambda run: run[1] - run[0])
            message = (
                f"holds one value for {(times[last] - times[first]) / 1e9:.2f} s while its commands move "
                f"({len(held)} such times)"
            )
            yield Finding("warning", "frozen", name, key, message, (first, last))


def measure(name: str, episode: Episode, specs: Specs) -> dict[str, Any]:
    """Per state: which columns change at all, the first sample, and whether it senses the robot."""
    own = proprioception(episode, specs)
    signals = {}
    for key, signal, spec in states(episode, specs):
        values = columns(signal, spec)
        signals[key] = ((values != values[0]).any(axis=0), values[0], key in own)
    return {"signals": signals, "commanded": bool(np.ptp(episode.action.value, axis=0).any())}


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """Columns with one value in the whole dataset, and the robot's state standing still in a few episodes."""
    every = measured(summaries, "frozen")
    if len(every) < FEWEST:
        return
    for key, spec in specs.observation.items():
        told = [(name, m["commanded"], *m["signals"][key]) for name, m in every if key in m["signals"]]
        if len(told) < FEWEST:
            continue
        firsts = np.stack([first for _, _, _, first, _ in told])
        ever = np.stack([changes for _, _, changes, _, _ in told]).any(axis=0) | (firsts != firsts[0]).any(
            axis=0
        )
        if not ever.all() and firsts.any():  # all zero is for ``zeros`` to say
            labels = column_names(spec)
            still = [f"{labels[i]} = {firsts[0][i]:.4g}" for i in np.flatnonzero(~ever)]
            message = f"the same value in every sample of every episode: {listed(still)}"
            yield Finding("note", "frozen", "", key, message)
        moves = np.mean([changes.any() for _, _, changes, _, _ in told])
        for name, commanded, changes, _, own in told:
            if own and commanded and not changes.any() and moves >= USUALLY:
                message = f"never changes here though it does in {moves:.0%} of the episodes"
                yield Finding("warning", "frozen", name, key, message)
