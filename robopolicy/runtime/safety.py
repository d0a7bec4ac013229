"""The last thing between a reference and the arm. NOT safety-rated: it guards against bad policies and
late chunks, not against failing hardware, and replaces neither an emergency stop nor a safety controller.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits, Robot
from robopolicy.runtime.stopping import stopping_distance, velocity_interval
from robopolicy.runtime.tracking import JerkLimitedTracker

#: Why a command was not sent as it was. "stopping": it could not have stopped before a position limit;
#: "catching_up": after another reason, until the reference can be met at its own velocity.
REASONS = ("non_finite", "position", "velocity", "acceleration", "stopping", "catching_up", "brake")
_ROUNDING = 1e-9  # [rad, m] and per second


@dataclass(frozen=True)
class SafetyConfig:
    """Args:
    position_margin: kept from the position limits [rad, m], one per dimension; empty means none.
    """

    position_margin: tuple[float, ...] = ()

    @classmethod
    def for_robot(cls, robot: Robot, joint_margin: float = 0.01) -> SafetyConfig:
        """A margin [rad] at every joint and none at the gripper, which must be able to close."""
        return cls((*(joint_margin for _ in robot.joints), 0.0))


class SafetyFilter:
    """Each command that leaves keeps position, velocity and acceleration limits on finite differences
    of what was sent, and can be followed by a stop before the position limits (see ``stopping``).

    An admissible command passes unmodified, dimension by dimension. What is not admissible is tracked
    with limited jerk until it can be met without overshoot. Jerk is not guaranteed where tracking and
    stopping contradict each other; at 100 Hz an FR3 cannot exceed it, because 2 * acceleration / dt is
    below its jerk limit.

    Args:
        limits: arm joints, then the gripper.
        control_rate: [Hz].
    Raises:
        ConfigError: margins of the wrong number, or as wide as the limits.
    """

    def __init__(self, limits: Limits, control_rate: float, config: SafetyConfig | None = None) -> None:
        dim = len(limits.lower)
        margin = np.array((config or SafetyConfig()).position_margin or (0.0,) * dim)
        if margin.shape != (dim,) or not (margin >= 0).all():
            raise ConfigError(f"need {dim} position margins >= 0, got {margin.tolist()}")
        self._limits = dataclasses.replace(limits, lower=limits.lower + margin, upper=limits.upper - margin)
        if not (self._limits.lower < self._limits.upper).all() or not control_rate > 0:
            raise ConfigError(
                f"margins {margin.tolist()} leave no range, or control_rate {control_rate} Hz is not positive"
            )
        self._dt = 1.0 / control_rate
        self._tracker = JerkLimitedTracker(self._limits, self._dt)
        self.counts: Counter[str] = Counter()
        self._position: Float | None = None

    @property
    def control_rate(self) -> float:
        """Commands per second it takes velocity and acceleration by [Hz]."""
        return 1.0 / self._dt

    @property
    def position(self) -> Float:
        """(dim,) what was sent last."""
        if self._position is None:
            raise ConfigError("the safety filter does not know where the arm is: call reset first")
        return self._position.copy()

    @property
    def at_rest(self) -> bool:
        """Whether the last two commands were the same."""
        return self._position is not None and not self._velocity.any()

    def reset(self, position: NDArray[np.float64], velocity: NDArray[np.float64] | None = None) -> None:
        """Start from a position, (dim,), at rest or moving; counts are kept.

        A position outside the limits is accepted: from there commands only go inwards, at rest at first,
        and a reference that stays outside is brought to the limit.

        Raises:
            ConfigError: the velocity is beyond its limit, or cannot stop before a position limit.
        """
        start = np.asarray(position, dtype=np.float64)
        speed = np.zeros_like(start) if velocity is None else np.asarray(velocity, dtype=np.float64)
        if start.shape != self._limits.lower.shape or speed.shape != start.shape:
            dim = len(self._limits.lower)
            raise ShapeError(f"need {dim} dimensions, got {start.shape} and {speed.shape}")
        if not np.isfinite(start).all() or not np.isfinite(speed).all():
            raise NonFiniteValueError(f"cannot start from {start} at {speed}")
        limits, step = self._limits, self._limits.acceleration * self._dt
        next_speed = np.maximum(np.abs(speed) - step, 0.0)
        stops_at = start + np.sign(speed) * stopping_distance(next_speed, limits.acceleration, self._dt)
        leaves = ((speed < 0) & (stops_at < limits.lower - _ROUNDING)) | (
            (speed > 0) & (stops_at > limits.upper + _ROUNDING)
        )
        bad = (np.abs(speed) > limits.velocity) | leaves
        if bad.any():
            raise ConfigError(f"dimensions {np.flatnonzero(bad).tolist()} move too fast to stop: {speed}")
        self._position, self._velocity = start.copy(), speed.copy()
        self._acceleration = np.zeros_like(start)
        self._catching_up = np.zeros(len(start), dtype=np.bool_)
        self._desired: Float | None = None
        self._desired_velocity = np.zeros_like(start)
        self._tracker.reset(speed, self._acceleration)

    def filter(self, desired: NDArray[np.float64]) -> tuple[Float, tuple[str, ...]]:
        """One control tick.

        Args:
            desired: (dim,) reference for the end of this tick [rad, m].
        Returns:
            what to send, (dim,), and why it differs from ``desired``; empty where it does not.
        """
        position = self.position
        if desired.shape != position.shape:
            raise ShapeError(f"a command has {len(position)} dimensions, got {desired.shape}")
        if not np.isfinite(desired).all():
            self._desired = None
            self._catching_up[:] = True
            return self._send(self._braked(), ("non_finite",))
        lowest, highest = velocity_interval(position, self._velocity, self._limits, self._dt)
        wanted = (desired - position) / self._dt
        slack = 1e-9 * self._limits.acceleration * self._dt  # rounding, far below any limit that matters
        passes = (wanted >= lowest - slack) & (wanted <= highest + slack)
        passes &= ~self._outside(desired)  # an arm that starts outside would be held there
        target_velocity = self._target_velocity(desired)
        # While catching up, a target within reach may still be one that would be overrun.
        reach = self._limits.acceleration * self._dt
        overruns = self._catching_up & (np.abs(wanted - target_velocity) > reach)
        reasons = self._reasons(desired, wanted, ~passes, overruns & passes)
        passes &= ~overruns
        self._catching_up = ~passes
        if passes.all():
            return self._send(desired.astype(np.float64), ())
        target = np.clip(desired, self._limits.lower, self._limits.upper)
        step = self._tracker.step(position, target, np.where(target == desired, target_velocity, 0.0))
        if step is None:
            return self._send(np.where(passes, desired, self._braked()), reasons)
        tracked = np.clip((step - position) / self._dt, lowest, highest)
        exact = np.abs(tracked * self._dt + position - step) < 1e-12
        command = np.where(passes, desired, np.where(exact, step, position + tracked * self._dt))
        return self._send(command, reasons, on_track=exact & ~passes)

    def brake(self) -> Float:
        """One control tick towards rest at the greatest deceleration; (dim,) what to send."""
        self._desired = None
        self._catching_up[:] = True
        return self._send(self._braked(), ("brake",))[0]

    def _braked(self) -> Float:
        reach = self._limits.acceleration * self._dt
        slower = self._velocity - np.clip(self._velocity, -reach, reach)
        return self.position + slower * self._dt

    def _send(
        self, command: Float, reasons: tuple[str, ...], on_track: NDArray[np.bool_] | None = None
    ) -> tuple[Float, tuple[str, ...]]:
        velocity = (command - self.position) / self._dt
        # Rounding leaves 1e-15 of velocity after a stop; rest must be exact to be recognised.
        velocity[np.abs(velocity) < 1e-12] = 0.0
        self._acceleration = (velocity - self._velocity) / self._dt
        self._velocity, self._position = velocity, command
        other = np.ones(len(command), dtype=np.bool_) if on_track is None else ~on_track
        self._tracker.follow(other, velocity, self._acceleration)
        self.counts.update(reasons)
        return command.copy(), reasons

    def _target_velocity(self, desired: Float) -> Float:
        """Velocity of the reference itself, zero where it jumps: aiming at it leaves no lag behind."""
        before, before_velocity = self._desired, self._desired_velocity
        self._desired = desired.astype(np.float64)
        if before is None:
            self._desired_velocity = np.zeros_like(desired)
            return self._desired_velocity
        self._desired_velocity = velocity = (desired - before) / self._dt
        steady = np.abs(velocity - before_velocity) <= self._limits.acceleration * self._dt
        steady &= np.abs(velocity) <= self._limits.velocity
        return np.where(steady, velocity, 0.0)

    def _outside(self, desired: Float) -> NDArray[np.bool_]:
        return (desired < self._limits.lower - _ROUNDING) | (desired > self._limits.upper + _ROUNDING)

    def _reasons(
        self, desired: Float, wanted: Float, refused: NDArray[np.bool_], overruns: NDArray[np.bool_]
    ) -> tuple[str, ...]:
        if not refused.any() and not overruns.any():
            return ()
        limits, eps = self._limits, _ROUNDING
        outside = self._outside(desired)
        fast = np.abs(wanted) > limits.velocity + eps
        abrupt = np.abs(wanted - self._velocity) > limits.acceleration * self._dt + eps
        found = {"position": outside, "velocity": fast, "acceleration": abrupt}
        reasons = tuple(name for name, where in found.items() if (where & refused).any())
        if (refused & ~outside & ~fast & ~abrupt).any():
            reasons += ("stopping",)
        if overruns.any():
            reasons += ("catching_up",)
        return reasons
