"""How long after a command the robot follows, by cross-correlation of velocities.

A policy trained on absolute commands must learn to look this far ahead, and a simulator to lag as much.
Positions correlate over seconds and tell little, so both sides are differenced first. They are then smoothed
to the pace of intended motion: trembling passes a controller sooner than a reach does, and is not what a
policy predicts. The peak is refined by a parabola.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.matching import Match, match
from robopolicy.datasets.quality.signals import at_times
from robopolicy.datasets.quality.summaries import Summary, listed, measured

#: Lags are looked for up to this far, in both directions [s]; later than LATE is worth a warning [s].
FARTHEST, LATE = 1.0, 0.5
#: Velocities are compared on a grid no finer than this, smoothed by a Hann window of this width [s].
FINEST, SMOOTH = 0.01, 0.5
#: A joint counts when its velocities correlate at least this well; fewer steps than this say nothing.
CORRELATION, FEWEST = 0.5, 24
#: A joint that moves less than this share of the one that moves most (in the same unit) is at rest.
AT_REST = 0.1
#: Joints are one group unless the next one is slower by this factor: an arm and its hand differ.
APART = 1.5
#: States before their commands by more than this share of a step: stamps or frames are shifted.
AHEAD = 0.5


@dataclass(frozen=True)
class Lag:
    """Of joints that follow alike, pooled over them and over episodes.

    Args:
        seconds: median; lower, upper: quartiles [s].
        steps: the median in action steps.
        joints: the names; estimates: joint-episodes that counted.
    """

    seconds: float
    lower: float
    upper: float
    steps: float
    joints: tuple[str, ...]
    estimates: int


def measure(name: str, episode: Episode, specs: Specs) -> dict[str, Any]:
    """{"step": seconds per action, "lags": {joint name: seconds}} of the joints that move enough."""
    times = episode.action.time_ns
    # a gripper that closes on an object stops before its command does
    matches = [m for m in match(episode, specs) if m.comparable and m.part.space != "gripper_opening"]
    if len(times) < FEWEST or not matches:
        return {"step": 0.0, "lags": {}}
    step = float(np.median(np.diff(times))) / 1e9
    grid = max(step, FINEST)
    instants = times[0] + np.round(np.arange(0, (times[-1] - times[0]) / 1e9, grid) * 1e9).astype(np.int64)
    asked = at_times(episode.action, None, instants)
    sensed = {
        key: at_times(episode.observation[key], specs.observation[key], instants)
        for key in {m.key for m in matches}
    }
    lags = {}
    for m in _moving(matches, sensed, specs):
        state = np.diff(sensed[m.key][:, m.column])
        found = delay(_velocity(asked, m, specs), state, round(FARTHEST / grid), round(SMOOTH / grid))
        if found is not None:
            lags[m.name] = found * grid
    return {"step": step, "lags": lags}


def delay(
    command: NDArray[np.float64], state: NDArray[np.float64], farthest: int, width: int = 0
) -> float | None:
    """By how many samples ``state`` follows ``command``; negative: it leads.

    Args:
        command, state: (count,) velocities on one uniform grid.
        farthest: lags to look at, in both directions [samples].
        width: of the smoothing window [samples].
    Returns:
        None when they do not correlate, or best at the edge of what was searched.
    """
    window = np.hanning(width + 2)[1:-1] if width > 1 else np.ones(1)
    if len(command) <= len(window):
        return None
    command, state = (np.convolve(v, window, "valid") for v in (command, state))
    farthest = min(farthest, len(command) // 3)
    if farthest < 2 or min(np.ptp(command), np.ptp(state)) < 1e-9:
        return None
    # each lag is normalised over its own overlap: one norm for all would pull the peak towards zero
    curve = np.array([_correlation(command, state, lag) for lag in range(-farthest, farthest + 1)])
    peak = int(np.argmax(curve))
    if not 0 < peak < len(curve) - 1 or curve[peak] < CORRELATION:
        return None
    left, top, right = curve[peak - 1 : peak + 2]
    bend = left - 2 * top + right
    return float(peak - farthest + (0.5 * (left - right) / bend if bend < 0 else 0.0))


def _correlation(command: NDArray[np.float64], state: NDArray[np.float64], lag: int) -> float:
    """Pearson's, of the state with the command ``lag`` samples before it."""
    count = len(command)
    first = command[max(-lag, 0) : count - max(lag, 0)]
    second = state[max(lag, 0) : count - max(-lag, 0)]
    first, second = first - first.mean(), second - second.mean()
    energy = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / energy if energy > 0 else 0.0


def pool(summaries: Sequence[Summary]) -> list[Lag]:
    """The lags of a dataset, the quickest joints first; empty when no command could be matched to a state."""
    every = [m for _, m in measured(summaries, "lag") if m["lags"]]
    by_joint: dict[str, list[float]] = {}
    for m in every:
        for joint, value in m["lags"].items():
            by_joint.setdefault(joint, []).append(value)
    # a joint that moved in a few episodes only is an anecdote
    usual = {j: float(np.median(v)) for j, v in by_joint.items() if len(v) >= 0.1 * len(every)}
    groups: list[list[str]] = []
    for joint in sorted(usual, key=lambda j: usual[j]):
        together = groups and (usual[joint] <= APART * usual[groups[-1][-1]] or usual[joint] <= 0)
        groups[-1].append(joint) if together else groups.append([joint])
    step = float(np.median([m["step"] for m in every])) if every else 0.0
    lags = []
    for group in groups:
        values = [value for joint in group for value in by_joint[joint]]
        lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        lags.append(Lag(median, lower, upper, median / step, tuple(group), len(values)))
    return lags


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """One finding per group of joints: a note with the number, a warning when it is negative or very long."""
    for lag in pool(summaries):
        text = (
            f"{abs(lag.seconds) * 1e3:.0f} ms ({abs(lag.steps):.1f} steps), half of {lag.estimates} "
            f"estimates within {lag.lower * 1e3:.0f}..{lag.upper * 1e3:.0f} ms; {listed(lag.joints)}"
        )
        if lag.steps < -AHEAD:
            message = f"states move before their commands by {text}: are times or frames shifted?"
            yield Finding("warning", "lag", "", "action", message)
        else:
            severity = "warning" if lag.seconds > LATE else "note"
            yield Finding(severity, "lag", "", "action", f"states follow their commands after {text}")


def _moving(matches: list[Match], sensed: dict[str, Any], specs: Specs) -> list[Match]:
    reach = {m.name: float(np.ptp(sensed[m.key][:, m.column])) for m in matches}
    unit = dict(zip(specs.action.names, specs.action.units))
    most: dict[str, float] = {}
    for m in matches:
        most[unit[m.name]] = max(most.get(unit[m.name], 0.0), reach[m.name])
    return [m for m in matches if reach[m.name] > AT_REST * most[unit[m.name]]]


def _velocity(asked: NDArray[np.float64], match: Match, specs: Specs) -> NDArray[np.float64]:
    """(grid steps,) commanded change from each instant to the next, in a unit of its own."""
    column = asked[:, match.action]
    if match.is_increment:
        return column[1:]  # an increment is what its command adds to the one before
    wraps = match.column in specs.observation[match.key].angles
    return np.diff(np.unwrap(column) if wraps else column)
