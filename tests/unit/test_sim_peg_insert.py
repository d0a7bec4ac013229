"""The peg task: where peg and block start, what counts as inserted, what the cameras can see."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import MissingDependencyError
from robopolicy_sim.rendering import create_context
from robopolicy_sim.tasks.peg_insert import (
    APART,
    BLOCK_HEIGHT,
    DEPTH,
    HOLE_SIZE,
    PEG_LENGTH,
    PEG_SIZE,
    PLACEMENT_LOWER,
    PLACEMENT_UPPER,
    PegInsertEnv,
)


@pytest.fixture
def env():
    made = PegInsertEnv()
    made.reset(seed=0)
    yield made
    made.close()


def put_peg(env, end_height, *, sideways=0.0, turned=0.0):
    """The peg over the hole: its end [m] above the table, [m] beside the axis, [rad] against the hole."""
    hole = env.simulation.data.body("block")
    yaw = np.arctan2(hole.xmat[3], hole.xmat[0]) + turned
    offset = hole.xmat.reshape(3, 3)[:, 0] * sideways
    peg = env.simulation.data.joint("peg")
    peg.qpos[:2] = (hole.xpos + offset)[:2]
    peg.qpos[2:] = [end_height + PEG_LENGTH / 2, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    peg.qvel[:] = 0.0


def wait(env, seconds):
    for _ in range(round(100 * seconds)):
        env.command(env.simulation.last_command)


def depth(env):
    return BLOCK_HEIGHT - (env.simulation.data.joint("peg").qpos[2] - PEG_LENGTH / 2)


def test_the_hole_leaves_one_millimetre_on_each_side():
    assert pytest.approx((HOLE_SIZE - PEG_SIZE) / 2) == 0.001
    assert DEPTH >= 0.03


def test_starts_cover_the_area_at_every_yaw():
    env = PegInsertEnv()
    starts = [env.reset(seed=s)[0] for s in range(300)]
    for key, height in (("peg_pose", PEG_LENGTH / 2), ("hole_pose", BLOCK_HEIGHT)):
        poses = np.array([start[key] for start in starts])
        low, high = poses[:, :2].min(axis=0), poses[:, :2].max(axis=0)
        assert np.all(low >= PLACEMENT_LOWER) and np.all(high <= PLACEMENT_UPPER)
        assert np.all(high - low > (0.24, 0.41))
        np.testing.assert_allclose(poses[:, 2], height, atol=1e-6)
        yaw = np.degrees(np.arctan2(poses[:, 4], poses[:, 3]) - np.arctan2(poses[:, 1], poses[:, 0]))
        counts, _ = np.histogram(yaw, bins=6, range=(-45, 45))
        assert counts.sum() == len(poses) and counts.min() > 25
    apart = [np.linalg.norm(start["peg_pose"][:2] - start["hole_pose"][:2]) for start in starts]
    assert min(apart) >= APART


def test_the_peg_stands_where_it_is_placed(env):
    before = env.observation()["peg_pose"]
    wait(env, 1.0)
    np.testing.assert_allclose(env.observation()["peg_pose"], before, atol=5e-4)


@pytest.mark.parametrize("sideways", [0.0, 0.0008])
def test_a_peg_over_the_hole_falls_in_and_is_a_success(env, sideways):
    put_peg(env, BLOCK_HEIGHT - 0.005, sideways=sideways)
    wait(env, 0.4)
    assert depth(env) > 0.045 and not env.is_success
    wait(env, 0.6)
    assert env.is_success


def test_the_bevel_leads_in(env):
    put_peg(env, BLOCK_HEIGHT - 0.001, sideways=0.004)
    wait(env, 1.5)
    assert env.is_success


@pytest.mark.parametrize("misfit", [{"sideways": 0.012}, {"turned": 0.6}])
def test_a_peg_that_does_not_fit_stays_out(env, misfit):
    put_peg(env, BLOCK_HEIGHT + 0.001, **misfit)
    wait(env, 1.5)
    assert depth(env) < DEPTH and not env.is_success


def test_a_moving_peg_and_one_not_deep_enough_are_no_success(env):
    for _ in range(100):
        put_peg(env, BLOCK_HEIGHT - DEPTH + 0.001)
        env.command(env.simulation.last_command)
    assert not env.is_success
    for _ in range(100):
        put_peg(env, BLOCK_HEIGHT - DEPTH - 0.005)
        env.simulation.data.joint("peg").qvel[2] = 0.2
        env.simulation.update_kinematics()
        assert not env.condition()


def test_beside_the_block_is_no_success(env):
    put_peg(env, 0.0, sideways=0.08)
    wait(env, 1.0)
    assert not env.is_success


def test_reward_grows_with_depth(env):
    rewards = []
    for height in (0.051, 0.045, 0.04, 0.03, 0.01):
        put_peg(env, height)
        env.simulation.update_kinematics()
        rewards.append(env.reward())
    assert np.all(np.diff(rewards) > 0) and rewards[-1] == pytest.approx(1.0)


def test_the_scene_camera_sees_the_peg_wherever_it_starts():
    try:
        create_context(8, 8).free()
    except MissingDependencyError as error:
        pytest.skip(f"no OpenGL: {error}")
    env = PegInsertEnv(observation_mode="all")
    env.reset(seed=0)
    for x in (PLACEMENT_LOWER[0], PLACEMENT_UPPER[0]):
        for y in (PLACEMENT_LOWER[1], PLACEMENT_UPPER[1]):
            env.simulation.data.joint("peg").qpos[:3] = [x, y, PEG_LENGTH / 2]
            picture = env.observation()["scene_camera"].astype(int)
            red = (picture[..., 0] > 90) & (picture[..., 1] < 70) & (picture[..., 2] < 70)
            assert red.sum() >= 20, f"peg at {x, y} shows {red.sum()} pixels"
    env.close()
