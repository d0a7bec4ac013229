"""Turns chunks that arrive late, at policy rate, into one smooth reference at control rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.geometry import Float
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.delay import DelayMeter
from robopolicy.runtime.spline import Knots, Path, hold, slopes

#: Spaces whose absolute commands can be interpolated as they are.
STREAMED_SPACES = ("joint_position", "gripper_opening", "planar_position")


@dataclass(frozen=True)
class SchedulerConfig:
    """How chunks are joined.

    Args:
        replan_every: policy periods between requests; 0 means the action horizon.
        join_periods: a new chunk is met at its first point at least this many policy periods ahead.
        brake_s: length of the tail after a chunk's last point, from its velocity to rest [s].
        delay_window, delay_warmup: see ``DelayMeter``.
    """

    replan_every: int = 0
    join_periods: float = 1.0
    brake_s: float = 0.3
    delay_window: int = 50
    delay_warmup: int = 2

    def __post_init__(self) -> None:
        if self.replan_every < 0:
            raise ConfigError(f"replan_every must be >= 0, got {self.replan_every}")
        if not self.join_periods > 0 or not self.brake_s > 0:
            raise ConfigError(
                f"join_periods and brake_s must be positive, got {self.join_periods} and {self.brake_s}"
            )


@dataclass
class SchedulerCounters:
    """What went other than planned."""

    accepted_chunks: int = 0
    late_chunks: int = 0  # arrived when all their points were past, or older than the one in force
    dropped_points: int = 0  # of accepted chunks: past, or too near to be met
    starved_ticks: int = 0  # references given from a braking tail or after it


class ChunkScheduler:
    """Pure logic: every instant is passed in, on one monotonic clock [ns].

    Action k of a chunk is reached at observation time + (k - action_start) policy periods, and one more
    where ``ActionSpec.reached`` is "end". A new chunk is joined to the reference in force, whose
    position, velocity and acceleration it continues; after its last point follows a tail that brakes to
    rest and holds, so that a policy that falls silent stops the arm.

    Args:
        specs: of the policy; all action parts absolute and of ``STREAMED_SPACES``.
    Raises:
        ConfigError: an action part cannot be streamed, or replan_every leaves the chunk.
    """

    def __init__(self, specs: PolicySpecs, config: SchedulerConfig | None = None) -> None:
        self._specs = specs
        self._config = config or SchedulerConfig()
        action = specs.specs.action
        for part in action.parts:
            if part.reference != "absolute" or part.space not in STREAMED_SPACES:
                raise ConfigError(
                    f"cannot stream {part.reference} {part.space}, only absolute {', '.join(STREAMED_SPACES)}"
                )
        self._replan_every = self._config.replan_every or specs.horizons.action
        if specs.horizons.action_start + self._replan_every > specs.horizons.prediction:
            raise ConfigError(
                f"replan_every {self._replan_every} from action {specs.horizons.action_start} reaches past "
                f"a chunk of {specs.horizons.prediction}"
            )
        self._monotone = np.array(
            [part.space == "gripper_opening" for part in action.parts for _ in part.names], dtype=np.bool_
        )
        self._period_ns = round(1e9 / specs.specs.policy_rate)
        self._reached = 1 if action.reached == "end" else 0  # periods after its step begins
        self._meter = DelayMeter(self._config.delay_window, self._config.delay_warmup)
        self.counters = SchedulerCounters()
        self.reset(np.zeros(action.dim), 0)

    def reset(self, position: NDArray[np.float64], now_ns: int) -> None:
        """Forget all chunks and hold a position, (action_dim,); the measured delay is kept."""
        dim = self._specs.specs.action.dim
        if position.shape != (dim,) or not np.isfinite(position).all():
            raise ShapeError(f"need {dim} finite positions to start from, got {position}")
        self._path = hold(position, now_ns)
        self._covered_until_ns: int | None = None
        self._chunk_observed_ns: int | None = None
        self._requested_ns: int | None = None
        self._in_flight = False

    @property
    def policy_specs(self) -> PolicySpecs:
        """Of the policy whose chunks it takes."""
        return self._specs

    @property
    def delay_p95_ns(self) -> int:
        """Measured delay from observation to arrival [ns]."""
        return self._meter.p95_ns

    @property
    def covered_until_ns(self) -> int | None:
        """When the chunk in force ends and its braking tail begins; None before the first chunk."""
        return self._covered_until_ns

    def should_request(self, now_ns: int) -> bool:
        """Whether an observation taken now should go to the policy.

        It should every ``replan_every`` periods, and sooner when an answer that takes the measured
        delay could not be joined before the chunk in force ends. One request at a time.
        """
        if self._in_flight:
            return False
        if self._covered_until_ns is None or self._requested_ns is None:
            return True
        half_period_ns = self._period_ns // 2  # observations do not arrive on exact multiples
        if now_ns - self._requested_ns >= self._replan_every * self._period_ns - half_period_ns:
            return True
        needed_ns = self.delay_p95_ns + self._join_ns + self._period_ns
        return self._covered_until_ns - now_ns <= needed_ns

    def mark_requested(self, observation_time_ns: int) -> None:
        """An observation of this instant went to the policy."""
        self._requested_ns = observation_time_ns
        self._in_flight = True

    def mark_failed(self) -> None:
        """The request in flight will not be answered."""
        self._in_flight = False

    def accept(self, chunk: NDArray[np.floating], observation_time_ns: int, now_ns: int) -> bool:
        """Join a chunk to the reference in force.

        Args:
            chunk: (prediction_horizon, action_dim) in the action spec's units.
            observation_time_ns: when the current observation of its window was taken.
            now_ns: the instant up to which references have been given out.
        Returns:
            False when the chunk is too late or too old to be of use; the reference stays as it was.
        Raises:
            ShapeError, NonFiniteValueError: the chunk breaks the specs; the reference stays.
        """
        self._in_flight = False
        if chunk.shape != self._specs.chunk_shape:
            raise ShapeError(f"a chunk is {self._specs.chunk_shape}, got {chunk.shape}")
        if not np.isfinite(chunk).all():
            raise NonFiniteValueError(f"the chunk has {int((~np.isfinite(chunk)).sum())} non-finite values")
        self._meter.add(now_ns - observation_time_ns)
        start, period_ns = self._specs.horizons.action_start, self._period_ns
        earliest_ns = now_ns + self._join_ns
        # First k whose instant, observation time + (k - start + reached) periods, is not before earliest.
        first = max(start, start - self._reached - (observation_time_ns - earliest_ns) // period_ns)
        older = self._chunk_observed_ns is not None and observation_time_ns <= self._chunk_observed_ns
        if older or first >= self._specs.horizons.prediction:
            self.counters.late_chunks += 1
            return False
        times_ns = [
            observation_time_ns + (k - start + self._reached) * period_ns
            for k in range(first, self._specs.horizons.prediction)
        ]
        self._path = self._join(chunk.astype(np.float64), first, times_ns, now_ns)
        self._covered_until_ns, self._chunk_observed_ns = times_ns[-1], observation_time_ns
        self.counters.accepted_chunks += 1
        self.counters.dropped_points += first - start
        return True

    def reference(self, now_ns: int) -> tuple[Float, Float]:
        """Position and velocity, each (action_dim,), the arm should have at an instant."""
        if self._covered_until_ns is not None and now_ns > self._covered_until_ns:
            self.counters.starved_ticks += 1
        position, velocity, _ = self._path.state(now_ns)
        return position, velocity

    @property
    def _join_ns(self) -> int:
        return round(self._config.join_periods * self._period_ns)

    def _join(self, chunk: Float, first: int, times_ns: list[int], now_ns: int) -> Path:
        position, velocity, acceleration = self._path.state(now_ns)
        slope, bend = slopes(chunk, self._period_ns * 1e-9, self._monotone)
        # From the last velocity to rest at a steady pace, half the way that velocity would have gone.
        rest = chunk[-1] + slope[-1] * self._config.brake_s / 2
        still = np.zeros_like(rest)
        return Path(
            Knots(
                time_ns=(now_ns, *times_ns, times_ns[-1] + round(self._config.brake_s * 1e9)),
                position=np.vstack([position, chunk[first:], rest]),
                velocity=np.vstack([velocity, slope[first:], still]),
                acceleration=np.vstack([acceleration, bend[first:], still]),
            )
        )
