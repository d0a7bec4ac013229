"""Every robot file: limits are sane, sources are named, and the MJCF of the same name is that robot."""

from __future__ import annotations

import numpy as np
import pytest

from robopolicy import robots
from robopolicy.core.geometry import (
    matrix_from_quat_wxyz,
    matrix_from_rpy,
    pose_9d_from_transform,
    segment_distance,
    transform,
)
from robopolicy.core.kinematics import Kinematics
from robopolicy.runtime import SafetyConfig

ROBOTS = robots.names()
#: Where tables are worked on: radius from the base and height of the tool [m], its turn from outwards [rad].
REACH, HEIGHT, TURN = (0.3, 0.7), (0.01, 0.4), np.pi / 4


@pytest.mark.parametrize("name", ROBOTS)
def test_limits_are_sane_and_the_source_is_given(name):
    robot = robots.load(name)
    limits = robot.limits
    assert robot.name == name
    assert robot.source.strip() and robot.base_frame.strip()
    assert len(set(robot.joint_names)) == len(robot.joints)
    assert np.all(limits.lower < limits.upper)
    for bound in (limits.velocity, limits.acceleration, limits.jerk):
        assert np.all(np.isfinite(bound)) and np.all(bound > 0)
    assert np.all(limits.lower[:-1] >= -2 * np.pi) and np.all(limits.upper[:-1] <= 2 * np.pi)
    home = np.asarray(robot.home)
    assert np.all(limits.lower[:-1] < home) and np.all(home < limits.upper[:-1])


