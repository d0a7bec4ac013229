"""Actions that are no commands: copies of the next observation, or of the current one.

Datasets made without logging commands fill the action with the state one frame on. A policy imitates
them well, and a robot that tracks with an error follows it badly: whoever trains on them should know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.matching import match
from robopolicy.datasets.quality.signals import newest
from robopolicy.datasets.quality.summaries import Summary, listed, measured

#: A command equals a state when they differ by less than this share of the state's range in the episode:
#: float32 rounding, but no tracking error of a real or simulated controller.
TOLERANCE = 1e-5
#: Share of the moving frames that must agree, and how few of these say nothing.
SHARE, FEWEST = 0.95, 20


def measure(name: str, episode: Episode, specs: Specs) -> dict[str, tuple[str, int, int, int]]:
    """Per matched command: the state's key, frames in which it moves, of these equal to next, to current."""
    counts = {}
    commands = episode.action.value.astype(np.float64)
    for m in match(episode, specs):
        if not m.comparable:
            continue
        seen = newest(episode.observation[m.key], episode.action.time_ns)[:, m.column].astype(np.float64)
        now, after, command = seen[:-1], seen[1:], commands[:-1, m.action]
        moving = np.abs(after - now) > 100 * TOLERANCE * max(float(np.ptp(seen)), 1e-9)
        close = TOLERANCE * max(float(np.ptp(seen)), 1e-9) + 1e-6 * np.abs(seen).max()
        if m.is_increment:
            now, after = np.full_like(now, np.nan), after - now
        next_equal = int((np.abs(command - after) <= close)[moving].sum())
        now_equal = int((np.abs(command - now) <= close)[moving].sum())
        counts[m.name] = (m.key, int(moving.sum()), next_equal, now_equal)
    return counts


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """One warning for each of "next" and "current", over all episodes together."""
    total: dict[str, list[int]] = {}
    keys: dict[str, str] = {}
    for _, counts in measured(summaries, "action_copy"):
        for joint, (key, *numbers) in counts.items():
            total[joint] = [a + b for a, b in zip(total.get(joint, [0, 0, 0]), numbers)]
            keys[joint] = key
    for column, which in ((1, "next"), (2, "current")):
        copies = [j for j, n in total.items() if n[0] >= FEWEST and n[column] >= SHARE * n[0]]
        if copies:
            share = sum(total[j][column] for j in copies) / sum(total[j][0] for j in copies)
            message = (
                f"{listed(copies)}: equal to the {which} {keys[copies[0]]!r} in {share:.1%} of the frames in "
                "which it moves; these are measured states, not commands that were sent"
            )
            yield Finding("warning", "action_copy", "", "action", message)
