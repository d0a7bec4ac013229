"""Ways to lead a reference through waypoints, and what each asks of an arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import (
    BSpline,
    CubicHermiteSpline,
    CubicSpline,
    make_interp_spline,
    make_smoothing_spline,
)

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits
from robopolicy.runtime.scheduling.plan import Plan, braking_tail, paced_grips
from robopolicy.runtime.scheduling.spline import Spline

#: (n, dim) waypoints, period [s] and (m,) instants [s] from the first one to (m, dim) positions.
Reference = Callable[[Float, float, Float], Float]


def quintic_through_differences(points: Float, period: float, at: Float) -> Float:
    """C2 quintics through the waypoints, velocities and accelerations from central differences."""
    steps = np.diff(points, axis=0) / period
    velocity = np.vstack([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
    bend = np.diff(steps, axis=0) / period
    acceleration = np.vstack([0 * bend[:1], bend, 0 * bend[:1]])
    i = np.clip((at / period).astype(int), 0, len(points) - 2)
    s = (at / period - i)[:, None]
    ends = [f[j] * period**k for j in (i, i + 1) for k, f in enumerate((points, velocity, acceleration))]
    p0, v0, a0, p1, v1, a1 = ends
    c3 = 10 * (p1 - p0) - 6 * v0 - 4 * v1 - 1.5 * a0 + 0.5 * a1
    c4 = 15 * (p0 - p1) + 8 * v0 + 7 * v1 + 1.5 * a0 - a1
    c5 = 6 * (p1 - p0) - 3 * (v0 + v1) - 0.5 * (a0 - a1)
    return p0 + s * (v0 + s * (a0 / 2 + s * (c3 + s * (c4 + s * c5))))


def cubic_hermite(points: Float, period: float, at: Float) -> Float:
    """C1 cubics with central differences (Catmull-Rom), as a trajectory controller makes of positions and
    velocities."""
    steps = np.diff(points, axis=0) / period
    velocity = np.vstack([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
    return CubicHermiteSpline(np.arange(len(points)) * period, points, velocity)(at)


def cubic_through(points: Float, period: float, at: Float) -> Float:
    """C2 natural cubic spline through the waypoints."""
    return CubicSpline(np.arange(len(points)) * period, points, bc_type="natural")(at)


def least_jerk_through(points: Float, period: float, at: Float) -> Float:
    """C4 quintic spline through the waypoints: the least integral of squared jerk (natural ends)."""
    free = [(3, np.zeros(points.shape[1])), (4, np.zeros(points.shape[1]))]
    return make_interp_spline(np.arange(len(points)) * period, points, k=5, bc_type=(free, free))(at)


def b_spline(degree: int) -> Reference:
    """Uniform B-spline with the waypoints as control points, straight on beyond the ends."""

    def reference(points: Float, period: float, at: Float) -> Float:
        pad = 4
        before = points[0] - np.arange(pad, 0, -1)[:, None] * (points[1] - points[0])
        after = points[-1] + np.arange(1, pad + 1)[:, None] * (points[-1] - points[-2])
        control = np.vstack([before, points, after])
        knots = (np.arange(len(control) + degree + 1) - pad - (degree + 1) / 2) * period
        return BSpline(knots, control, degree)(at)

    return reference


def smoothing(weight: float) -> Reference:
    """Cubic smoothing spline: squared deviations plus ``weight`` times squared acceleration, integrated."""

    def reference(points: Float, period: float, at: Float) -> Float:
        return make_smoothing_spline(np.arange(len(points)) * period, points, lam=weight)(at)

    return reference


def as_scheduled(limits: Limits) -> Reference:
    """What ``ChunkScheduler`` makes of a chunk it already follows: B-spline 3, the gripper paced."""
    grips = np.arange(len(limits.lower)) == len(limits.lower) - 1

    def reference(points: Float, period: float, at: Float) -> Float:
        plan = Plan(points, 0, round(period * 1e9), 0)
        paced = paced_grips(plan, plan, 0, grips, limits)
        tail = braking_tail(paced, period, 0.3, grips, limits)
        spline = Spline(np.vstack([paced, tail]), 0, plan.period_ns)
        return np.array([spline.state(round(t * 1e9))[0] for t in at])

    return reference


REFERENCES: dict[str, Reference] = {
    "quintic, differences": quintic_through_differences,
    "cubic Hermite": cubic_hermite,
    "cubic spline through": cubic_through,
    "least jerk through": least_jerk_through,
    "smoothing 1e-5": smoothing(1e-5),
    "smoothing 1e-4": smoothing(1e-4),
    "B-spline 2": b_spline(2),
    "B-spline 3": b_spline(3),
    "B-spline 4": b_spline(4),
    "B-spline 5": b_spline(5),
}


def measure_reference(
    reference: Reference, chunks: Float, period: float, limits: Limits, rate: float
) -> dict[str, Any]:
    """What it makes of chunks, at control rate.

    Args:
        chunks: (n, horizon, dim), arm joints then the gripper.
        rate: of the finite differences [Hz].
    Returns:
        per derivative peak and root mean square over the arm's joints; deviation from the waypoints [rad];
        the share of chunks whose finite differences keep every limit as they are, whole and arm alone.
    """
    horizon = chunks.shape[1]
    at = np.arange(round((horizon - 1) * period * rate) + 1) / rate
    sent = np.array([reference(chunk, period, at) for chunk in chunks])
    kept = (sent >= limits.lower - 1e-9) & (sent <= limits.upper + 1e-9)
    kept = kept.all(axis=1)
    found: dict[str, Any] = {}
    for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
        values = np.diff(sent, order, axis=1) * rate**order
        kept &= (np.abs(values) <= getattr(limits, name) * (1 + 1e-6)).all(axis=1)
        arm = values[..., :-1]
        found |= {f"peak_{name}": float(np.abs(arm).max()), f"rms_{name}": float(np.sqrt((arm**2).mean()))}
    off = (sent[:, :: round(period * rate)] - chunks)[..., :-1]
    found |= {"deviation_max": float(np.abs(off).max()), "deviation_rms": float(np.sqrt((off**2).mean()))}
    return found | {"passes": float(kept.all(1).mean()), "arm_passes": float(kept[:, :-1].all(1).mean())}
