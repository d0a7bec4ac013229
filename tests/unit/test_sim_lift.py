"""The lift task: where the cube starts, what counts as success, what the cameras can see."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import MissingDependencyError
from robopolicy_sim.rendering import create_context
from robopolicy_sim.tasks.lift import CUBE_SIZE, LIFT_HEIGHT, PLACEMENT_LOWER, PLACEMENT_UPPER, LiftEnv


@pytest.fixture
def env():
    made = LiftEnv()
    yield made
    made.close()


def put_cube(env, position):
    env.simulation.data.joint("cube").qpos[:3] = position
    env.simulation.data.joint("cube").qvel[:] = 0.0


def test_cubes_cover_the_area_at_every_yaw(env):
    poses = np.array([env.reset(seed=s)[0]["cube_pose"] for s in range(400)])
    low, high = poses[:, :2].min(axis=0), poses[:, :2].max(axis=0)
    assert np.all(low >= PLACEMENT_LOWER) and np.all(high <= PLACEMENT_UPPER)
    assert np.all(high - low > (0.29, 0.39))
    assert np.subtract(PLACEMENT_UPPER, PLACEMENT_LOWER) == pytest.approx((0.3, 0.4))
    # Four quarter turns of a cube look alike: within 45 degrees of the arm's direction is every yaw.
    yaw = np.degrees(np.arctan2(poses[:, 4], poses[:, 3]) - np.arctan2(poses[:, 1], poses[:, 0]))
    counts, _ = np.histogram(yaw, bins=9, range=(-45, 45))
    assert counts.sum() == len(poses) and counts.min() > 20


def test_the_cube_rests_where_it_is_placed(env):
    before, _ = env.reset(seed=0)
    for _ in range(100):
        env.command(env.simulation.last_command)
    after = env.observation()
    np.testing.assert_allclose(after["cube_pose"], before["cube_pose"], atol=5e-4)


def test_success_needs_one_unbroken_second_at_height(env):
    env.reset(seed=0)
    up = np.array([0.5, 0.3, CUBE_SIZE / 2 + LIFT_HEIGHT + 0.005])

    def hold(ticks, position):
        for _ in range(ticks):
            put_cube(env, position)
            env.command(env.simulation.last_command)

    hold(99, up)
    assert not env.is_success
    hold(1, [0.5, 0.3, CUBE_SIZE / 2])
    hold(99, up)
    assert not env.is_success
    hold(1, up)
    assert env.is_success


def test_just_below_the_height_is_no_success(env):
    env.reset(seed=0)
    for _ in range(150):
        put_cube(env, [0.5, 0.3, CUBE_SIZE / 2 + LIFT_HEIGHT - 0.001])
        env.command(env.simulation.last_command)
    assert not env.is_success


def test_reward_grows_with_height(env):
    env.reset(seed=0)
    rewards = []
    for height in (0.0, 0.02, 0.04, 0.06):
        put_cube(env, [0.5, 0.0, CUBE_SIZE / 2 + height])
        rewards.append(env.reward())
    assert np.all(np.diff(rewards) > 0)


def test_the_scene_camera_sees_the_cube_wherever_it_starts():
    try:
        create_context(8, 8).free()
    except MissingDependencyError as error:
        pytest.skip(f"no OpenGL: {error}")
    env = LiftEnv(observation_mode="all")
    env.reset(seed=0)
    for x in (PLACEMENT_LOWER[0], PLACEMENT_UPPER[0]):
        for y in (PLACEMENT_LOWER[1], PLACEMENT_UPPER[1]):
            put_cube(env, [x, y, CUBE_SIZE / 2])
            picture = env.observation()["scene_camera"].astype(int)
            red = (picture[..., 0] > 90) & (picture[..., 1] < 70) & (picture[..., 2] < 70)
            assert red.sum() >= 12, f"cube at {x, y} shows {red.sum()} pixels"
    env.close()
