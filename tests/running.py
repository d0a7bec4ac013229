"""Shared by the tests of tasks: run an expert, let physics settle, look through a camera."""

from __future__ import annotations

import numpy as np
import pytest

from robopolicy.core.errors import MissingDependencyError


def stand_still(env, ticks):
    """Hold the arm where it is commanded for some control ticks."""
    for _ in range(ticks):
        env.command(env.simulation.last_command)
    env.simulation.update_kinematics()


def run_expert(env, expert, *, seed, meddle=None):
    """Rewards of an episode from its reset on, (steps + 1,); ``meddle(env, step)`` may disturb it."""
    env.reset(seed=seed)
    expert.reset(env, seed)
    rewards, done = [env.reward()], False
    while not done:
        if meddle:
            meddle(env, len(rewards) - 1)
        _, reward, terminated, truncated, _ = env.step(expert.perturb(expert.act()))
        rewards.append(reward)
        done = terminated or truncated
    return np.array(rewards)


def assert_rises(rewards, *, by, lost=0.1):
    """The reward ends higher than it began; on the way it lost at most this share of what it gained."""
    change = np.diff(rewards)
    assert rewards[-1] - rewards[0] > by
    assert -change[change < 0].sum() < lost * change[change > 0].sum()


def count_pixels(picture, rgb, *, apart=40):
    """How many pixels of (height, width, 3) have the hue of ``rgb``, whatever their brightness."""
    wanted = np.asarray(rgb) / np.linalg.norm(rgb)
    colours = picture.reshape(-1, 3).astype(float)
    length = np.linalg.norm(colours, axis=1)
    angle = np.degrees(np.arccos(np.clip(colours @ wanted / np.maximum(length, 1e-9), -1, 1)))
    return int(((angle < apart / 4) & (length > 50)).sum())


def needs_opengl():
    """Skip, with the reason, where nothing can be rendered."""
    from robopolicy_sim.rendering import create_context

    try:
        create_context(8, 8).free()
    except MissingDependencyError as error:
        pytest.skip(f"no OpenGL: {error}")
