"""Mistakes that turn any scripted expert into a noisy one, whose demonstrations are of mixed quality.

What goes wrong is drawn once per episode and known before it begins, so it can be stored beside the episode.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy.core.policy import keyed_rng
from robopolicy_sim.environment import Observation

_STREAM = 3  # keeps mistakes apart from other uses of the same seed
_JUMP = 0.03  # [m] a goal that moves by more is a new one, and may be overshot
_REACHED = 0.015  # [m] from the overshot goal, where the overshoot ends
_FLOOR = 0.012  # [m] above the table, below which no mistake presses the tool

Span = tuple[float, float]


@dataclass(frozen=True)
class Mistakes:
    """How bad a noisy expert is. Sizes are those of severity 1; they and the rates shrink in proportion.

    Args:
        level: mean severity [-] in 0..1. Each episode's is drawn evenly from as wide an interval around it as
            fits into 0..1: at 0 it is the clean expert, at 0.5 anything from clean to worst, at 1 the worst.
        bias: standard deviation, along x and y, of a constant error in where it believes its tool is [m].
        wander: standard deviation, per axis, of an Ornstein-Uhlenbeck process added to where it goes [m].
        wander_seconds: correlation time of that process [s].
        hesitation_rate: pauses per second [1/s]; hesitation_seconds: their mean duration [s].
        slip_rate: slips of the gripper per second [1/s], which open it where it should close and the other
            way about; slip_seconds: their mean duration [s].
        overshoot: by which share of the way it goes too far, on average [-].
        give_up: probability of stopping for good [-]; give_up_between: when, as shares of the time limit [-].
    Raises:
        ConfigError: a level or probability outside 0..1, a negative size.
    """

    level: float = 0.5
    bias: float = 0.014
    wander: float = 0.01
    wander_seconds: float = 0.8
    hesitation_rate: float = 0.3
    hesitation_seconds: float = 0.8
    slip_rate: float = 0.15
    slip_seconds: float = 0.5
    overshoot: float = 0.2
    give_up: float = 0.6
    give_up_between: Span = (0.05, 0.3)

    def __post_init__(self) -> None:
        for name in ("level", "give_up"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must be in 0..1, got {getattr(self, name)}")
        for name, value in asdict(self).items():
            if np.min(value) < 0.0:
                raise ConfigError(f"{name} must not be negative, got {value}")
        if self.wander_seconds == 0.0:
            raise ConfigError("wander_seconds must be above 0, got 0.0")

    def draw(self, seed: int, seconds: float) -> Drawn:
        """What goes wrong in an episode with that time limit [s]; ``seed`` alone decides."""
        rng = keyed_rng(seed, _STREAM)
        width = min(self.level, 1.0 - self.level)
        severity = self.level + width * rng.uniform(-1.0, 1.0)
        bias = severity * self.bias * rng.standard_normal(2)
        stops = rng.uniform() < severity * self.give_up
        stop = seconds * float(rng.uniform(*self.give_up_between))
        return Drawn(
            severity=float(severity),
            bias=(float(bias[0]), float(bias[1])),
            wander=severity * self.wander,
            overshoot=severity * self.overshoot * float(rng.exponential()),
            hesitations=_spans(rng, severity * self.hesitation_rate, self.hesitation_seconds, seconds),
            slips=_spans(rng, severity * self.slip_rate, self.slip_seconds, seconds),
            gives_up_at=stop if stops else None,
        )


@dataclass(frozen=True)
class Drawn:
    """The mistakes of one episode: sizes as in ``Mistakes``, spans as start and end [s] since the reset."""

    severity: float
    bias: Span
    wander: float
    overshoot: float
    hesitations: tuple[Span, ...]
    slips: tuple[Span, ...]
    gives_up_at: float | None

    def facts(self) -> dict[str, Any]:
        """As an episode's metadata: JSON-able, each name with its unit."""
        units = {"bias": "_m", "wander": "_m", "hesitations": "_s", "slips": "_s", "gives_up_at": "_s"}
        return {name + units.get(name, ""): value for name, value in asdict(self).items()}


class Stumbling:
    """Makes the mistakes of one episode, step by step.

    Args:
        drawn: which.
        wander_seconds: correlation time of the wander [s].
        period: between steps [s].
        opening_max: of the gripper [m].
        seed: of the wander.
    """

    def __init__(
        self, drawn: Drawn, *, wander_seconds: float, period: float, opening_max: float, seed: int
    ) -> None:
        self.drawn = drawn
        self._period, self._opening_max = period, opening_max
        self._kept = float(np.exp(-period / wander_seconds))
        self._rng = keyed_rng(seed, _STREAM, 1)
        self._offset = drawn.wander * self._rng.standard_normal(3)
        self._bias = np.array([*drawn.bias, 0.0])
        self._time = -period
        self._held: tuple[Float, float] | None = None  # pose and opening while standing still
        self._goal: Float | None = None  # position the expert headed for in the step before
        self._extra: Float = np.zeros(3)  # overshoot in progress

    def believe(self, observation: Observation) -> Observation:
        """The observation with the tool where the expert believes it to be."""
        pose = observation["ee_pose"].copy()
        pose[:3] += self._bias.astype(pose.dtype)
        return {**observation, "ee_pose": pose}

    def disturb(self, target: Float, opening: float, tool: Float) -> tuple[Float, float]:
        """What is done instead of what was decided on belief.

        Args:
            target: (4, 4) tool pose to head for, of an expert that saw ``believe``'s observation.
            opening: gripper opening to head for [m].
            tool: (4, 4) measured tool pose.
        Returns:
            Pose and opening to head for instead.
        """
        self._time += self._period
        spread = self.drawn.wander * np.sqrt(1.0 - self._kept**2)
        self._offset = self._kept * self._offset + spread * self._rng.standard_normal(3)
        if _within(self.drawn.slips, self._time):
            opening = self._opening_max if opening < self._opening_max / 2 else 0.0
        if self._stands_still():
            self._held = self._held or (tool, opening)
            return self._held
        self._held = None
        position = target[:3, 3] - self._bias
        moved = position + self._overshoot(position, tool[:3, 3]) + self._offset
        moved[2] = max(moved[2], min(position[2], _FLOOR))
        result = target.copy()
        result[:3, 3] = moved
        return result, opening

    def _stands_still(self) -> bool:
        stop = self.drawn.gives_up_at
        return (stop is not None and self._time >= stop) or _within(self.drawn.hesitations, self._time)

    def _overshoot(self, goal: Float, tool: Float) -> Float:
        """(3,) by how much to go too far: set when a new goal comes up, dropped on arrival [m]."""
        if self._goal is None or np.linalg.norm(goal - self._goal) > _JUMP:
            self._extra = self.drawn.overshoot * (goal - tool)
        elif np.linalg.norm(goal + self._extra - tool) < _REACHED + np.linalg.norm(self._offset):
            self._extra = np.zeros(3)
        self._goal = goal
        return self._extra


def _within(spans: tuple[Span, ...], time: float) -> bool:
    return any(start <= time < end for start, end in spans)


def _spans(rng: np.random.Generator, rate: float, mean: float, seconds: float) -> tuple[Span, ...]:
    """Start and end of random events with ``rate`` [1/s] and exponential durations of that ``mean`` [s]."""
    starts = np.sort(rng.uniform(0.0, seconds, size=rng.poisson(rate * seconds)))
    ends = starts + rng.exponential(mean, size=len(starts))
    return tuple((float(start), float(end)) for start, end in zip(starts, ends, strict=True))
