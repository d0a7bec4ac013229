"""The push task: where block and target start, what counts as there, how pushes move the block."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from running import assert_rises, count_pixels, needs_opengl, run_expert, stand_still

from robopolicy_sim.experts.push import PushExpert
from robopolicy_sim.poses import mocap_pose, turn_within, upright, yaw_from_quat
from robopolicy_sim.tasks.push import (
    APART,
    BLOCK_SIZE,
    PLACEMENT_LOWER,
    PLACEMENT_UPPER,
    POSITION_ERROR,
    TURN,
    YAW_ERROR,
    PushEnv,
)


@pytest.fixture
def env():
    made = PushEnv()
    yield made
    made.close()


def put_block(env, *, away, turn):
    """Block at rest, ``away`` [m] from the target and turned against it [rad]."""
    target = mocap_pose(env.simulation, "target")
    yaw = yaw_from_quat(target[3:]) + turn
    env.simulation.data.joint("block").qpos[:] = upright(
        (target[0] + away, target[1], BLOCK_SIZE[2] / 2), yaw
    )
    env.simulation.data.joint("block").qvel[:] = 0.0


def test_starts_cover_the_area_and_keep_apart(env):
    starts = [env.reset(seed=s)[0] for s in range(300)]
    block, target = (np.array([o[name] for o in starts]) for name in ("block_pose", "target_pose"))
    for pose in (block, target):
        assert np.all(pose[:, :2] >= np.float32(PLACEMENT_LOWER))
        assert np.all(pose[:, :2] <= np.float32(PLACEMENT_UPPER))
    assert np.linalg.norm(block - target, axis=1).min() >= APART - 1e-6
    yaw = [np.arctan2(pose[:, 4], pose[:, 3]) for pose in (block, target)]
    turn = np.array([turn_within(t - b, 2 * np.pi) for b, t in zip(*yaw, strict=True)])
    assert np.abs(turn).max() <= TURN + 1e-5 and np.ptp(turn) > 1.9 * TURN
    assert np.ptp(yaw[0]) > 6.0


def test_success_needs_position_yaw_and_half_a_second(env):
    env.reset(seed=0)
    put_block(env, away=0.9 * POSITION_ERROR, turn=0.9 * YAW_ERROR)
    stand_still(env, 49)
    assert not env.is_success
    stand_still(env, 2)
    assert env.is_success


@pytest.mark.parametrize(
    ("away", "turn"),
    [(1.1 * POSITION_ERROR, 0.0), (0.0, 1.1 * YAW_ERROR), (0.0, np.pi)],
    ids=["too far", "too much turned", "the wrong way round"],
)
def test_anything_else_is_no_success(env, away, turn):
    env.reset(seed=0)
    put_block(env, away=away, turn=turn)
    stand_still(env, 60)
    assert not env.condition() and not env.is_success


def test_passing_over_the_target_is_no_success(env):
    env.reset(seed=0)
    put_block(env, away=0.0, turn=0.0)
    env.simulation.data.joint("block").qvel[0] = 0.05
    assert not env.condition()


def test_the_expert_never_lifts_or_tips_the_block_and_raises_the_reward(env):
    heights = []

    def watch(env, step):
        heights.append(float(env.simulation.data.joint("block").qpos[2]))

    assert_rises(run_expert(env, PushExpert(), seed=0, meddle=watch), by=0.4, lost=0.2)
    assert env.is_success
    assert np.ptp(heights) < 0.002


def test_the_expert_recovers_from_a_shove(env):
    def shove(env, step):
        if step == 60:
            env.simulation.data.joint("block").qpos[:] = upright((0.5, 0.1, BLOCK_SIZE[2] / 2), 2.0)

    run_expert(env, PushExpert(noise=0.005), seed=2, meddle=shove)
    assert env.is_success and env.elapsed > 6.0


def test_the_expert_succeeds_with_a_six_joint_arm():
    env = PushEnv(robot="ur5e")
    run_expert(env, PushExpert(noise=0.005), seed=0)
    assert env.is_success


def test_the_scene_camera_sees_block_and_target_wherever_they_start():
    needs_opengl()
    env = PushEnv(observation_mode="all")
    for seed in range(6):
        picture = env.reset(seed=seed)[0]["scene_camera"]
        assert count_pixels(picture, (0.47, 0.38, 0.70)) >= 40
        assert count_pixels(picture, (0.30, 0.66, 0.50)) >= 25
    env.close()
