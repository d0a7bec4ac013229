"""States that jump: a glitch of a sensor or tracker, or faster than the joint can turn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from robopolicy import robots
from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.matching import match, proprioception
from robopolicy.datasets.quality.signals import at_times, column_names, column_units, columns, states

#: Faster than a joint's limit by this factor is no motion (stamps jitter a little).
OVER_LIMIT = 1.5
#: A jump is larger than this many usual steps (median, or robust standard deviation), than this share of the
#: range, and this many times the steps around it: motion takes several frames, a glitch one.
DEVIATIONS, SHARE, ALONE = 10.0, 0.15, 8.0
#: Smaller steps than this are the noise of a resting joint, by unit.
FLOOR = {"rad": 0.02, "m": 0.002, "px": 2.0}
#: A spike comes back to within this share of its height.
BACK = 0.3
MAD_TO_STD = 1.4826  # of a normal distribution
#: Fewer samples, or fewer that differ from the last, show nothing usual.
FEWEST = 16


def check(name: str, episode: Episode, specs: Specs) -> Iterator[Finding]:
    """At most one warning per state: its worst column.

    Of what is not the robot only spikes count, there and back again: objects do fall and get thrown.
    """
    limits = _velocity_limits(specs)
    own = proprioception(episode, specs)
    for key, signal, spec in states(episode, specs):
        if len(signal.value) < FEWEST:
            continue
        values, seconds = columns(signal, spec), np.diff(signal.time_ns) / 1e9
        # stamps that come in bunches make any motion look fast
        seconds = np.maximum(seconds, 0.5 * float(np.median(seconds)))
        commands = _commands(episode, specs, key)
        found = []
        for i, (label, unit) in enumerate(zip(column_names(spec), column_units(spec))):
            steps = np.diff(values[:, i])
            if label in limits:
                at = np.flatnonzero(np.abs(steps) > OVER_LIMIT * limits[label] * seconds)
                why = f"faster than {limits[label]:.3g}/s"
            else:
                at, why = isolated(steps, steps_too=key in own), "the steps around it are small"
                away = _leaves(values[:, i], commands.get(i))
                at = at[(np.abs(steps[at]) > FLOOR.get(unit, 0.0)) & away[at]]
            if at.size:
                worst = int(at[np.argmax(np.abs(steps[at]))])
                found.append((at.size, label, worst, float(steps[worst]), why))
        if found:
            count, label, worst, size, why = max(found, key=lambda item: item[0])
            often = "once" if count == 1 else f"{count} times"
            message = f"{label} jumps {often}, by {size:+.4g} after frame {worst} ({why})"
            if len(found) > 1:
                message += f"; so do {len(found) - 1} other columns"
            yield Finding("warning", "jumps", name, key, message, (worst, worst + 1))


def isolated(steps: NDArray[np.float64], *, steps_too: bool = True) -> NDArray[np.int64]:
    """Indices of the (count,) steps that are jumps: large, with only small ones around.

    Zero steps are skipped, for a sensor slower than the recording moves in stairs. A spike's two steps count
    as one, and with ``steps_too`` off only spikes count.
    """
    places = np.flatnonzero(steps)
    moves = steps[places]
    if len(moves) < FEWEST:  # a switch, or nothing that could be called usual
        return np.zeros(0, dtype=np.int64)
    size, path = np.abs(moves), np.concatenate([[0.0], np.cumsum(steps)])
    usual = float(np.median(size))
    spread = MAD_TO_STD * float(np.median(np.abs(size - usual)))
    found = []
    for at in np.flatnonzero((size > DEVIATIONS * max(spread, usual)) & (size > SHARE * np.ptp(path))):
        back = at + 1 < len(moves) and abs(moves[at] + moves[at + 1]) < BACK * size[at]
        around = np.concatenate([size[max(at - 2, 0) : at], size[at + 1 + back : at + 3 + back]])
        if (back or steps_too) and around.size and size[at] > ALONE * around.max():
            found.append(places[at])
    return np.array(found, dtype=np.int64)


def _commands(episode: Episode, specs: Specs, key: str) -> dict[int, NDArray[np.float64]]:
    """Column of ``key`` to the absolute commands for it, at the times of its samples."""
    signal = episode.observation[key]
    asked = at_times(episode.action, None, signal.time_ns)
    matches = [m for m in match(episode, specs) if m.key == key]
    return {m.column: asked[:, m.action] for m in matches if m.comparable and not m.is_increment}


def _leaves(values: NDArray[np.float64], command: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    """(count - 1,) whether a step ends farther from its command; one that ends nearer was stuck and slips."""
    if command is None:
        return np.ones(len(values) - 1, dtype=bool)
    return np.asarray(np.abs(values[1:] - command[:-1]) >= np.abs(values[:-1] - command[:-1]))


def _velocity_limits(specs: Specs) -> dict[str, float]:
    """Column name to limit [rad/s], of a known robot's joints."""
    if specs.robot not in robots.names():
        return {}
    return {joint.name: joint.velocity for joint in robots.load(specs.robot).joints}
