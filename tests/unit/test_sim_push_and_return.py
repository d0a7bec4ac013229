"""The push-and-return task: what it remembers, what counts as success, and what nobody can see."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import ConfigError
from robopolicy_sim.experts.push_and_return import PushAndReturnExpert
from robopolicy_sim.tasks.push_and_return import SIDE_OFFSET, TOLERANCE, PushAndReturnEnv


@pytest.fixture
def env():
    made = PushAndReturnEnv()
    made.reset(seed=0)
    yield made
    made.close()


def put_puck(env, along):
    """The puck on the line between the pads: ``along`` is 0 in the middle, 1 at the start pad."""
    layout = env.simulation.data.body("layout")
    side = SIDE_OFFSET if env.side == "left" else -SIDE_OFFSET
    position = layout.xpos + layout.xmat.reshape(3, 3) @ np.array([0.0, side * along, 0.015])
    env.simulation.data.joint("puck").qpos[:3] = position
    env.simulation.data.joint("puck").qvel[:] = 0.0


def stay(env, along, seconds):
    for _ in range(round(100 * seconds)):
        put_puck(env, along)
        env.command(env.simulation.last_command)


def flag(env):
    return bool(env.observation()["flag"][0])


def test_both_sides_occur_equally_often():
    env = PushAndReturnEnv()
    sides = []
    for seed in range(200):
        observation, _ = env.reset(seed=seed)
        sides.append(env.side)
        assert (observation["puck"][1] > observation["layout_pose"][1]) == (env.side == "left")
    assert 75 < sides.count("left") < 125


def test_there_and_back_is_a_success(env):
    stay(env, 0.0, 1.15)
    assert not flag(env)
    stay(env, 0.0, 0.1)
    assert flag(env) and not env.is_success
    stay(env, 1.0, 0.45)
    assert not env.is_success
    stay(env, 1.0, 0.1)
    assert env.is_success


def test_the_wait_must_not_be_interrupted(env):
    stay(env, 0.0, 0.9)
    stay(env, (TOLERANCE + 0.005) / SIDE_OFFSET, 0.02)
    stay(env, 0.0, 0.9)
    assert not flag(env)


def test_without_the_wait_the_way_back_is_no_success(env):
    stay(env, 0.0, 0.5)
    stay(env, 1.0, 1.0)
    assert not env.is_success and not flag(env)


def test_the_wrong_pad_is_failure_for_good(env):
    stay(env, 0.0, 1.3)
    stay(env, -1.0, 0.1)
    assert env.reward() == 0.0
    stay(env, 1.0, 1.0)
    assert not env.is_success


def test_the_wrong_pad_before_the_wait_does_no_harm(env):
    stay(env, -1.0, 0.3)
    stay(env, 0.0, 1.3)
    stay(env, 1.0, 0.6)
    assert env.is_success


def test_snapshots_keep_what_the_task_remembers(env):
    stay(env, 0.0, 0.8)
    half = env.snapshot()
    stay(env, 0.0, 0.5)
    waited = env.snapshot()
    stay(env, -1.0, 0.1)
    env.restore(waited)
    assert flag(env)
    stay(env, 1.0, 0.6)
    assert env.is_success
    env.restore(half)
    assert not flag(env) and not env.is_success
    stay(env, 0.0, 0.3)
    assert not flag(env)
    stay(env, 0.0, 0.2)
    assert flag(env)


def test_a_reset_forgets(env):
    stay(env, 0.0, 1.3)
    observation, _ = env.reset(seed=1)
    assert observation["flag"][0] == 0.0


def test_the_wait_is_an_option():
    env = PushAndReturnEnv(wait_seconds=0.3)
    env.reset(seed=0)
    stay(env, 0.0, 0.35)
    assert flag(env)
    for wrong in (0.0, -1.0, 7.0):
        with pytest.raises(ConfigError, match=f"wait_seconds.*{wrong}"):
            PushAndReturnEnv(wait_seconds=wrong)


def test_while_it_waits_the_two_sides_look_alike():
    """What the expert's observations say of the side: all of it at first, next to nothing during the wait."""
    env, expert = PushAndReturnEnv(), PushAndReturnExpert()
    early, waiting, sides = [], [], []
    for seed in range(16):
        env.reset(seed=seed)
        expert.reset(env, seed)
        rows = []
        while not flag(env):
            observation = env.step(expert.act())[0]
            pose = env.simulation.data.body("layout")
            apart = observation["puck"] - pose.xpos
            rows.append([apart @ pose.xmat.reshape(3, 3)[:, 1], observation["gripper_opening"][0]])
        assert expert.facts()["side"] == env.side
        sides.append(1.0 if env.side == "left" else -1.0)
        early.append(rows[15])
        waiting.append(rows[-5])
    sides, early, waiting = np.array(sides), np.array(early), np.array(waiting)
    assert np.all(early[:, 0] * sides > 0.1)
    assert np.abs(waiting[:, 0]).max() < 0.015  # the draw of where it stops is as wide as this
    by_side = [waiting[sides == s, 0].mean() for s in (-1.0, 1.0)]
    assert abs(by_side[1] - by_side[0]) < 0.009  # 2.5 standard errors of that draw
    assert np.ptp(waiting[:, 1]) < 1e-4
