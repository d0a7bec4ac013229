"""The noisy expert: what it draws, what its level does, and that its mistakes are on record."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import transform
from robopolicy_sim.experts.two_goal_reach import TwoGoalReachExpert
from robopolicy_sim.motion import ROTATION_DOWN
from robopolicy_sim.noisy import Drawn, Mistakes, Stumbling
from robopolicy_sim.tasks.two_goal_reach import TwoGoalReachEnv

NONE = Drawn(0.0, (0.0, 0.0), 0.0, 0.0, (), (), None)
TOOL = transform(ROTATION_DOWN, (0.4, 0.0, 0.3))
TARGET = transform(ROTATION_DOWN, (0.5, 0.1, 0.1))


def stumbling(**drawn):
    made = replace(NONE, **drawn)
    return Stumbling(made, wander_seconds=0.8, period=0.1, opening_max=0.08, seed=0)


def run(mistakes, seeds):
    """Successes of the noisy expert over some episodes, and the joint targets it sent."""
    env, expert = TwoGoalReachEnv(), TwoGoalReachExpert(mistakes=mistakes)
    successes, commands = [], []
    for seed in seeds:
        env.reset(seed=seed)
        expert.reset(env, seed)
        done = False
        while not done:
            commands.append(expert.act())
            _, _, terminated, truncated, info = env.step(commands[-1])
            done = terminated or truncated
        successes.append(info["is_success"])
    return successes, np.array(commands)


def test_level_0_is_the_clean_expert_to_the_last_bit():
    clean, none = run(None, range(3)), run(Mistakes(level=0.0), range(3))
    assert clean[0] == none[0] and np.array_equal(clean[1], none[1])


def test_the_higher_the_level_the_fewer_succeed():
    rates = [np.mean(run(Mistakes(level=level), range(24))[0]) for level in (0.2, 0.5, 1.0)]
    assert rates[0] > 0.7 and 0.3 <= rates[1] <= 0.75 and rates[2] < 0.4
    assert rates[0] > rates[1] > rates[2]


def test_the_seed_alone_decides():
    one, two = run(Mistakes(level=0.7), range(2)), run(Mistakes(level=0.7), range(2))
    assert one[0] == two[0] and np.array_equal(one[1], two[1])
    assert not np.array_equal(one[1], run(Mistakes(level=0.7), range(2, 4))[1])


def test_severities_fill_the_interval_that_the_level_leaves():
    for level, low, high in ((0.5, 0.0, 1.0), (0.2, 0.0, 0.4), (0.9, 0.8, 1.0), (1.0, 1.0, 1.0)):
        drawn = np.array([Mistakes(level=level).draw(seed, 10.0).severity for seed in range(300)])
        assert low <= drawn.min() and drawn.max() <= high
        assert np.ptp(drawn) >= 0.95 * (high - low)
        assert drawn.mean() == pytest.approx(level, abs=0.04)


def test_mistakes_have_the_sizes_they_are_given():
    mistakes = Mistakes(level=1.0)
    drawn = [mistakes.draw(seed, 10.0) for seed in range(2000)]
    assert np.std([d.bias for d in drawn]) == pytest.approx(mistakes.bias, rel=0.05)
    assert np.mean([d.overshoot for d in drawn]) == pytest.approx(mistakes.overshoot, rel=0.1)
    given_up = [d.gives_up_at for d in drawn if d.gives_up_at is not None]
    assert len(given_up) / len(drawn) == pytest.approx(mistakes.give_up, abs=0.04)
    assert min(given_up) >= 0.5 and max(given_up) <= 3.0
    for spans, rate, mean in (
        ([d.hesitations for d in drawn], mistakes.hesitation_rate, mistakes.hesitation_seconds),
        ([d.slips for d in drawn], mistakes.slip_rate, mistakes.slip_seconds),
    ):
        lasting = [end - start for episode in spans for start, end in episode]
        assert len(lasting) / len(drawn) / 10.0 == pytest.approx(rate, rel=0.1)
        assert np.mean(lasting) == pytest.approx(mean, rel=0.1)


def test_the_wander_is_correlated_and_of_its_size():
    hand = stumbling(wander=0.01)
    offsets = np.array([hand.disturb(TARGET, 0.08, TOOL)[0][:3, 3] - TARGET[:3, 3] for _ in range(20_000)])
    np.testing.assert_allclose(offsets.std(axis=0), 0.01, rtol=0.1)
    for axis in offsets.T:
        kept = np.corrcoef(axis[:-1], axis[1:])[0, 1]
        assert kept == pytest.approx(np.exp(-0.1 / 0.8), abs=0.02)


def test_a_biased_expert_puts_its_tool_beside_the_place_it_means():
    hand = stumbling(bias=(0.02, -0.01))
    seen = hand.believe({"ee_pose": np.array([0.4, 0.0, 0.3, 1, 0, 0, 0, -1, 0], np.float32)})["ee_pose"]
    np.testing.assert_allclose(seen[:3], [0.42, -0.01, 0.3], atol=1e-6)
    gone, _ = hand.disturb(TARGET, 0.08, TOOL)
    np.testing.assert_allclose(gone[:3, 3], TARGET[:3, 3] - [0.02, -0.01, 0.0], atol=1e-9)


def test_a_hesitation_stands_still_and_ends():
    hand = stumbling(hesitations=((0.15, 0.35),))
    goals = [hand.disturb(TARGET, 0.08, TOOL)[0] for _ in range(6)]
    moving = [np.array_equal(goal, TARGET) for goal in goals]
    assert moving == [True, True, False, False, True, True]
    assert np.array_equal(goals[2], TOOL)


def test_giving_up_is_for_good():
    hand = stumbling(gives_up_at=0.15)
    goals = [hand.disturb(TARGET, 0.08, TOOL)[0] for _ in range(50)]
    assert np.array_equal(goals[1], TARGET)
    assert all(np.array_equal(goal, TOOL) for goal in goals[2:])


def test_a_slip_opens_what_should_close_and_the_other_way_about():
    for opening, slipped in ((0.02, 0.08), (0.08, 0.0)):
        hand = stumbling(slips=((0.05, 0.25),))
        done = [hand.disturb(TARGET, opening, TOOL)[1] for _ in range(4)]
        assert done == [opening, slipped, slipped, opening]


def test_an_overshoot_goes_too_far_then_comes_back():
    hand = stumbling(overshoot=0.2)
    beyond = TARGET[:3, 3] + 0.2 * (TARGET[:3, 3] - TOOL[:3, 3])
    np.testing.assert_allclose(hand.disturb(TARGET, 0.08, TOOL)[0][:3, 3], beyond)
    on_the_way = transform(ROTATION_DOWN, TARGET[:3, 3])
    np.testing.assert_allclose(hand.disturb(TARGET, 0.08, on_the_way)[0][:3, 3], beyond)
    np.testing.assert_allclose(
        hand.disturb(TARGET, 0.08, transform(ROTATION_DOWN, beyond))[0][:3, 3], TARGET[:3, 3]
    )


def test_no_mistake_presses_the_tool_into_the_table():
    hand = stumbling(wander=0.05, overshoot=0.5)
    for height in (0.005, 0.02):
        low = transform(ROTATION_DOWN, (0.5, 0.0, height))
        heights = [hand.disturb(low, 0.08, TOOL)[0][2, 3] for _ in range(200)]
        assert min(heights) >= min(height, 0.012)


def test_joint_velocities_stay_within_limits_at_the_worst_level():
    _, commands = run(Mistakes(level=1.0), [0])
    env = TwoGoalReachEnv()
    assert np.all(np.abs(np.diff(commands, axis=0))[:, :-1] * 10 <= env.robot.limits.velocity[:-1])


def test_what_was_drawn_is_on_record_with_its_units():
    env, expert = TwoGoalReachEnv(), TwoGoalReachExpert.noisy(level=0.6)
    env.reset(seed=4)
    expert.reset(env, 4)
    facts = json.loads(json.dumps(expert.facts()))
    assert facts["expert"] == "noisy"
    drawn = Mistakes(level=0.6).draw(4, env.episode_seconds)
    assert facts["mistakes"]["bias_m"] == list(drawn.bias)
    assert facts["mistakes"]["severity"] == drawn.severity
    assert set(facts["mistakes"]) == {
        *("severity", "bias_m", "wander_m", "overshoot", "hesitations_s", "slips_s", "gives_up_at_s")
    }
    clean = TwoGoalReachExpert()
    clean.reset(env, 4)
    assert clean.facts()["expert"] == "scripted" and clean.facts()["mistakes"] is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level": 1.2}, "level must be in 0..1, got 1.2"),
        ({"give_up": -0.1}, "give_up must be in 0..1, got -0.1"),
        ({"wander": -0.1}, "wander must not be negative, got -0.1"),
        ({"wander_seconds": 0.0}, "wander_seconds must be above 0"),
    ],
)
def test_mistakes_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Mistakes(**wrong)
