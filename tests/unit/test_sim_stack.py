"""The stack task: where the cubes start, what counts as stacked, what the camera can tell apart."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from running import assert_rises, count_pixels, needs_opengl, run_expert, stand_still

from robopolicy_sim.experts.stack import StackExpert
from robopolicy_sim.poses import upright
from robopolicy_sim.tasks.stack import APART, GREEN_SIZE, PLACEMENT_LOWER, PLACEMENT_UPPER, RED_SIZE, StackEnv

ON_TOP = (RED_SIZE + GREEN_SIZE) / 2


@pytest.fixture
def env():
    made = StackEnv()
    yield made
    made.close()


def put_red(env, offset, yaw=0.0):
    """Red cube at rest at (3,) ``offset`` from the green one's centre."""
    position = env.simulation.data.joint("green_cube").qpos[:3] + offset
    env.simulation.data.joint("red_cube").qpos[:] = upright(position, yaw)
    env.simulation.data.joint("red_cube").qvel[:] = 0.0


def test_starts_cover_the_area_and_keep_apart(env):
    starts = [env.reset(seed=s)[0] for s in range(300)]
    red, green = (np.array([o[name][:2] for o in starts]) for name in ("red_cube_pose", "green_cube_pose"))
    for xy in (red, green):
        assert np.all(xy >= np.float32(PLACEMENT_LOWER)) and np.all(xy <= np.float32(PLACEMENT_UPPER))
        assert np.all(np.ptp(xy, axis=0) > 0.95 * np.subtract(PLACEMENT_UPPER, PLACEMENT_LOWER))
    assert np.linalg.norm(red - green, axis=1).min() >= APART - 1e-6


def test_a_stack_stands_still_and_counts_after_half_a_second(env):
    env.reset(seed=0)
    put_red(env, (0.01, -0.01, ON_TOP), yaw=0.5)
    stand_still(env, 49)
    assert not env.is_success
    stand_still(env, 60)
    assert env.is_success
    depths = [contact.dist for contact in env.simulation.data.contact[: env.simulation.data.ncon]]
    assert min(depths) > -1e-3
    assert np.abs(env.simulation.data.joint("red_cube").qvel).max() < 1e-3


@pytest.mark.parametrize(
    "offset",
    [(0.0, 0.0, ON_TOP + 0.01), (0.03, 0.0, ON_TOP), (0.06, 0.0, (RED_SIZE - GREEN_SIZE) / 2)],
    ids=["above", "off centre", "beside"],
)
def test_anything_else_is_no_stack(env, offset):
    env.reset(seed=0)
    put_red(env, offset)
    assert not env.condition()


def test_a_stack_in_the_air_or_in_the_hand_is_none(env):
    env.reset(seed=0)
    put_red(env, (0.0, 0.0, ON_TOP))
    env.simulation.update_kinematics()
    assert env.condition()
    env.simulation.data.site("fr3_tcp").xpos[:] = env.simulation.data.joint("red_cube").qpos[:3]
    assert not env.condition()
    env.simulation.update_kinematics()
    for name in ("red_cube", "green_cube"):
        env.simulation.data.joint(name).qpos[2] += 0.02
    assert not env.condition()


def test_the_expert_raises_the_reward_and_picks_a_cube_up_again(env):
    def knock(env, step):
        if step == 33:  # off again
            env.simulation.data.joint("red_cube").qpos[:] = upright((0.42, 0.15, 0.03), 0.3)

    assert_rises(run_expert(env, StackExpert(), seed=1), by=0.9)
    assert env.is_success
    in_one_go = env.elapsed
    run_expert(env, StackExpert(), seed=1, meddle=knock)
    assert env.is_success and env.elapsed > in_one_go + 1.0


def test_the_expert_succeeds_with_a_six_joint_arm():
    env = StackEnv(robot="ur5e")
    run_expert(env, StackExpert(noise=0.005), seed=0)
    assert env.is_success


def test_the_scene_camera_tells_the_cubes_apart_wherever_they_start():
    needs_opengl()
    env = StackEnv(observation_mode="all")
    for seed in range(6):
        picture = env.reset(seed=seed)[0]["scene_camera"]
        assert count_pixels(picture, (0.85, 0.16, 0.13)) >= 12
        assert count_pixels(picture, (0.23, 0.58, 0.31)) >= 12
    env.close()
