"""How smooth a run was, from the commands that were sent at control rate.

Everything is in finite differences of what was sent: of (n, dim) commands at a rate of 1/dt, velocity is the
first difference over dt, acceleration the second over dt^2, jerk the third over dt^3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.core.geometry import Float

#: Of the spectral arc length: zero padding (powers of two), highest frequency [Hz], amplitude threshold.
SPARC_PADDING, SPARC_CUTOFF, SPARC_THRESHOLD = 4, 10.0, 0.05


@dataclass(frozen=True)
class Smoothness:
    """Of one run; NaN where it is too short or never moves.

    Args:
        rms_velocity, peak_velocity [1/s], rms_acceleration, peak_acceleration [1/s^2], rms_jerk, peak_jerk
            [1/s^3], each times the commands' unit; peaks are of the worst dimension, root mean squares over
            time and dimensions.
        log_dimensionless_jerk: see ``log_dimensionless_jerk`` [-].
        spectral_arc_length: see ``spectral_arc_length`` [-].
        splice_position, splice_velocity, splice_acceleration: see ``splice_discontinuity``.
    """

    rms_velocity: float
    peak_velocity: float
    rms_acceleration: float
    peak_acceleration: float
    rms_jerk: float
    peak_jerk: float
    log_dimensionless_jerk: float
    spectral_arc_length: float
    splice_position: float
    splice_velocity: float
    splice_acceleration: float


def smoothness(
    commands: NDArray[Any], rate: float, time_ns: NDArray[np.int64], joins_ns: Sequence[int] = ()
) -> Smoothness:
    """All metrics of a run.

    Args:
        commands: (n, dim) of one unit: an arm's joints [rad], without the gripper.
        rate: commands per second [Hz].
        time_ns: (n,) instant at which each was sent.
        joins_ns: instants of splices, ``ChunkScheduler.joins_ns``.
    """
    sent = _checked(commands, rate)
    levels = {}
    for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
        values = np.diff(sent, order, axis=0) * rate**order
        levels[f"rms_{name}"] = math.sqrt(float(np.mean(values**2))) if values.size else math.nan
        levels[f"peak_{name}"] = float(np.abs(values).max()) if values.size else math.nan
    at_joins = splice_discontinuity(sent, rate, time_ns, joins_ns)
    return Smoothness(
        **levels,
        log_dimensionless_jerk=log_dimensionless_jerk(sent, rate),
        spectral_arc_length=spectral_arc_length(sent, rate),
        splice_position=at_joins[0],
        splice_velocity=at_joins[1],
        splice_acceleration=at_joins[2],
    )


def log_dimensionless_jerk(commands: NDArray[Any], rate: float) -> float:
    """-ln(T^3 / v_peak^2 * integral |jerk|^2 dt), T the duration and v_peak the highest speed [-].

    A minimum-jerk movement has -ln 204.8 = -5.32; less is less smooth. It grows with the number of separate
    movements, so compare runs of the same task.

    Source: Balasubramanian, Melendez-Calderon, Burdet 2012, "A robust and sensitive metric for quantifying
    movement smoothness", eq. 5, over vectors as in Hogan and Sternad 2009.
    """
    sent = _checked(commands, rate)
    if len(sent) < 4:
        return math.nan
    speed = np.linalg.norm(np.diff(sent, axis=0), axis=1) * rate
    jerk = np.diff(sent, 3, axis=0) * rate**3
    duration, integral = (len(sent) - 1) / rate, float((jerk**2).sum()) / rate
    if not speed.max() > 0 or not integral > 0:
        return math.nan
    return -math.log(duration**3 / float(speed.max()) ** 2 * integral)


def spectral_arc_length(commands: NDArray[Any], rate: float) -> float:
    """SPARC of the speed |velocity|: minus the arc length of its normalised Fourier magnitude spectrum [-].

    -integral over 0..w of sqrt((1/w)^2 + (dV/dw)^2), with V scaled to a maximum of 1 and w the last frequency
    up to 10 Hz at which V >= 0.05; the spectrum is zero-padded 16 times. A minimum-jerk movement of 1 s has
    -1.41; less is less smooth.

    Source: Balasubramanian, Melendez-Calderon, Roby-Brami, Burdet 2015, "On the analysis of movement
    smoothness", eq. 8 and 9, with the parameters given there.
    """
    sent = _checked(commands, rate)
    speed = np.linalg.norm(np.diff(sent, axis=0), axis=1) * rate
    if len(speed) < 2 or not speed.max() > 0:
        return math.nan
    size = 2 ** (math.ceil(math.log2(len(speed))) + SPARC_PADDING)
    spectrum = np.abs(np.fft.rfft(speed, size))
    spectrum = spectrum / spectrum.max()
    frequency = np.fft.rfftfreq(size, 1.0 / rate)
    audible = np.flatnonzero((frequency <= SPARC_CUTOFF) & (spectrum >= SPARC_THRESHOLD))
    last = int(audible[-1])
    if last == 0:
        return math.nan
    share = frequency[: last + 1] / frequency[last]
    return -float(np.hypot(np.diff(share), np.diff(spectrum[: last + 1])).sum())


def splice_discontinuity(
    commands: NDArray[Any], rate: float, time_ns: NDArray[np.int64], joins_ns: Sequence[int]
) -> tuple[float, float, float]:
    """Largest step of position, velocity and acceleration from tick to tick across a join.

    Of the differences of order 1, 2 and 3 (over dt^0, dt^1, dt^2) that take commands from both sides of a
    join, the largest of any dimension; 0 without joins. Smooth motion has some too (v dt, a dt, j dt); a
    step that does not shrink with dt is a discontinuity. One of acceleration, on a tick, shows as two halves.

    Args:
        time_ns: (n,) of the commands; the one sent at a join's instant is the first of the new chunk, since
            it is the reference for the end of that tick.
    """
    sent = _checked(commands, rate)
    if np.shape(time_ns) != (len(sent),):
        raise ShapeError(f"{len(sent)} commands need as many instants, got {np.shape(time_ns)}")
    firsts = np.searchsorted(np.asarray(time_ns), np.asarray(joins_ns, dtype=np.int64))
    found = []
    for order in (1, 2, 3):
        step = np.abs(np.diff(sent, order, axis=0)) * rate ** (order - 1)
        # Row i takes commands i .. i + order, from both sides of the join if first - order <= i < first.
        rows = {i for first in firsts.tolist() for i in range(first - order, first) if 0 <= i < len(step)}
        found.append(float(step[sorted(rows)].max()) if rows else 0.0)
    return found[0], found[1], found[2]


def _checked(commands: NDArray[Any], rate: float) -> Float:
    if np.ndim(commands) != 2:
        raise ShapeError(f"commands must be (n, dim), got {np.shape(commands)}")
    if not rate > 0:
        raise ConfigError(f"rate must be positive [Hz], got {rate}")
    return np.asarray(commands, dtype=np.float64)
