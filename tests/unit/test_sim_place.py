"""The place task: where cube and bin start, what counts as placed, what the camera can tell apart."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from running import assert_rises, count_pixels, needs_opengl, run_expert, stand_still

from robopolicy_sim.experts.place import PlaceExpert
from robopolicy_sim.poses import upright
from robopolicy_sim.tasks.place import APART, BIN_RIM, PLACEMENT_LOWER, PLACEMENT_UPPER, PlaceEnv


@pytest.fixture
def env():
    made = PlaceEnv()
    yield made
    made.close()


def put_cube(env, offset, yaw=0.0):
    """Cube at rest at (3,) ``offset`` from the bin's origin, along the bin's axes."""
    pose = env.simulation.data.body("bin")
    position = pose.xpos + pose.xmat.reshape(3, 3) @ np.asarray(offset)
    env.simulation.data.joint("cube").qpos[:] = upright(position, yaw)
    env.simulation.data.joint("cube").qvel[:] = 0.0


def test_starts_cover_the_area_and_keep_apart(env):
    starts = [env.reset(seed=s)[0] for s in range(300)]
    cube, target = (np.array([o[name][:2] for o in starts]) for name in ("cube_pose", "bin_pose"))
    for xy in (cube, target):
        assert np.all(xy >= np.float32(PLACEMENT_LOWER)) and np.all(xy <= np.float32(PLACEMENT_UPPER))
        assert np.all(np.ptp(xy, axis=0) > 0.95 * np.subtract(PLACEMENT_UPPER, PLACEMENT_LOWER))
    assert np.linalg.norm(cube - target, axis=1).min() >= APART - 1e-6


def test_a_cube_dropped_into_the_bin_is_placed_after_half_a_second(env):
    env.reset(seed=0)
    put_cube(env, (0.02, -0.03, BIN_RIM + 0.01), yaw=0.4)
    while not env.condition():
        stand_still(env, 1)
    assert env.elapsed > 0.1, "it has to fall and settle first"
    stand_still(env, 48)
    assert not env.is_success
    stand_still(env, 1)
    assert env.is_success


@pytest.mark.parametrize(
    "offset",
    [(0.0, 0.0, BIN_RIM + 0.02), (0.1, 0.0, 0.02), (0.0675, 0.0, BIN_RIM + 0.02)],
    ids=["above", "beside", "on the wall"],
)
def test_a_cube_elsewhere_is_not_placed(env, offset):
    env.reset(seed=0)
    put_cube(env, offset)
    assert not env.condition()


def test_a_cube_among_the_fingers_is_not_placed(env):
    env.reset(seed=0)
    put_cube(env, (0.0, 0.0, 0.024))
    env.simulation.update_kinematics()
    assert env.condition()
    env.simulation.data.site("fr3_tcp").xpos[:] = env.simulation.data.joint("cube").qpos[:3]
    assert not env.condition()


def test_the_expert_raises_the_reward_and_picks_a_cube_up_again(env):
    start = []

    def knock(env, step):
        cube = env.simulation.data.joint("cube").qpos
        if step == 0:
            start.append(cube.copy())
        if step == 36:  # out of the fingers, back onto the table
            cube[:] = start[0]

    assert_rises(run_expert(env, PlaceExpert(), seed=1), by=0.9)
    assert env.is_success
    in_one_go = env.elapsed
    run_expert(env, PlaceExpert(), seed=1, meddle=knock)
    assert env.is_success and env.elapsed > in_one_go + 1.0


def test_the_expert_succeeds_with_a_six_joint_arm():
    env = PlaceEnv(robot="ur5e")
    run_expert(env, PlaceExpert(noise=0.005), seed=0)
    assert env.is_success


def test_the_scene_camera_tells_cube_and_bin_apart_wherever_they_start():
    needs_opengl()
    env = PlaceEnv(observation_mode="all")
    for seed in range(6):
        picture = env.reset(seed=seed)[0]["scene_camera"]
        assert count_pixels(picture, (0.85, 0.16, 0.13)) >= 12
        assert count_pixels(picture, (0.27, 0.47, 0.70)) >= 100
    env.close()
