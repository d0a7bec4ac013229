"""A slow and obvious judge of sent commands, adversaries to send them through, and moving starts."""

from __future__ import annotations

import numpy as np

from robopolicy.core.robot import Limits

TOLERANCE = 1e-6  # of each limit: positions of 6 rad are rounded to 1e-15, their third differences to 1e-14


def violations(sent: list, limits: Limits, margin: tuple[float, ...], dt: float) -> list[str]:
    """Every dimension of every command against every limit, one number at a time."""
    found = []
    for d in range(len(limits.lower)):
        path = [float(command[d]) for command in sent]
        lower, upper = limits.lower[d] + margin[d], limits.upper[d] - margin[d]
        room = TOLERANCE * (upper - lower)
        for k in range(len(path)):
            if not lower - room <= path[k] <= upper + room:
                found.append(f"position {path[k]} of {d} at {k}")
            if k >= 1 and abs(path[k] - path[k - 1]) / dt > limits.velocity[d] * (1 + TOLERANCE):
                found.append(f"velocity of {d} at {k}")
            if k >= 2:
                acceleration = (path[k] - 2 * path[k - 1] + path[k - 2]) / dt**2
                if abs(acceleration) > limits.acceleration[d] * (1 + TOLERANCE):
                    found.append(f"acceleration {acceleration} of {d} at {k}")
            if k >= 3:
                jerk = (path[k] - 3 * path[k - 1] + 3 * path[k - 2] - path[k - 3]) / dt**3
                if abs(jerk) > limits.jerk[d] * (1 + TOLERANCE):
                    found.append(f"jerk {jerk} of {d} at {k}")
    return found


def moving_start(
    rng: np.random.Generator, limits: Limits, margin: tuple[float, ...], dt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random position, velocity and acceleration from which the filter's own test says it can stop."""
    dim = len(limits.lower)
    lower, upper = limits.lower + np.array(margin), limits.upper - np.array(margin)
    position = rng.uniform(lower, upper)
    velocity, push = rng.uniform(-1, 1, dim) * limits.velocity, rng.uniform(-1, 1, dim) * limits.acceleration
    for d in range(dim):
        while True:
            # A generous bound on what any stop needs: the acceleration's ramp, then a plain stop.
            ramp = abs(push[d]) / limits.jerk[d] + dt
            peak = abs(velocity[d]) + abs(push[d]) * ramp
            room = peak * (
                ramp + peak / limits.acceleration[d] + 2 * limits.acceleration[d] / limits.jerk[d] + 3 * dt
            )
            if peak <= limits.velocity[d] and lower[d] + room <= position[d] <= upper[d] - room:
                break
            velocity[d], push[d] = 0.8 * velocity[d], 0.8 * push[d]
            if abs(velocity[d]) < 1e-6:
                velocity[d] = push[d] = 0.0
                break
    return position, velocity, push


KINDS = ["jump", "nan", "far", "edge", "chatter", "drift", "noise", "sine", "ramp", "ride", "brake"]


def adversary(
    rng: np.random.Generator, kind: str, last: np.ndarray, k: int, limits: Limits, dt: float
) -> np.ndarray:
    """The next desired command of one kind, from what was sent last."""
    dim, middle = len(last), (limits.lower + limits.upper) / 2
    if kind == "jump":
        return rng.uniform(limits.lower - 1, limits.upper + 1)
    if kind == "nan":
        return np.where(rng.random(dim) < 0.3, rng.choice([np.nan, np.inf, -np.inf], dim), last)
    if kind == "far":
        return np.where(rng.random(dim) < 0.5, 1e300, -1e9)
    if kind == "edge":
        return np.where((np.arange(dim) + k // 30) % 2 == 0, limits.upper, limits.lower)
    if kind == "chatter":
        return last + rng.choice([-1, 1], dim) * limits.velocity * dt
    if kind == "drift":
        return last + limits.velocity * dt * 1.01
    if kind == "sine":  # slow enough for velocity and acceleration at its middle, not at its ends
        return middle + (limits.upper - limits.lower) * 0.6 * np.sin(limits.velocity * k * dt)
    if kind == "ramp":
        return last + np.sign(middle - last + 1e-12) * -limits.velocity * dt
    if kind == "ride":  # as far as the jerk limit goes, back and forth
        return last + np.sign(np.sin(0.7 * k)) * limits.jerk * dt**3 * rng.uniform(0, 3, dim)
    return last + rng.normal(size=dim) * 1e-3
