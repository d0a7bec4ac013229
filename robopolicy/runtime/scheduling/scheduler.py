"""Turns chunks that arrive late, at policy rate, into one smooth reference at control rate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, UnknownNameError
from robopolicy.core.geometry import Float
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Limits
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.delay import DelayMeter
from robopolicy.runtime.scheduling.ensemble import ensemble
from robopolicy.runtime.scheduling.plan import Plan, braking_tail, paced_grips
from robopolicy.runtime.scheduling.prefix import prefix_from
from robopolicy.runtime.scheduling.spline import CrossFade, Hold, Path, Spline, fade_time

#: Spaces whose absolute commands can be interpolated as they are.
STREAMED_SPACES = ("joint_position", "gripper_opening", "planar_position")


#: Of the acceleration limits, what changing from one chunk to the next may take; the rest is for the chunks.
JOIN_SHARE = 0.5
MODES = ("replace", "ensemble", "real_time_chunking")


@dataclass(frozen=True)
class SchedulerConfig:
    """How chunks are joined; ``docs/scheduling.md`` compares the modes.

    Args:
        mode: "replace": the newest chunk takes over. "ensemble": overlapping chunks are averaged (see
            ``ensemble``). "real_time_chunking": as replace, and the policy is told what is committed (see
            ``ChunkScheduler.committed``).
        replan_every: policy periods between requests; 0 means the action horizon.
        join_periods: policy periods that the change from the old reference to the new one takes, at least:
            where limits are known and would be strained, it takes longer.
        brake_s: from a chunk's last point to rest [s], in whole policy periods, one at least.
        ensemble_decay: of a chunk's weight per policy period of age [-].
        delay_window, delay_warmup: see ``DelayMeter``.
    """

    mode: str = "replace"
    replan_every: int = 0
    join_periods: float = 2.0
    brake_s: float = 0.3
    ensemble_decay: float = 0.1
    delay_window: int = 50
    delay_warmup: int = 2

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UnknownNameError("scheduler mode", self.mode, MODES)
        if self.replan_every < 0:
            raise ConfigError(f"replan_every must be >= 0, got {self.replan_every}")
        if not self.join_periods > 0 or not self.brake_s > 0:
            raise ConfigError(
                f"join_periods and brake_s must be positive, got {self.join_periods} and {self.brake_s}"
            )
        if not abs(self.ensemble_decay) < 10:
            raise ConfigError(f"ensemble_decay must lie within -10..10, got {self.ensemble_decay}")


@dataclass
class SchedulerCounters:
    """What went other than planned."""

    accepted_chunks: int = 0
    late_chunks: int = 0  # arrived when all their points were past, or older than the one in force
    dropped_points: int = 0  # of accepted chunks: due before the change to them is over
    starved_ticks: int = 0  # references given from a braking tail or after it


@dataclass(frozen=True)
class Join:
    """One chunk that was taken up.

    Args:
        time_ns: the last instant of the old reference.
        gap: (action_dim,) new minus old reference where the change ends: what the two disagree by.
    """

    time_ns: int
    gap: Float


class ChunkScheduler:
    """Pure logic: every instant is passed in, on one monotonic clock [ns] of any origin.

    Action k of a chunk is due at observation time + (k - action_start) policy periods, and one more
    where ``ActionSpec.reached`` is "end"; what is past by the time it comes is left out. Only a chunk for
    an arm that has stood still since its observation begins at its beginning, whenever it comes.

    The reference is a B-spline of the actions (see ``spline``). A new chunk is faded in from the reference in
    force, whose position, velocity and acceleration it continues; after its last action follows a tail that
    brakes to rest and holds, so that a policy that falls silent stops the arm.

    Args:
        specs: of the policy; all action parts absolute and of ``STREAMED_SPACES``.
        limits: of the robot, one per action dimension. Joins and tails are then made to fit them, and
            grippers to keep to their stroke and speed; the waypoints themselves are left to the safety
            filter. None knows none.
    Raises:
        ConfigError: an action part cannot be streamed, replan_every leaves the chunk, or real-time chunking
            with a policy that takes no prefix.
        ShapeError: limits of another dimension.
    """

    def __init__(
        self, specs: PolicySpecs, config: SchedulerConfig | None = None, *, limits: Limits | None = None
    ) -> None:
        self._specs = specs
        self._config = config or SchedulerConfig()
        self._limits = limits
        self._check()
        action = specs.specs.action
        self._replan_every = self._config.replan_every or specs.horizons.action
        self._grips = np.array(
            [part.space == "gripper_opening" for part in action.parts for _ in part.names], dtype=np.bool_
        )
        self._period_ns = round(1e9 / specs.specs.policy_rate)
        self._join_ns = round(self._config.join_periods * self._period_ns)
        self._reached = 1 if action.reached == "end" else 0  # periods after its step begins
        self._meter = DelayMeter(self._config.delay_window, self._config.delay_warmup)
        self.counters = SchedulerCounters()
        self.reset(np.zeros(action.dim), 0)

    def _check(self) -> None:
        specs, config = self._specs, self._config
        for part in specs.specs.action.parts:
            if part.reference != "absolute" or part.space not in STREAMED_SPACES:
                raise ConfigError(
                    f"cannot stream {part.reference} {part.space}, only absolute {', '.join(STREAMED_SPACES)}"
                )
        if specs.horizons.action_start + config.replan_every > specs.horizons.prediction:
            raise ConfigError(
                f"replan_every {config.replan_every} from action {specs.horizons.action_start} reaches past "
                f"a chunk of {specs.horizons.prediction}"
            )
        if self.binds and not specs.takes_prefix:
            raise ConfigError("real_time_chunking needs a policy that takes a prefix; this one does not")
        if self._limits is not None and self._limits.lower.shape != (specs.specs.action.dim,):
            raise ShapeError(f"limits of {self._limits.lower.shape} for {specs.specs.action.dim} dimensions")

    def reset(self, position: NDArray[np.float64], now_ns: int) -> None:
        """Forget all chunks and hold a position, (action_dim,); the measured delay is kept."""
        dim = self._specs.specs.action.dim
        if position.shape != (dim,) or not np.isfinite(position).all():
            raise ShapeError(f"need {dim} finite positions to start from, got {position}")
        self._start = position.astype(np.float64)
        self._path: Path = Hold(self._start)
        self._plans: list[Plan] = []  # those that still count, newest last
        self._plan: Plan | None = None  # in force
        self._spline: Path = self._path  # of the plan in force, alone
        self._rest_ns = now_ns
        self._joins: list[Join] = []
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
        return None if self._plan is None else self._plan.last_ns

    @property
    def rest_ns(self) -> int:
        """From when on the reference stands still, if no other chunk comes."""
        return self._rest_ns

    @property
    def joins(self) -> tuple[Join, ...]:
        """Chunks taken up since the last reset, oldest first."""
        return tuple(self._joins)

    @property
    def joins_ns(self) -> tuple[int, ...]:
        """Their instants: the last ones of the old references."""
        return tuple(join.time_ns for join in self._joins)

    def should_request(self, now_ns: int) -> bool:
        """Whether an observation taken now should go to the policy.

        It should every ``replan_every`` periods, and sooner when an answer that takes the measured
        delay could not be joined before the chunk in force ends. One request at a time.
        """
        if self._in_flight:
            return False
        covered_ns = self.covered_until_ns
        if covered_ns is None or self._requested_ns is None:
            return True
        half_period_ns = self._period_ns // 2  # observations do not arrive on exact multiples
        if now_ns - self._requested_ns >= self._replan_every * self._period_ns - half_period_ns:
            return True
        needed_ns = self.delay_p95_ns + self._join_ns + self._period_ns
        return covered_ns - now_ns <= needed_ns

    def mark_requested(self, observation_time_ns: int) -> None:
        """An observation of this instant went to the policy."""
        self._requested_ns = observation_time_ns
        self._in_flight = True

    def mark_failed(self) -> None:
        """The request in flight will not be answered."""
        self._in_flight = False

    @property
    def binds(self) -> bool:
        """Whether the policy is to heed ``committed``: in real-time chunking."""
        return self._config.mode == "real_time_chunking"

    def committed(self, observation_time_ns: int) -> tuple[Float32, Float32] | None:
        """What the chunk for an observation should agree with.

        Returns:
            actions (prediction_horizon, action_dim) of the reference at the coming chunk's instants, and
            weights (prediction_horizon,): 1 for what will have begun when that chunk arrives, then falling
            to 0 where the plan ends; None with no plan in force by then.
        """
        if self._plan is None:
            return None
        count = np.arange(self._specs.horizons.prediction, dtype=np.int64)
        times_ns = self._first_ns(observation_time_ns) + count * self._period_ns
        return prefix_from(
            self._tailed,
            times_ns,
            arrival_ns=observation_time_ns + self.delay_p95_ns,
            covered_until_ns=self._plan.last_ns,
            off=lambda at_ns: self._path.state(at_ns)[0] - self._spline.state(at_ns)[0],
        )

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
            ConfigError: it was observed more than a policy period after ``now_ns``: another clock.
        """
        self._in_flight = False
        if observation_time_ns - now_ns > self._period_ns:
            raise ConfigError(
                f"the chunk was observed {(observation_time_ns - now_ns) * 1e-9:.3f} s after it came: are "
                "observations stamped on the loop's clock?"
            )
        if chunk.shape != self._specs.chunk_shape:
            raise ShapeError(f"a chunk is {self._specs.chunk_shape}, got {chunk.shape}")
        if not np.isfinite(chunk).all():
            raise NonFiniteValueError(f"the chunk has {int((~np.isfinite(chunk)).sum())} non-finite values")
        self._meter.add(max(now_ns - observation_time_ns, 0))
        first_ns = self._first_ns(observation_time_ns)
        older = self._plan is not None and observation_time_ns <= self._plan.observed_ns
        if older or self._first_met(first_ns, now_ns) >= self._specs.horizons.prediction:
            self.counters.late_chunks += 1
            return False
        rested = self._plan is None or observation_time_ns >= self._rest_ns
        if rested:
            # The arm has stood still since the observation: nothing is past, the chunk just begins late.
            first_ns += max(now_ns - observation_time_ns, 0)
        self.counters.accepted_chunks += 1
        self.counters.dropped_points += self._first_met(first_ns, now_ns) - self._specs.horizons.action_start
        plan = Plan(chunk.astype(np.float64), first_ns, self._period_ns, observation_time_ns)
        self._take(plan, now_ns, rested=rested)
        return True

    def reference(self, now_ns: int) -> tuple[Float, Float]:
        """Position and velocity, each (action_dim,), the arm should have at an instant."""
        if self._plan is not None and now_ns > self._plan.last_ns:
            self.counters.starved_ticks += 1
        position, velocity, _ = self._path.state(now_ns)
        return position, velocity

    def _first_ns(self, observation_time_ns: int) -> int:
        """When action 0 of a chunk is due."""
        return observation_time_ns + (self._reached - self._specs.horizons.action_start) * self._period_ns

    def _first_met(self, first_ns: int, now_ns: int) -> int:
        """First action to execute that is due once the change to its chunk is over."""
        over_ns = now_ns + self._join_ns - first_ns
        return max(self._specs.horizons.action_start, -(-over_ns // self._period_ns))  # rounded up

    def _take(self, plan: Plan, now_ns: int, *, rested: bool) -> None:
        if self._config.mode == "ensemble":
            self._plans = [old for old in self._plans if old.last_ns >= now_ns] + [plan]
            points = ensemble(self._plans, self._config.ensemble_decay)
            plan = dataclasses.replace(plan, points=points)
        if self._limits is not None:
            before = self._plan or Plan(self._start[None], now_ns, self._period_ns, now_ns)
            points = paced_grips(plan, before, now_ns + self._join_ns, self._grips, self._limits)
            plan = dataclasses.replace(plan, points=points)
        tail = braking_tail(
            plan.points, self._period_ns * 1e-9, self._config.brake_s, self._grips, self._limits
        )
        lead = None if rested else self._lead(plan)
        self._tailed = dataclasses.replace(plan, points=np.vstack([plan.points, tail]))
        spline = Spline(self._tailed.points, plan.first_ns, self._period_ns, lead)
        met_ns = self._met_ns(spline, plan, now_ns)
        self._joins.append(Join(now_ns, spline.state(met_ns)[0] - self._path.state(met_ns)[0]))
        self._path = CrossFade(self._path, spline, now_ns, met_ns - now_ns)
        self._plan, self._spline, self._rest_ns = plan, spline, max(spline.rest_ns, met_ns)

    def _lead(self, plan: Plan) -> Float:
        """Two waypoints to come from, by the steps of the plan in force: one that agrees changes nothing."""
        before = self._tailed.at(plan.first_ns + np.array([-2, -1, 0], dtype=np.int64) * self._period_ns)
        lead: Float = plan.points[0] + before[:2] - before[2]
        return lead

    def _met_ns(self, spline: Spline, plan: Plan, now_ns: int) -> int:
        """When the change to a new plan is over: later than asked where it would take too much acceleration,
        but while the plan lasts."""
        met_ns = now_ns + self._join_ns
        if self._limits is None:
            return met_ns
        new, old, arm = spline.state(now_ns), self._path.state(now_ns), ~self._grips
        gap, gap_velocity = (new[0] - old[0])[arm], (new[1] - old[1])[arm]
        needed = fade_time(gap, gap_velocity, JOIN_SHARE * self._limits.acceleration[arm])
        return max(met_ns, min(now_ns + round(needed * 1e9), plan.last_ns))