@pytest.mark.parametrize("name", ROBOTS)
def test_at_home_the_tool_points_down_inside_the_workspace(name):
    robot = robots.load(name)
    pose = robot.transform_tcp_to_base(np.asarray(robot.home))
    assert np.all(pose[:3, 3] > robot.workspace_lower) and np.all(pose[:3, 3] < robot.workspace_upper)
    np.testing.assert_allclose(pose[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=1e-3)


@pytest.mark.parametrize("name", ROBOTS)
def test_the_module_names_the_makers_documents(name):
    module = __import__(f"robopolicy.robots.{name}", fromlist=["__doc__"])
    assert "Sources:" in module.__doc__ and "chosen here" in module.__doc__


@pytest.fixture(params=ROBOTS)
def arm(request):
    """A robot that has an MJCF."""
    pytest.importorskip("mujoco", reason="the simulator is not installed")
    sim_robots = pytest.importorskip("robopolicy_sim.robots", reason="the simulator is not installed")
    if request.param not in sim_robots.names():
        pytest.skip(f"{request.param} has no MJCF")
    return sim_robots.load(request.param)


@pytest.fixture
def simulated(arm):
    """(robot, model, data)."""
    import mujoco

    model = arm.spec().compile()
    return arm.robot, model, mujoco.MjData(model)


@pytest.fixture
def at_work(arm):
    """(simulation, arm) with a table."""
    from robopolicy_sim.scene import compose
    from robopolicy_sim.simulation import Simulation
    from robopolicy_sim.tasks.lift import LiftEnv

    simulation = Simulation(compose(LiftEnv.mjcf, arm), arm)
    simulation.reset(np.append(arm.robot.home, arm.robot.gripper.opening_max))
    return simulation, arm


def tool_down_poses(robot, number, seed=0):
    """Poses of the tool over the table, as tasks ask for them."""
    rng = np.random.default_rng(seed)
    poses = []
    while len(poses) < number:
        radius, azimuth = rng.uniform(*REACH), rng.uniform(-1.2, 1.2)
        place = (radius * np.cos(azimuth), radius * np.sin(azimuth), rng.uniform(*HEIGHT))
        if np.all(np.greater(place, robot.workspace_lower)) and np.all(np.less(place, robot.workspace_upper)):
            yaw = azimuth + rng.uniform(-TURN, TURN)
            poses.append(transform(matrix_from_rpy((np.pi, 0.0, yaw)), place))
    return poses


def set_joints(data, robot, joints):
    for name, angle in zip(robot.joint_names, joints, strict=True):
        data.joint(name).qpos[0] = angle


def test_mjcf_has_the_same_joints_and_limits(simulated):
    robot, model, _ = simulated
    for joint in robot.joints:
        simulated_joint, actuator = model.joint(joint.name), model.actuator(joint.name)
        assert simulated_joint.range == pytest.approx((joint.lower, joint.upper), abs=1e-12)
        assert model.jnt_actfrcrange[simulated_joint.id] == pytest.approx((-joint.effort, joint.effort))
        assert actuator.forcerange == pytest.approx((-joint.effort, joint.effort))
        assert actuator.ctrlrange == pytest.approx((joint.lower, joint.upper), abs=1e-12)
        assert simulated_joint.axis == pytest.approx((0, 0, 1))
        body = model.jnt_bodyid[simulated_joint.id]
        assert model.body_pos[body] == pytest.approx(joint.origin_xyz, abs=1e-12)
        rotation = matrix_from_quat_wxyz(model.body_quat[body])
        np.testing.assert_allclose(rotation, matrix_from_rpy(joint.origin_rpy), atol=1e-12)
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
        set_joints(data, robot, joints)
        mujoco.mj_kinematics(model, data)
        pose = robot.transform_tcp_to_base(joints)
        tool = data.site(f"{robot.name}_tcp")
        np.testing.assert_allclose(tool.xpos, pose[:3, 3], atol=1e-9)
        np.testing.assert_allclose(tool.xmat.reshape(3, 3), pose[:3, :3], atol=1e-9)


def test_mjcf_closes_and_opens_its_fingers_around_the_tool_point(simulated, arm):
    import mujoco

    robot, model, data = simulated
    pads = [data.geom(f"{robot.name}_pad_{side}") for side in ("left", "right")]
    thickness = float(model.geom(f"{robot.name}_pad_left").size[1])
    for opening in (0.0, robot.gripper.opening_max):
        for finger in arm.finger_joints:
            data.joint(finger).qpos[0] = opening / 2
        mujoco.mj_kinematics(model, data)
        left, right = (pad.xpos for pad in pads)
        assert np.linalg.norm(left - right) - 2 * thickness == pytest.approx(opening, abs=1e-9)
        tool = data.site(f"{robot.name}_tcp")
        np.testing.assert_allclose((left + right) / 2, tool.xpos, atol=1e-9)
    along = tool.xmat.reshape(3, 3).T @ (left - right)
    np.testing.assert_allclose(along[[0, 2]], 0.0, atol=1e-9)  # the fingers open along the tool's y axis


def test_mjcf_masses_are_those_of_a_real_arm(simulated):
    _, model, _ = simulated
    moving = model.body_mass[1:]
    assert 3.0 < moving.sum() < 40.0
    assert np.all(model.body_inertia[model.body_mass > 0] > 0)


def test_the_wrist_camera_sees_both_fingertips(simulated, arm):
    import mujoco

    robot, model, data = simulated
    for opening in (0.0, robot.gripper.opening_max):
        for finger in arm.finger_joints:
            data.joint(finger).qpos[0] = opening / 2
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        camera = data.camera("wrist_camera")
        half = np.tan(np.radians(float(np.ravel(model.camera("wrist_camera").fovy)[0]) / 2))
        for side in ("left", "right"):
            x, y, z = camera.xmat.reshape(3, 3).T @ (data.geom(f"{robot.name}_pad_{side}").xpos - camera.xpos)
            assert z < 0 and abs(x / z) < half and abs(y / z) < half


def test_the_arm_stands_still_under_gravity(at_work):
    simulation, arm = at_work
    for pose in tool_down_poses(arm.robot, 3, seed=1):
        command = np.append(inverse(arm).solve(pose, np.asarray(arm.robot.home)), 0.03)
        simulation.reset(command)
        for _ in range(100):
            simulation.tick(command)
        np.testing.assert_allclose(simulation.measured()[:-1], command[:-1], atol=2e-4)
        assert simulation.measured()[-1] == pytest.approx(0.03, abs=5e-4)


def test_the_servos_follow_a_ramp_with_little_lag_and_do_not_swing(at_work):
    simulation, arm = at_work
    start, speed = simulation.last_command, np.append(0.15 * arm.robot.limits.velocity[:-1], 0.0)
    for k in range(1, 61):
        simulation.tick(start + speed * (k / 100))
    held = simulation.last_command
    lag = (held - simulation.measured())[:-1] / speed[:-1]
    assert np.all(lag > 0.0) and np.all(lag < 0.03)
    path = []
    for _ in range(40):
        simulation.tick(held)
        path.append(simulation.measured()[:-1])
    swing = (np.max(path, axis=0) - held[:-1]) / speed[:-1]
    assert np.all(swing < 0.01)  # [s] of the ramp
    np.testing.assert_allclose(path[-1], held[:-1], atol=1e-3)


def test_the_gripper_closes_at_its_speed_and_holds_its_opening(at_work):
    simulation, arm = at_work
    gripper, command = arm.robot.gripper, simulation.last_command.copy()
    ticks = int(np.ceil(100 * gripper.opening_max / gripper.velocity))
    for k in range(1, ticks + 31):
        command[-1] = gripper.opening_max * max(0.0, 1.0 - k / ticks)
        simulation.tick(command)
    assert simulation.measured()[-1] == pytest.approx(0.0, abs=5e-4)


def inverse(arm):
    from robopolicy_sim.kinematics import InverseKinematics

    return InverseKinematics(arm)


def test_inverse_kinematics_finds_every_posture_over_the_table(arm):
    robot, kinematics, limits = arm.robot, inverse(arm), arm.robot.limits
    for pose in tool_down_poses(robot, 500):
        joints = kinematics.solve(pose, np.asarray(robot.home))
        assert np.all(joints >= limits.lower[:-1]) and np.all(joints <= limits.upper[:-1])
        reached = robot.transform_tcp_to_base(joints)
        assert np.linalg.norm(reached[:3, 3] - pose[:3, 3]) < 1e-3
        assert np.linalg.norm(reached[:3, :3] - pose[:3, :3]) < 1e-3


def test_over_the_table_no_link_meets_another_or_the_table(at_work):
    import mujoco

    simulation, arm = at_work
    model, data, robot = simulation.model, simulation.data, arm.robot
    arm_bodies = {int(model.jnt_bodyid[model.joint(name).id]) for name in robot.joint_names}
    links = [g for g in range(model.ngeom) if model.body_weldid[model.geom_bodyid[g]] in arm_bodies]
    links = [g for g in links if model.geom_contype[g]]
    weld = {g: int(model.body_weldid[model.geom_bodyid[g]]) for g in links}
    order = {body: i for i, body in enumerate(sorted(arm_bodies))}
    pairs = [(a, b) for a in links for b in links if order[weld[b]] - order[weld[a]] > 1]
    pairs += [(g, model.geom("table").id) for g in links]
    for pose in tool_down_poses(robot, 25, seed=2):
        set_joints(data, robot, inverse(arm).solve(pose, np.asarray(robot.home)))
        mujoco.mj_kinematics(model, data)
        for a, b in pairs:
            assert mujoco.mj_geomDistance(model, data, a, b, 0.01, None) > 0.0, (a, b, pose)


def test_tool_poses_beside_singularities_move_no_joint_faster_than_it_may(arm):
    from robopolicy_sim.control import ActionConverter

    robot, rate = arm.robot, 10.0
    converter = ActionConverter(arm, "ee_pose", rate)
    command = np.append(robot.home, 0.0)
    for x in np.arange(robot.transform_tcp_to_base(np.asarray(robot.home))[0, 3], -0.3, -0.02):
        pose = transform(np.diag([1.0, -1.0, -1.0]), (x, 0.02, 0.35))  # back over the base
        before = command
        command = converter.command_from_action(np.append(pose_9d_from_transform(pose), 0.0), before)
        assert np.all(np.abs(command - before)[:-1] * rate <= robot.limits.velocity[:-1] + 1e-9)


def corners(model, data, geom, sides=24):
    """(n, 3) points all over the surface of a collision geom, its corners included, in the world [m]."""
    import mujoco

    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    turn = 2 * np.pi * np.arange(sides) / sides
    ring = np.column_stack([np.cos(turn), np.sin(turn)])
    if kind == int(mujoco.mjtGeom.mjGEOM_BOX):
        local = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size
    elif kind == int(mujoco.mjtGeom.mjGEOM_CYLINDER):
        local = np.vstack([np.column_stack([ring * size[0], np.full(sides, z)]) for z in (-size[1], size[1])])
    else:
        assert kind == int(mujoco.mjtGeom.mjGEOM_CAPSULE), kind
        local = []
        for tilt in np.linspace(-np.pi / 2, np.pi / 2, 13):
            level = np.column_stack([ring * np.cos(tilt), np.full(sides, np.sin(tilt))]) * size[0]
            local.append(level + np.array([0, 0, np.copysign(size[1], tilt)]))
        local = np.vstack(local)
    return local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]


