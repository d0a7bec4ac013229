"""The two-goal task: where the goals are, what counts as success, and that it has two modes and no middle."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import UnknownNameError
from robopolicy_sim.experts.two_goal_reach import TwoGoalReachExpert
from robopolicy_sim.tasks.two_goal_reach import (
    GOAL_OFFSET,
    PLACEMENT_LOWER,
    PLACEMENT_UPPER,
    SIDES,
    YAW_MAX,
    TwoGoalReachEnv,
)


def play(env, actions, seed):
    """Success of a list of actions, the last one held until the end."""
    env.reset(seed=seed)
    done, k = False, 0
    while not done:
        _, _, terminated, truncated, _ = env.step(actions[min(k, len(actions) - 1)])
        done, k = terminated or truncated, k + 1
    return terminated


def demonstrate(env, seed, expert_seed, expert=None):
    """The expert, and its actions in one episode."""
    expert = expert or TwoGoalReachExpert()
    env.reset(seed=seed)
    expert.reset(env, expert_seed)
    actions, done = [], False
    while not done:
        actions.append(expert.act())
        _, _, terminated, truncated, _ = env.step(actions[-1])
        done = terminated or truncated
    assert terminated
    return expert, np.array(actions)


def seeds_of_both_sides(env):
    """One seed for the expert that makes it go left, one that makes it go right."""
    found = {}
    for seed in range(20):
        env.reset(seed=0)
        expert = TwoGoalReachExpert()
        expert.reset(env, seed)
        found.setdefault(expert.side, seed)
    return found["left"], found["right"]


def test_goals_cover_the_area_and_left_is_left():
    env = TwoGoalReachEnv()
    starts = [env.reset(seed=s)[0] for s in range(300)]
    left, right = (np.array([o[f"{side}_goal"] for o in starts]) for side in SIDES)
    middle, across = (left + right)[:, :2] / 2, (left - right)[:, :2]
    low, high = middle.min(axis=0), middle.max(axis=0)
    assert np.all(low >= PLACEMENT_LOWER) and np.all(high <= PLACEMENT_UPPER)
    assert np.all(high - low > 0.95 * np.subtract(PLACEMENT_UPPER, PLACEMENT_LOWER))
    np.testing.assert_allclose(np.linalg.norm(across, axis=1), 2 * GOAL_OFFSET, atol=1e-6)
    assert np.all(left[:, 1] > right[:, 1])
    yaw = np.arctan2(-across[:, 0], across[:, 1])
    assert 0.9 * YAW_MAX < np.abs(yaw).max() <= YAW_MAX


def test_goals_in_the_tool_frame_are_the_same_points():
    env = TwoGoalReachEnv()
    observation, _ = env.reset(seed=3)
    tool = env.simulation.transform_tcp_to_base()
    for side in SIDES:
        in_base = tool @ np.append(observation[f"{side}_goal_in_tool"], 1.0)
        np.testing.assert_allclose(in_base[:3], observation[f"{side}_goal"], atol=1e-6)


def test_the_expert_takes_both_sides_equally_often_and_nothing_seen_tells_which():
    env, expert = TwoGoalReachEnv(), TwoGoalReachExpert()
    first = env.reset(seed=0)[0]
    sides = []
    for seed in range(60):
        expert.reset(env, seed)
        sides.append(expert.side)
        assert expert.facts()["side"] == expert.side
    assert 18 <= sides.count("left") <= 42
    again = env.reset(seed=0)[0]
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_the_mean_of_going_left_and_going_right_is_no_success():
    env = TwoGoalReachEnv()
    for seed in range(3):
        (_, left), (_, right) = (demonstrate(env, seed, s) for s in seeds_of_both_sides(env))
        count = min(len(left), len(right))
        assert play(env, left, seed) and play(env, right, seed)
        assert not play(env, (left[:count] + right[:count]) / 2, seed)


def test_success_takes_half_a_second_at_a_goal():
    env = TwoGoalReachEnv()
    _, actions = demonstrate(env, 0, 0)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
        if env.condition():
            break
    held = env.snapshot()
    first = env.simulation.last_command
    ticks = 0
    while not env.is_success:
        env.command(first)
        ticks += 1
    assert 40 <= ticks <= 50
    env.restore(held)
    assert not env.is_success


def test_a_goal_that_is_asked_for_is_the_only_one_that_counts():
    env = TwoGoalReachEnv(goal="left")
    assert "left" in env.instruction and env.instruction != TwoGoalReachEnv().instruction
    expert, actions = demonstrate(env, 1, 0)
    assert expert.side == "left"
    assert not play(TwoGoalReachEnv(goal="right"), actions, 1)
    assert play(TwoGoalReachEnv(), actions, 1)
    assert all(demonstrate(TwoGoalReachEnv(goal="right"), 1, s)[0].side == "right" for s in range(2))


def test_what_is_asked_is_only_in_the_instruction():
    views = [TwoGoalReachEnv(goal=goal).reset(seed=5)[0] for goal in ("any", "left", "right")]
    for view in views[1:]:
        assert all(np.array_equal(views[0][key], view[key]) for key in view)


def test_another_goal_is_refused_by_name():
    with pytest.raises(UnknownNameError, match=r"'middle'; known: any, left, right"):
        TwoGoalReachEnv(goal="middle")
