"""Dropped frames: steps in time much longer than usual, and signals that end before the episode does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.quality.findings import Finding

#: A step longer than this many median steps has lost at least one frame.
GAP = 1.8
#: More gaps than this share, or one longer than this [s], and somebody should look.
SHARE, LONG = 0.02, 0.25
#: With more gaps than this the signal has no fixed rate (events, say), and "gap" means nothing.
IRREGULAR = 0.25
#: A signal that stops earlier than this before the last action [s] (and by 5 of its own steps) has died.
EARLY = 0.25


def check(name: str, episode: Episode, specs: Specs) -> Iterator[Finding]:
    """Per observation and for the action: how many gaps, the longest, and an early end.

    Extra signals may well be events and are left alone.
    """
    for key, signal in {**episode.observation, "action": episode.action}.items():
        if len(signal.time_ns) < 5:
            continue
        steps = np.diff(signal.time_ns) / 1e9
        yield from _gaps(name, key, steps)
        if key != "action":
            yield from _early_end(name, key, signal, float(np.median(steps)), int(episode.action.time_ns[-1]))


def _gaps(name: str, key: str, steps: np.ndarray) -> Iterator[Finding]:
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > GAP * usual)
    share = gaps.size / len(steps)
    if not gaps.size or share > IRREGULAR:
        return
    at = int(gaps[np.argmax(steps[gaps])])
    lost = int(np.round(steps[gaps] / usual - 1).sum())
    severity = "warning" if share > SHARE or steps[at] > max(LONG, 3 * usual) else "note"
    message = (
        f"{gaps.size} gaps in {len(steps)} steps (about {lost} frames lost at {1 / usual:.3g} Hz); "
        f"the longest {steps[at] * 1e3:.0f} ms after frame {at}, usual {usual * 1e3:.1f} ms"
    )
    yield Finding(severity, "gaps", name, key, message, (int(gaps[0]), int(gaps[-1]) + 1))


def _early_end(name: str, key: str, signal: Signal, usual: float, end_ns: int) -> Iterator[Finding]:
    missing = (end_ns - int(signal.time_ns[-1])) / 1e9
    if missing > max(EARLY, 5 * usual):
        last = len(signal.time_ns) - 1
        message = (
            f"its last sample is {missing:.2f} s older than the last action: policies would see it frozen"
        )
        yield Finding("warning", "gaps", name, key, message, (last, last))