def test_every_collision_geom_is_inside_one_capsule_of_its_part(simulated, arm):
    """In random postures, fingers closed and open; geoms are convex, so their corners are enough."""
    import mujoco

    robot, model, data = simulated
    rng, limits = np.random.default_rng(0), robot.limits
    fingers = {int(model.jnt_bodyid[model.joint(name).id]) for name in arm.finger_joints}
    geoms = np.flatnonzero(model.geom_contype)
    assert len(geoms) > len(robot.joints)
    for opening in (0.0, 0.4 * robot.gripper.opening_max, robot.gripper.opening_max):
        joints = rng.uniform(limits.lower[:-1], limits.upper[:-1])
        set_joints(data, robot, joints)
        for name in arm.finger_joints:
            data.joint(name).qpos[0] = opening / 2
        mujoco.mj_kinematics(model, data)
        kinematics = Kinematics(robot)
        ends = kinematics.capsules(kinematics.frames(joints[None]))[0]
        for geom in geoms:
            body = int(model.geom_bodyid[geom])
            part = "fingers" if body in fingers else model.body(body).name.removeprefix(f"{robot.name}_")
            points = corners(model, data, geom)
            inside = []
            for capsule, (start, end) in zip(robot.capsules, ends):
                if capsule.part == part:
                    assert capsule.tool == (body in fingers)
                    along = np.dot(end - start, end - start)
                    share = np.clip((points - start) @ (end - start) / max(along, 1e-12), 0, 1)
                    away = np.linalg.norm(points - start - share[:, None] * (end - start), axis=1)
                    inside.append(bool(np.all(away <= capsule.radius + 1e-9)))
            assert any(inside), (part, model.geom(geom).name, geom)


