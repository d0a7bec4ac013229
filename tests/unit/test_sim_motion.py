"""Tool motion, inverse kinematics and the servo's tracking."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import transform
from robopolicy_sim import robots
from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.kinematics import InverseKinematics
from robopolicy_sim.motion import (
    ROTATION_DOWN,
    MotionLimits,
    ToolMotion,
    rotation_from_vector,
    rotation_vector,
)
from robopolicy_sim.tasks.lift import LiftEnv

ARM = robots.load("fr3")
ROBOT = ARM.robot


def test_rotation_vectors_round_trip():
    rng = np.random.default_rng(0)
    for _ in range(100):
        axis = rng.normal(size=3)
        vector = axis / np.linalg.norm(axis) * rng.uniform(0, np.pi - 1e-3)
        np.testing.assert_allclose(rotation_vector(rotation_from_vector(vector)), vector, atol=1e-9)
    np.testing.assert_array_equal(rotation_from_vector(np.zeros(3)), np.eye(3))


def test_a_motion_arrives_at_rest_within_its_limits():
    limits, period = MotionLimits(), 0.1
    motion = ToolMotion(period, limits)
    motion.reset(transform(ROTATION_DOWN, (0.3, 0.0, 0.5)))
    goal = transform(ROTATION_DOWN @ rotation_from_vector(np.array([0.0, 0.0, 0.7])), (0.6, -0.2, 0.1))
    path = np.array([motion.pose(), *(motion.advance(goal) for _ in range(40))])
    np.testing.assert_allclose(path[-1], goal, atol=1e-6)
    velocity = np.diff(path[:, :3, 3], axis=0) / period
    assert np.all(np.abs(velocity) <= limits.velocity + 1e-6)
    assert np.all(np.abs(np.diff(velocity, axis=0) / period) <= limits.acceleration + 1e-6)


def test_a_motion_follows_a_target_that_moves():
    motion = ToolMotion(0.1)
    motion.reset(transform(ROTATION_DOWN, (0.3, 0.0, 0.5)))
    for k in range(10):
        motion.advance(transform(ROTATION_DOWN, (0.5, 0.02 * k, 0.2)))
    goal = transform(ROTATION_DOWN, (0.4, -0.1, 0.3))
    path = np.array([motion.advance(goal) for _ in range(30)])
    np.testing.assert_allclose(path[-1], goal, atol=1e-6)
    steps = np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.07


def test_inverse_kinematics_reaches_the_table_smoothly():
    kinematics = InverseKinematics(ARM)
    joints = np.asarray(ROBOT.home)
    previous = None
    for y in np.linspace(-0.2, 0.2, 41):
        pose = transform(ROTATION_DOWN, (0.6, y, 0.02))
        joints = kinematics.solve(pose, joints)
        np.testing.assert_allclose(ROBOT.transform_tcp_to_base(joints), pose, atol=1e-5)
        assert previous is None or np.abs(joints - previous).max() < 0.05
        previous = joints


def test_an_unreachable_pose_gives_the_best_within_limits():
    joints = InverseKinematics(ARM).solve(transform(ROTATION_DOWN, (2.0, 0.0, 0.3)), np.asarray(ROBOT.home))
    limits = ROBOT.limits
    assert np.all(joints >= limits.lower[:-1]) and np.all(joints <= limits.upper[:-1])
    assert ROBOT.transform_tcp_to_base(joints)[0, 3] > 0.7


def test_the_servo_follows_a_ramp_with_a_lag_of_20_ms():
    env = LiftEnv()
    env.reset(seed=0)
    start = env.simulation.last_command
    speed = np.append(np.array([0.4, 0.2, -0.4, 0.4, 0.8, 0.8, 0.8]), -0.05)
    for k in range(1, 61):
        env.command(start + speed * (k / 100))
    lag = (env.simulation.last_command - env.simulation.measured())[:-1] / speed[:-1]
    assert np.all(lag < 0.02)
    for _ in range(30):
        env.command(env.simulation.last_command)
    np.testing.assert_allclose(env.simulation.measured(), env.simulation.last_command, atol=1e-3)


def test_negative_expert_noise_is_refused():
    with pytest.raises(ConfigError, match="noise"):
        LiftExpert(noise=-0.01)
