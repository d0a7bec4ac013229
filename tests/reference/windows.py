"""Training windows, one number at a time: slow and obvious, to hold the fast path against."""

from __future__ import annotations

import numpy as np

IDENTITY_6D = (1, 0, 0, 0, 1, 0)


def still(space: str, last: np.ndarray) -> list[float]:
    """The command of one part that means "stay where you are"."""
    if space == "joint_delta":
        return [0.0] * len(last)
    if space == "ee_delta":
        return [0.0, 0.0, 0.0, *IDENTITY_6D]
    return list(last)


def window(
    episode: dict, parts: list, t: int, observed: int, predicted: int, ahead: float | None = None
) -> tuple[dict, list, list]:
    """The window whose current observation is step ``t`` of one episode.

    Args:
        episode: "action" (steps, dim), and "observation": name to (steps, *shape).
        parts: (space, number of dimensions) of the action.
        ahead: 0..1, which of the later steps is the goal; None takes the last step.
    Returns:
        name to ``observed`` frames, and "goal.name" to the goal as often; ``predicted`` actions;
        ``predicted`` booleans (inside the episode).
    """
    steps = len(episode["action"])
    oldest = t - (observed - 1)
    later = list(range(t + 1, steps))
    wanted = later[int(ahead * len(later))] if ahead is not None and later else steps - 1
    frames = {}
    for name, values in episode["observation"].items():
        frames[name] = [values[max(oldest + k, 0)] for k in range(observed)]
        frames[f"goal.{name}"] = [values[wanted]] * observed
    actions, inside = [], []
    for k in range(predicted):
        step = oldest + k
        inside.append(0 <= step < steps)
        nearest = episode["action"][min(max(step, 0), steps - 1)]
        if inside[-1]:
            actions.append(list(nearest))
            continue
        action, first = [], 0
        for space, dims in parts:
            action += still(space, nearest[first : first + dims])
            first += dims
        actions.append(action)
    return frames, actions, inside


def newest(times: list[int], now: int) -> int:
    """Index of the newest sample that is not from the future; the first one when all are."""
    found = 0
    for index, time in enumerate(times):
        if time <= now:
            found = index
    return found