def test_capsules_keep_apart_over_the_table_and_at_home(arm):
    """Where the arm works no pair is closer than the filter's clearance, so that nothing is refused there."""
    robot, kinematics = arm.robot, Kinematics(arm.robot)
    poses = tool_down_poses(robot, 100, seed=3)
    postures = np.array([robot.home, *(inverse(arm).solve(pose, np.asarray(robot.home)) for pose in poses)])
    ends = kinematics.capsules(kinematics.frames(postures))
    config = SafetyConfig.for_robot(robot)
    for i, j in robot.pairs:
        apart = robot.capsules[i].radius + robot.capsules[j].radius + config.link_clearance
        names = robot.capsules[i].part, robot.capsules[j].part
        assert np.all(segment_distance(ends[:, i], ends[:, j]) >= apart), names


@pytest.mark.parametrize("name", ROBOTS)
def test_only_parts_that_are_joined_are_left_unchecked(name):
    """Every pair of ``touching`` overlaps somewhere, and most parts are checked against most others."""
    robot = robots.load(name)
    kinematics, rng = Kinematics(robot), np.random.default_rng(0)
    limits, parts = robot.limits, {capsule.part for capsule in robot.capsules}
    postures = rng.uniform(limits.lower[:-1], limits.upper[:-1], (500, len(robot.joints)))
    ends = kinematics.capsules(kinematics.frames(postures))
    for one, other in robot.touching:
        first = [k for k, c in enumerate(robot.capsules) if c.part == one]
        second = [k for k, c in enumerate(robot.capsules) if c.part == other]
        gaps = [
            segment_distance(ends[:, i], ends[:, j]) - robot.capsules[i].radius - robot.capsules[j].radius
            for i in first
            for j in second
        ]
        assert np.min(gaps) < 0.01, (one, other)
    assert len(set(robot.touching)) <= len(parts) + 1
