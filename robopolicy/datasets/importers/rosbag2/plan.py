"""Which samples make up an episode, from times alone: nothing is decoded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers.rosbag2.cuts import Cut
from robopolicy.datasets.importers.rosbag2.mapping import ActionMap
from robopolicy.datasets.importers.rosbag2.times import Samples, Times

#: Share of the period by which 5 % of the intervals may be off before a rate is no rate.
MAX_JITTER = 0.2
#: An interval of so many periods means that several commands in a row are missing.
_MAX_INTERVAL = 3.0
_MAX_STEPS = 10_000_000


class IncompleteEpisodeError(ImportFormatError):
    """An episode or bag lacks a signal; ``skip_missing`` leaves it out."""


@dataclass(frozen=True)
class Plan:
    """One episode to be read.

    Args:
        bag: its path.
        index: number of the bag in the source.
        origin_ns: what its times are relative to [Unix ns].
        observation: key to samples.
        action: samples of each part of the action.
        steps_ns: (n,) times of the actions [Unix ns].
        dropped: leading actions left out, as some observation had no sample yet.
    """

    name: str
    bag: Path
    origin_ns: int
    observation: Mapping[str, Samples]
    action: tuple[Samples, ...]
    steps_ns: Times
    dropped: int
    instruction: str
    wall_minus_clock_ns: int | None


def trim(
    observation: Mapping[str, Samples], parts: list[Samples], action: ActionMap, span: Cut
) -> tuple[dict[str, Samples], tuple[Samples, ...], Times, int]:
    """What of a bag's samples belongs to the episode ``span``; see ``Plan``'s last fields.

    Raises:
        IncompleteEpisodeError: no action, or an observation has no sample that an action could follow.
    """
    inside = {key: samples.between(span.start_ns, span.stop_ns) for key, samples in observation.items()}
    if lacking := [key for key, samples in inside.items() if not len(samples)]:
        raise IncompleteEpisodeError(f"{span.name}: no sample of observation {lacking}")
    commands = parts[0].between(span.start_ns, span.stop_ns)
    if not len(commands):
        raise IncompleteEpisodeError(f"{span.name}: no action on {action.parts[0].topic}")
    held = [commands, *(part.between(-(2**62), span.stop_ns) for part in parts[1:])]
    if lacking := [part.topic for part, samples in zip(action.parts, held) if not len(samples)]:
        raise IncompleteEpisodeError(f"{span.name}: no action on {lacking}")
    steps = _steps(commands, action, span)
    ready = max(int(samples.time_ns[0]) for samples in (*inside.values(), *held))
    kept = steps[steps >= ready]
    if not len(kept):
        raise IncompleteEpisodeError(f"{span.name}: some observation or command begins after the last action")
    first, end = int(kept[0]), int(kept[-1]) + 1
    trimmed = {key: samples.since_last_before(first) for key, samples in inside.items()}
    used = tuple(samples.since_last_before(first).between(-(2**62), end) for samples in held)
    return trimmed, used, kept, len(steps) - len(kept)


def _steps(commands: Samples, action: ActionMap, span: Cut) -> Times:
    if action.resample is None:
        return commands.time_ns
    period_ns = 1e9 / action.resample.rate
    duration_ns = int(commands.time_ns[-1] - commands.time_ns[0])
    count = int(duration_ns // period_ns) + 1
    if count > _MAX_STEPS:
        raise ImportFormatError(
            f"{span.name}: actions from {commands.time_ns[0]} to {commands.time_ns[-1]} ns make {count} steps"
        )
    return np.asarray(commands.time_ns[0] + np.round(np.arange(count) * period_ns).astype(np.int64))


def policy_rate(plans: list[Plan], topic: str) -> float:
    """The rate at which actions were recorded [Hz], three significant digits.

    Raises:
        ImportFormatError: none can be measured, or it is irregular; names episode, rate and jitter.
    """
    intervals = np.concatenate([np.diff(plan.steps_ns) for plan in plans])
    if not len(intervals):
        raise ImportFormatError(f"{topic}: one action tells no rate; say `resample: {{rate: ...}}`")
    period = float(np.median(intervals))
    rate = float(f"{1e9 / period:.3g}")
    for plan in plans:
        own = np.diff(plan.steps_ns)
        if not len(own):
            continue
        jitter = float(np.quantile(np.abs(own / period - 1), 0.95))
        longest = float(own.max())
        if jitter > MAX_JITTER or longest > _MAX_INTERVAL * period:
            raise ImportFormatError(
                f"{plan.name}, {topic}: actions come at {rate:g} Hz (median) but irregularly: jitter "
                f"{100 * jitter:.0f} % of the period (95th percentile, at most {100 * MAX_JITTER:.0f} %), "
                f"longest interval {longest / 1e9:.3g} s (at most {_MAX_INTERVAL:g} periods); say "
                f"`resample: {{rate: {rate:g}}}` in the mapping's action"
            )
    return rate
