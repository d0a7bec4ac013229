"""The drawer task: where the cabinet stands, how the drawer slides, what counts as open."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from running import assert_rises, count_pixels, needs_opengl, run_expert, stand_still

from robopolicy_sim.experts.drawer import DrawerExpert
from robopolicy_sim.tasks.drawer import (
    AJAR,
    OPEN,
    PLACEMENT_LOWER,
    PLACEMENT_UPPER,
    TRAVEL,
    TURN,
    DrawerEnv,
)


@pytest.fixture
def env():
    made = DrawerEnv()
    yield made
    made.close()


def open_by(env, metres):
    env.simulation.data.joint("drawer").qpos[0] = metres
    env.simulation.data.joint("drawer").qvel[0] = 0.0


def test_cabinets_cover_the_area_and_face_the_arm(env):
    xy, turns, openings = [], [], []
    for seed in range(300):
        start, _ = env.reset(seed=seed)
        cabinet = env.simulation.data.body("cabinet")
        xy.append(cabinet.xpos[:2].copy())
        turns.append(np.arctan2(cabinet.xmat[3], cabinet.xmat[0]) - np.arctan2(*cabinet.xpos[1::-1]))
        openings.append(start["drawer_opening"][0])
    assert np.all(xy >= np.array(PLACEMENT_LOWER)) and np.all(xy <= np.array(PLACEMENT_UPPER))
    assert np.all(np.ptp(xy, axis=0) > 0.95 * np.subtract(PLACEMENT_UPPER, PLACEMENT_LOWER))
    assert np.abs(turns).max() <= TURN and np.ptp(turns) > 1.9 * TURN
    assert min(openings) >= 0.0 and 0.9 * AJAR < max(openings) <= np.float32(AJAR)


def test_the_drawer_stays_where_it_is_and_stops_at_its_end(env):
    env.reset(seed=0)
    before = env.observation()
    stand_still(env, 100)
    assert env.observation()["drawer_opening"] == pytest.approx(before["drawer_opening"], abs=2e-4)
    env.simulation.data.joint("drawer").qvel[0] = 2.0
    stand_still(env, 100)
    assert env.observation()["drawer_opening"][0] == pytest.approx(TRAVEL, abs=2e-3)


def test_the_handle_moves_along_its_own_axis(env):
    env.reset(seed=3)
    poses = []
    for metres in (0.0, 0.1):
        open_by(env, metres)
        poses.append(env.observation()["handle_pose"].astype(float))
    inward = poses[0][3:6]
    np.testing.assert_allclose(poses[1][:3], poses[0][:3] - 0.1 * inward, atol=1e-6)
    np.testing.assert_allclose(poses[1][3:], poses[0][3:], atol=1e-6)


def test_success_needs_twelve_centimetres_for_half_a_second(env):
    env.reset(seed=0)
    open_by(env, OPEN - 0.001)
    stand_still(env, 60)
    assert not env.is_success
    open_by(env, OPEN + 0.002)
    stand_still(env, 49)
    assert not env.is_success
    stand_still(env, 1)
    assert env.is_success


def test_the_expert_raises_the_reward_and_grasps_again_when_the_drawer_slips(env):
    def shut(env, step):
        if step == 30:
            open_by(env, 0.0)

    assert_rises(run_expert(env, DrawerExpert(), seed=1), by=0.7)
    assert env.is_success
    run_expert(env, DrawerExpert(), seed=1, meddle=shut)
    assert env.is_success


def test_the_expert_succeeds_with_a_six_joint_arm():
    env = DrawerEnv(robot="ur5e")
    run_expert(env, DrawerExpert(noise=0.005), seed=0)
    assert env.is_success


def test_the_scene_camera_sees_handle_and_drawer_wherever_they_stand():
    needs_opengl()
    env = DrawerEnv(observation_mode="all")
    for seed in range(6):
        picture = env.reset(seed=seed)[0]["scene_camera"]
        assert count_pixels(picture, (0.85, 0.45, 0.13)) >= 12
        assert count_pixels(picture, (0.42, 0.58, 0.66)) >= 12
    env.close()
