"""Motions that make a servo show its parameters: sums of sines within a robot's limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy_sim.simulation import CONTROL_RATE

_RAMP = 1.5  # [s] in which a motion grows and fades


@dataclass(frozen=True)
class Excitation:
    """A sum of sines per joint, with frequencies and phases of their own, starting and ending at rest.

    Args:
        seconds: length of one episode [s].
        amplitude: at most this far from the start [rad]; the gripper moves over half of its opening.
        lowest, highest: frequencies [Hz]. Slow ones show dry friction, fast ones gains, inertia and delay.
        sines: in each sum.
        share: of the velocity and acceleration limits that is used at most.
        height: least height of the tool above the base [m].
    """

    seconds: float = 10.0
    amplitude: float = 0.35
    lowest: float = 0.1
    highest: float = 2.0
    sines: int = 6
    share: float = 0.5
    height: float = 0.12

    def __post_init__(self) -> None:
        if not self.seconds >= 4.0:
            raise ConfigError(f"an excitation lasts at least 4 s, got {self.seconds}")
        if not 0 < self.lowest < self.highest <= CONTROL_RATE / 10:
            raise ConfigError(
                f"frequencies need 0 < lowest < highest <= {CONTROL_RATE / 10:g} Hz, "
                f"got {self.lowest} and {self.highest}"
            )
        if self.amplitude <= 0 or self.sines < 1 or not 0 < self.share <= 1:
            raise ConfigError(
                f"amplitude and sines must be positive and share within 0..1, "
                f"got {self.amplitude}, {self.sines}, {self.share}"
            )

    def commands(self, robot: Robot, start: Float, rng: np.random.Generator) -> Float:
        """(ticks, num_joints + 1) commands at control rate from where the robot stands [rad, m].

        Everything is shrunk until position, velocity and acceleration limits, the workspace and the least
        height hold; other obstacles are the caller's to keep away.

        Raises:
            ConfigError: the start is outside of the workspace, so nothing can be commanded.
        """
        moves = self._sums(len(start), rng)
        limits, gripper = robot.limits, robot.gripper
        centre = np.append(start[:-1], gripper.opening_max / 2)
        reach = np.minimum(centre - limits.lower, limits.upper - centre) * 0.8
        moves *= np.minimum(
            np.append(np.full(len(start) - 1, self.amplitude), gripper.opening_max / 4), reach
        )
        speed = np.abs(np.gradient(moves, axis=0)).max(axis=0) * CONTROL_RATE
        jump = np.abs(np.gradient(np.gradient(moves, axis=0), axis=0)).max(axis=0) * CONTROL_RATE**2
        moves /= np.maximum(np.maximum(speed / limits.velocity, jump / limits.acceleration) / self.share, 1.0)
        moves *= self._scale_within(robot, start, moves)
        times = np.arange(len(moves)) / CONTROL_RATE
        return start + (centre - start) * _ramp(times)[:, None] + moves

    def _sums(self, dim: int, rng: np.random.Generator) -> Float:
        """(ticks, dim) within -1..1; zero at both ends, with zero velocity there."""
        times = np.arange(round(self.seconds * CONTROL_RATE)) / CONTROL_RATE
        fade = _ramp(times) * _ramp(self.seconds - times)
        moves = np.empty((len(times), dim))
        for column in range(dim):
            frequencies = np.exp(rng.uniform(np.log(self.lowest), np.log(self.highest), self.sines))
            phases = rng.uniform(0, 2 * np.pi, self.sines)
            waves = np.sin(2 * np.pi * np.outer(times, frequencies) + phases) / np.sqrt(frequencies)
            total = fade * waves.sum(axis=1)
            moves[:, column] = total / np.abs(total).max()
        return moves

    def _scale_within(self, robot: Robot, start: Float, moves: Float) -> float:
        """Largest of 1, 0.8, 0.64, ... that keeps the tool inside."""
        lower = np.maximum(robot.workspace_lower, (-np.inf, -np.inf, self.height))
        for shrink in range(20):
            scale: float = 0.8**shrink
            places = np.array(
                [robot.transform_tcp_to_base(start[:-1] + scale * m[:-1])[:3, 3] for m in moves[::10]]
            )
            if (places >= lower).all() and (places <= np.asarray(robot.workspace_upper)).all():
                return scale
        tool = robot.transform_tcp_to_base(start[:-1])[:3, 3].round(3).tolist()
        raise ConfigError(
            f"the tool starts at {tool}, outside of the workspace {lower.tolist()}.."
            f"{list(robot.workspace_upper)} or at its edge"
        )


def _ramp(times: Float) -> Float:
    """0 to 1 within ``_RAMP``, without a jump in velocity."""
    x = np.clip(times / _RAMP, 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x))
