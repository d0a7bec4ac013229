"""Every robot file: limits are sane, sources are named, and the MJCF of the same name agrees with it."""

from __future__ import annotations

import numpy as np
import pytest

from robopolicy import robots

ROBOTS = robots.names()


@pytest.mark.parametrize("name", ROBOTS)
def test_limits_are_sane_and_the_source_is_given(name):
    robot = robots.load(name)
    limits = robot.limits
    assert robot.name == name
    assert robot.source.strip()
    assert len(set(robot.joint_names)) == len(robot.joints)
    assert np.all(limits.lower < limits.upper)
    for bound in (limits.velocity, limits.acceleration, limits.jerk):
        assert np.all(np.isfinite(bound)) and np.all(bound > 0)
    assert np.all(limits.lower[:-1] > -2 * np.pi) and np.all(limits.upper[:-1] < 2 * np.pi)
    home = np.asarray(robot.home)
    assert np.all(limits.lower[:-1] < home) and np.all(home < limits.upper[:-1])


@pytest.mark.parametrize("name", ROBOTS)
def test_home_is_inside_the_workspace(name):
    robot = robots.load(name)
    position = robot.transform_tcp_to_base(np.asarray(robot.home))[:3, 3]
    assert np.all(position > robot.workspace_lower) and np.all(position < robot.workspace_upper)


@pytest.fixture(params=ROBOTS)
def simulated(request):
    """(robot, model, data) of a robot that has an MJCF."""
    mujoco = pytest.importorskip("mujoco", reason="the simulator is not installed")
    sim_robots = pytest.importorskip("robopolicy_sim.robots", reason="the simulator is not installed")
    if request.param not in sim_robots.names():
        pytest.skip(f"{request.param} has no MJCF")
    model = mujoco.MjModel.from_xml_path(str(sim_robots.mjcf_path(request.param)))
    return robots.load(request.param), model, mujoco.MjData(model)


def test_mjcf_has_the_same_joints_and_limits(simulated):
    robot, model, _ = simulated
    for joint in robot.joints:
        simulated_joint, actuator = model.joint(joint.name), model.actuator(joint.name)
        assert simulated_joint.range == pytest.approx((joint.lower, joint.upper), abs=1e-12)
        assert model.jnt_actfrcrange[simulated_joint.id] == pytest.approx((-joint.effort, joint.effort))
        assert actuator.forcerange == pytest.approx((-joint.effort, joint.effort))
        assert actuator.ctrlrange == pytest.approx((joint.lower, joint.upper), abs=1e-12)
        assert simulated_joint.axis == pytest.approx((0, 0, 1))
    gripper = model.actuator(robot.gripper.name)
    assert gripper.ctrlrange == pytest.approx((0.0, robot.gripper.opening_max))
    assert gripper.forcerange == pytest.approx((-robot.gripper.force, robot.gripper.force))


def test_mjcf_has_the_same_kinematics(simulated):
    import mujoco

    robot, model, data = simulated
    limits, size = robot.limits, len(robot.joints)
    rng = np.random.default_rng(0)
    for _ in range(100):
        joints = rng.uniform(limits.lower[:size], limits.upper[:size])
        for name, angle in zip(robot.joint_names, joints, strict=True):
            data.joint(name).qpos[0] = angle
        mujoco.mj_kinematics(model, data)
        pose = robot.transform_tcp_to_base(joints)
        tool = data.site(f"{robot.name}_tcp")
        np.testing.assert_allclose(tool.xpos, pose[:3, 3], atol=1e-9)
        np.testing.assert_allclose(tool.xmat.reshape(3, 3), pose[:3, :3], atol=1e-9)


def test_mjcf_closes_and_opens_its_fingers_around_the_tool_point(simulated):
    import mujoco

    robot, model, data = simulated
    pads = [data.geom(f"{robot.name}_pad_{side}") for side in ("left", "right")]
    thickness = float(model.geom(f"{robot.name}_pad_left").size[1])
    for opening in (0.0, robot.gripper.opening_max):
        for i in (1, 2):
            data.joint(f"{robot.name}_finger_joint{i}").qpos[0] = opening / 2
        mujoco.mj_kinematics(model, data)
        left, right = (pad.xpos for pad in pads)
        assert np.linalg.norm(left - right) - 2 * thickness == pytest.approx(opening, abs=1e-9)
        np.testing.assert_allclose((left + right) / 2, data.site(f"{robot.name}_tcp").xpos, atol=1e-9)


def test_mjcf_masses_are_those_of_a_real_arm(simulated):
    _, model, _ = simulated
    moving = model.body_mass[1:]
    assert 3.0 < moving.sum() < 40.0
    assert np.all(model.body_inertia[model.body_mass > 0] > 0)
