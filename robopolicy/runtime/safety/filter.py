"""The last thing between a reference and the arm. NOT safety-rated: it guards against bad policies and
late chunks, not against failing hardware, and replaces neither an emergency stop nor a safety controller.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits
from robopolicy.runtime.safety.clearance import CartesianGuard
from robopolicy.runtime.safety.config import SafetyConfig
from robopolicy.runtime.safety.joint_stage import Bool, Candidate, JointStage, Sent
from robopolicy.runtime.safety.tracking import JerkLimitedTracker

__all__ = ["REASONS", "SafetyConfig", "SafetyFilter"]

#: Why a command was not sent as it was, in the order of the checks. "stopping": no stop within the limits
#: could follow it; "catching_up": after another reason, until the reference can be met at its own velocity.
REASONS = (
    *("non_finite", "position", "tracking_error", "velocity", "acceleration", "jerk", "stopping"),
    *("catching_up", "tool_speed", "workspace", "clearance", "self_collision"),
    *("stale_observation", "latched", "brake"),
)
_TRIES = 2  # a tick, of commands between the stored stop's and what the whole arm was refused
_LEAST_SHARE = 0.03
_CRUISE = 0.97  # of the tool's speed limit
_CREEP = 0.01  # of a joint's velocity limit, that it is never slowed below


class SafetyFilter:
    """Each command that leaves keeps the limits of position, velocity, acceleration and jerk, on finite
    differences of what was sent, and for a robot those of its tool and capsules.

    It holds that by induction. At any time it has a stop stored: coming commands to rest, each of which keeps
    every limit. A command is sent only if such a stop exists after it, and that one is stored; else what goes
    out is the stored stop's next command, after which the rest of it remains. To brake is to follow it.

    What is admissible passes unmodified, dimension by dimension. What is not is tracked with limited jerk
    until it can be met without overshoot, or, where that cannot be stopped either, by something between that
    and braking. The checks of the whole arm scale its joints together.

    Args:
        limits: arm joints, then the gripper.
        control_rate: [Hz].
    Raises:
        ConfigError: margins or thresholds of the wrong number, margins as wide as the limits, or a robot with
            other joints.
    """

    def __init__(self, limits: Limits, control_rate: float, config: SafetyConfig | None = None) -> None:
        config, dim = config or SafetyConfig(), len(limits.lower)
        margin = np.array(config.position_margin or (0.0,) * dim)
        if margin.shape != (dim,):
            raise ConfigError(f"need {dim} position margins, got {margin.tolist()}")
        threshold = np.array(config.tracking_error or (np.inf,) * dim)
        if threshold.shape != (dim,):
            raise ConfigError(f"need {dim} thresholds of tracking error, got {threshold.tolist()}")
        kept = dataclasses.replace(limits, lower=limits.lower + margin, upper=limits.upper - margin)
        if not (kept.lower < kept.upper).all() or not control_rate > 0:
            raise ConfigError(
                f"margins {margin.tolist()} leave no range, or control_rate {control_rate} Hz is not positive"
            )
        self._dt, self._threshold, self._config = 1.0 / control_rate, threshold, config
        self._stage = JointStage(kept, self._dt)
        self._tracker = JerkLimitedTracker(kept, self._dt)
        self._guard: CartesianGuard | None = None
        joints = 0 if config.robot is None else len(config.robot.joints)
        if config.robot is not None:
            if joints + 1 != dim:
                raise ConfigError(f"{config.robot.name} is commanded in {joints + 1} dimensions, not {dim}")
            self._guard = CartesianGuard(config.robot, config, self._dt)
        self._arm, self._all = np.arange(dim) < joints, np.ones(dim, dtype=np.bool_)
        self.counts: Counter[str] = Counter()
        self._latched = ""
        self._sent: Sent | None = None

    @property
    def control_rate(self) -> float:
        """Commands per second it takes differences by [Hz]."""
        return 1.0 / self._dt

    @property
    def position(self) -> Float:
        """(dim,) what was sent last."""
        return self._last.position.copy()

    @property
    def at_rest(self) -> bool:
        """Whether the last two commands were the same and braking would send the same again."""
        sent = self._sent
        if sent is None or sent.velocity.any():
            return False
        return not sent.stop.next_velocity(sent.velocity, self._stage.tick).any()

    @property
    def stop_time_s(self) -> float:
        """How long braking from here takes [s]."""
        return float(np.max(self._last.stop.left)) * self._dt

    @property
    def stop_path(self) -> Float:
        """(n, dim) what braking would send from here, the last at rest; n is 0 at rest."""
        return self._last.stop.path(self._last.position, self._last.velocity, self._stage.tick)

    @property
    def latched(self) -> str:
        """What tripped it; empty when nothing did."""
        return self._latched

    def trip(self, reason: str) -> None:
        """From now on brake whatever comes, until ``clear_latch``: an e-stop, a deadman let go, a fault."""
        if not self._latched:
            self.counts[reason] += 1
        self._latched = self._latched or reason

    def clear_latch(self) -> None:
        """Take commands again; after a tracking error, ``reset`` to where the arm is first.

        Raises:
            ConfigError: the arm is not at rest.
        """
        if self._latched and not self.at_rest:
            raise ConfigError(f"tripped by {self._latched!r} and not at rest yet: brake first")
        self._latched = ""

    def reset(
        self,
        position: NDArray[np.float64],
        velocity: NDArray[np.float64] | None = None,
        acceleration: NDArray[np.float64] | None = None,
    ) -> None:
        """Start from a position, (dim,), at rest or moving; counts and the latch are kept.

        Velocity and acceleration are differences over the control period: of the last command to the one
        before it, and of that velocity to the one before. A position outside the limits is accepted: from
        there commands only go inwards, and a reference that stays outside is brought to the limit. So is a
        posture outside the workspace or short of clearance.

        Raises:
            ConfigError: velocity or acceleration is beyond its limit, or no stop within the limits follows.
        """
        start = np.asarray(position, dtype=np.float64)
        speed = np.zeros_like(start) if velocity is None else np.asarray(velocity, dtype=np.float64)
        push = np.zeros_like(start) if acceleration is None else np.asarray(acceleration, dtype=np.float64)
        if not start.shape == speed.shape == push.shape == self._all.shape:
            dim = len(self._all)
            raise ShapeError(f"need {dim} dimensions, got {start.shape}, {speed.shape} and {push.shape}")
        if not (np.isfinite(start).all() and np.isfinite(speed).all() and np.isfinite(push).all()):
            raise NonFiniteValueError(f"cannot start from {start} at {speed} and {push}")
        v, a = speed * self._dt, push * self._dt**2
        good, stop = self._stage.stoppable(start, v, a)
        if not good.all():
            bad = np.flatnonzero(~good).tolist()
            raise ConfigError(f"dimensions {bad} move too fast to stop: {speed}, accelerating by {push}")
        sent = Sent(start.copy(), v, a, stop)
        refusal = self._refusal(start - v, Candidate(start, stop), v) if v.any() else ""
        if refusal:
            raise ConfigError(f"the arm moves too fast to stop: {refusal} at {start} with {speed}")
        self._sent = sent
        self._catching_up, self._off_track = ~self._all, self._all
        self._share, self._refused, self._speeding = 1.0, "", False
        self._desired: Float | None = None
        self._desired_velocity = np.zeros_like(start)

    def filter(
        self,
        desired: NDArray[np.float64],
        *,
        measured: NDArray[np.float64] | None = None,
        observation_age_s: float | None = None,
    ) -> tuple[Float, tuple[str, ...]]:
        """One control tick.

        Args:
            desired: (dim,) reference for the end of this tick [rad, m].
            measured: (dim,) where the arm is; far from the last command it trips, and so does NaN.
            observation_age_s: of the newest observation [s]; brakes while it is too old, or in the future.
        Returns:
            what to send, (dim,), and why it differs from ``desired``; empty where it does not.
        """
        position = self._last.position
        if desired.shape != position.shape:
            raise ShapeError(f"a command has {len(position)} dimensions, got {desired.shape}")
        found = [] if np.isfinite(desired).all() else ["non_finite"]
        tripped = self._latched
        if measured is not None and measured.shape != position.shape:
            raise ShapeError(f"the arm is measured in {len(position)} dimensions, got {measured.shape}")
        if measured is not None and not (np.abs(measured - position) <= self._threshold).all():
            self._latched = self._latched or "tracking_error"
            found.append("tracking_error")
        oldest_s = self._config.observation_age_s
        if observation_age_s is not None and not -self._dt <= observation_age_s <= oldest_s:
            found.append("stale_observation")
        if tripped:
            found.append("latched")
        if found:
            return self._brake(tuple(found))
        return self._next(desired.astype(np.float64))

    def brake(self) -> Float:
        """One control tick of the stored stop; (dim,) what to send."""
        return self._brake(("brake",))[0]

    @property
    def _last(self) -> Sent:
        if self._sent is None:
            raise ConfigError("the safety filter does not know where the arm is: call reset first")
        return self._sent

    def _brake(self, reasons: tuple[str, ...]) -> tuple[Float, tuple[str, ...]]:
        halt = self._stage.halt(self._last)
        self._desired = None
        self._catching_up = self._all
        return self._send(halt, reasons, None)

    def _send(
        self, next_: Candidate, reasons: tuple[str, ...], tracked: Float | None
    ) -> tuple[Float, tuple[str, ...]]:
        self._off_track = self._all if tracked is None else next_.command != tracked
        self._sent = self._last.followed_by(next_)
        self.counts.update(reasons)
        return next_.command.copy(), reasons

    def _next(self, desired: Float) -> tuple[Float, tuple[str, ...]]:
        last, stage = self._last, self._stage
        within, stop = stage.verified(last, desired)
        within &= ~stage.outside(desired)  # an arm that starts outside would be held there
        target_velocity = self._target_velocity(desired)
        overruns = within & self._catching_up & stage.overrun(last, desired, target_velocity)
        passes = within & ~overruns
        reasons = () if within.all() else stage.reasons(last, desired, ~within)
        reasons += ("catching_up",) if overruns.any() else ()
        wanted, tracked = Candidate(desired, stop), None
        next_, slowed, refusal = wanted, False, ""
        if not passes.all():
            tracked, slowed = self._tracked(desired, target_velocity, slow=self._speeding)
            next_ = self._towards(tracked, wanted, passes)
        if self._guard is not None and self._share == 1.0:
            refusal = self._refusal(last.position, next_, next_.command - last.position)
            if refusal == "tool_speed" and (tracked is None or not self._speeding):
                self._speeding = True
                passes &= ~self._arm
                tracked, slowed = self._tracked(desired, target_velocity, slow=True)
                next_ = self._towards(tracked, wanted, passes)
                refusal = self._refusal(last.position, next_, next_.command - last.position)
            if refusal:
                self._refused, self._share = refusal, 0.5
        if self._share < 1.0:
            next_, refusal = self._scaled(next_), self._refused
        self._speeding = (self._speeding or slowed) and not passes.all()
        reasons += ("tool_speed",) if slowed and refusal != "tool_speed" else ()
        reasons += (refusal,) if refusal else ()
        self._catching_up = ~passes | (self._arm if refusal or slowed else ~self._all)
        return self._send(next_, reasons, tracked)

    def _tracked(self, desired: Float, target_velocity: Float, *, slow: bool) -> tuple[Float | None, bool]:
        """Where to go in this tick to catch up, and whether the limit of the tool's speed holds it back."""
        last, dt = self._last, self._dt
        self._tracker.go_on(self._off_track, last.velocity / dt, last.acceleration / dt**2)
        target = self._stage.clipped(desired)
        speed = np.where(target == desired, target_velocity / dt, 0.0)
        step = self._tracker.step(last.position, target, speed)
        if step is None or not slow or self._guard is None:
            return step, False
        # The tool at its limit, the joints in the proportions of now.
        excess = self._guard.speed_excess(last.position[self._arm], step[self._arm]) / _CRUISE
        limit = self._stage.limits.velocity
        cap = np.abs(step - last.position) / (dt * max(excess, _CREEP))
        cap = np.where(self._arm, np.minimum(np.maximum(cap, _CREEP * limit), limit), limit)
        return self._tracker.step(last.position, target, speed, cap), excess > 1.0

    def _towards(self, tracked: Float | None, wanted: Candidate, passes: Bool) -> Candidate:
        """The wanted command where it passes, elsewhere the verified one nearest to the tracked one."""
        last, stage = self._last, self._stage
        return wanted.where(passes, stage.halt(last) if tracked is None else stage.nearest(last, tracked))

    def _scaled(self, wanted: Candidate) -> Candidate:
        """The arm's joints moved from what is wanted towards the stored stop, as far as the whole arm must.

        How far is remembered: along a wall most of what is wanted is refused tick after tick.
        """
        last, stage, arm = self._last, self._stage, self._arm
        halt = stage.halt(last)
        for _ in range(_TRIES):
            command = halt.command + self._share * (wanted.command - halt.command)
            good, stop = stage.verified(last, command)
            tried = Candidate(command, stop).where(arm, wanted)
            refusal = self._refusal(last.position, tried, tried.command - last.position)
            if good[arm].all() and not refusal:
                self._share = min(1.0, 1.5 * self._share + 0.02)
                return tried
            self._refused = refusal or self._refused
            self._share = max(0.5 * self._share, _LEAST_SHARE)
        return halt.where(arm, wanted)

    def _refusal(self, before: Float, next_: Candidate, velocity: Float) -> str:
        if self._guard is None:
            return ""
        path = np.vstack([before, next_.command, next_.stop.path(next_.command, velocity, self._stage.tick)])
        return self._guard.refusal(path[:, self._arm])

    def _target_velocity(self, desired: Float) -> Float:
        """Of the reference itself, a tick, zero where it jumps: aiming at it leaves no lag behind."""
        before, before_velocity = self._desired, self._desired_velocity
        self._desired = desired
        if before is None:
            self._desired_velocity = np.zeros_like(desired)
            return self._desired_velocity
        self._desired_velocity = velocity = desired - before
        steady = np.abs(velocity - before_velocity) <= self._stage.most.acceleration
        steady &= np.abs(velocity) <= self._stage.most.velocity
        return np.where(steady, velocity, 0.0)
