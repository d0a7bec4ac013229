"""A user's own arm by the path of its model: two made-up ones, and everything that can be wrong with one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulator is not installed")
pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

import mujoco

from robopolicy import robots as robot_files
from robopolicy.core.errors import UnknownNameError
from robopolicy.core.geometry import matrix_from_rpy
from robopolicy_sim import robots
from robopolicy_sim.errors import ModelError
from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.robots.foreign.numbers import rpy_from_matrix
from robopolicy_sim.tasks.lift import LiftEnv

MODELS = Path(__file__).parents[1] / "data" / "robots"
SIX, SEVEN = MODELS / "six_axis.xml", MODELS / "seven_axis.urdf"
BOTH = pytest.mark.parametrize("path", [SIX, SEVEN], ids=["mjcf", "urdf"])


@pytest.fixture
def changed(tmp_path):
    """Writes a changed copy of a model, and perhaps a YAML beside it; returns its path."""

    def write(path: Path, *replacements: tuple[str, str], yaml: str = "") -> Path:
        text = path.read_text()
        for old, new in replacements:
            assert old in text, f"{old!r} is not in {path.name}"
            text = text.replace(old, new)
        copy = tmp_path / path.name
        copy.write_text(text)
        if yaml:
            copy.with_suffix(".yaml").write_text(yaml)
        return copy

    return write


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        robots.load(path)
    assert path.stem in str(caught.value)
    return str(caught.value)


def poses(arm, number=50):
    """(joints, pose by the robot's numbers, pose in the model) at random."""
    robot, model = arm.robot, arm.spec().compile()
    data, limits, rng = mujoco.MjData(model), arm.robot.limits, np.random.default_rng(0)
    for _ in range(number):
        joints = rng.uniform(limits.lower[:-1], limits.upper[:-1])
        for name, angle in zip(robot.joint_names, joints, strict=True):
            data.joint(name).qpos[0] = angle
        mujoco.mj_kinematics(model, data)
        site = data.site(f"{robot.name}_tcp")
        yield joints, robot.transform_tcp_to_base(joints), (site.xpos.copy(), site.xmat.reshape(3, 3).copy())


# What is read.


@BOTH
def test_the_numbers_describe_the_model(path):
    arm = robots.load(path)
    for _, pose, (position, rotation) in poses(arm):
        np.testing.assert_allclose(pose[:3, 3], position, atol=1e-9)
        np.testing.assert_allclose(pose[:3, :3], rotation, atol=1e-9)


def test_an_mjcf_gives_its_ranges_efforts_and_names():
    robot = robots.load(str(SIX)).robot
    assert robot.name == "six_axis" and robot.base_frame == "pedestal" and robot.redundant_joint == ""
    assert robot.joint_names == ("yaw", "shoulder", "elbow", "roll", "pitch", "turn")
    np.testing.assert_allclose(np.degrees(robot.limits.lower[:-1]), [-170, -110, -120, -175, -125, -350])
    assert [j.effort for j in robot.joints] == [120.0, 120.0, 90.0, 30.0, 30.0, 30.0]  # the gear is 2
    assert {j.velocity for j in robot.joints} == {1.5}
    assert "velocity 1.5 rad/s" in robot.source and "our parallel gripper" in robot.source
    assert robot.gripper == robot_files.load("ur5e").gripper


def test_a_urdf_gives_its_speeds_and_its_gripper():
    arm = robots.load(SEVEN)
    robot = arm.robot
    assert robot.name == "seven_axis" and robot.base_frame == "base_link" and robot.redundant_joint == "j3"
    np.testing.assert_allclose([j.velocity for j in robot.joints], [2.0, 2.0, 2.5, 2.5, 3.0, 3.0, 3.0])
    np.testing.assert_allclose([j.effort for j in robot.joints], [90, 90, 60, 60, 25, 25, 25])
    assert "velocity" not in robot.source
    assert robot.gripper.opening_max == pytest.approx(0.08)
    assert robot.gripper.velocity == pytest.approx(0.12) and robot.gripper.force == pytest.approx(60.0)


def test_a_urdf_keeps_inertia_and_damping():
    arm = robots.load(SEVEN)
    model = arm.spec().compile()
    bodies = [model.jnt_bodyid[model.joint(name).id] for name in arm.robot.joint_names]
    np.testing.assert_allclose(model.body_mass[bodies], [2.5, 2.5, 2.0, 2.0, 1.5, 1.0, 0.4])
    dofs = [model.joint(name).dofadr[0] for name in arm.robot.joint_names]
    np.testing.assert_allclose(model.dof_damping[dofs], 0.7)
    np.testing.assert_allclose(model.dof_frictionloss[dofs], 0.2)
    assert model.ngeom > 0 and set(model.geom_group) == {0, 1, 3}  # felt, seen, felt beneath what is seen


def test_fingers_that_slide_the_other_way_open_the_same_way():
    arm = robots.load(SEVEN)
    model = arm.spec().compile()
    data, boxes = mujoco.MjData(model), []
    for finger in arm.finger_joints:
        body = model.jnt_bodyid[model.joint(finger).id]
        boxes.append(int(np.flatnonzero(model.geom_bodyid == body)[0]))
    for opening in (0.0, 0.03, 0.08):
        for finger in arm.finger_joints:
            data.joint(finger).qpos[0] = opening / 2
        mujoco.mj_kinematics(model, data)
        gap = mujoco.mj_geomDistance(model, data, *boxes, 1.0, None)
        assert gap == pytest.approx(opening, abs=1e-6)
        tool = data.site("seven_axis_tcp")
        local = tool.xmat.reshape(3, 3).T @ (data.geom_xpos[boxes] - tool.xpos).T
        np.testing.assert_allclose(np.abs(local[1]), opening / 2 + 0.01, atol=1e-6)  # along the tool's y


def test_the_opening_is_what_fits_between_the_fingers(changed):
    """Fingers that would overlap at the end of their travel read zero where they touch, as a gripper does."""
    thick = changed(SEVEN, ('size="0.02 0.02 0.07"', 'size="0.02 0.04 0.07"'))
    assert robots.load(thick).robot.gripper.opening_max == pytest.approx(0.06)


@BOTH
def test_the_rest_posture_points_the_tool_down_over_the_table(path):
    robot = robots.load(path).robot
    pose = robot.transform_tcp_to_base(np.asarray(robot.home))
    np.testing.assert_allclose(pose[:3, 3], (0.45, 0.0, 0.3), atol=2e-3)
    np.testing.assert_allclose(pose[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=1e-3)
    assert "home by inverse kinematics" in robot.source


def test_a_keyframe_called_home_is_the_rest_posture(changed):
    angles = (0.0, 0.2, -0.1, 0.0, -1.6, 0.5)
    qpos = " ".join(map(str, (2, 0, 0.1, 1, 0, 0, 0, *angles)))  # the loose thing's, then the arm's
    key = f'<keyframe><key name="home" qpos="{qpos}"/></keyframe></mujoco>'
    robot = robots.load(changed(SIX, ("</mujoco>", key))).robot
    assert robot.home == pytest.approx(angles)
    pose = robot.transform_tcp_to_base(np.asarray(robot.home))
    away = np.arctan2(pose[1, 3], pose[0, 3])
    assert np.arctan2(pose[1, 0], pose[0, 0]) == pytest.approx(away)  # the gripper was screwed on to fit


def test_rotations_become_roll_pitch_and_yaw():
    rng = np.random.default_rng(0)
    angles = [*rng.uniform(-np.pi, np.pi, (50, 3)), (0.3, np.pi / 2, 0.4), (0.3, -np.pi / 2, 0.4)]
    for rpy in angles:
        rotation = matrix_from_rpy(rpy)
        np.testing.assert_allclose(matrix_from_rpy(rpy_from_matrix(rotation)), rotation, atol=1e-9)


# What is done with it.


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_the_lift_expert_works_with_it(path, seed):
    env, expert = LiftEnv(robot=str(path)), LiftExpert()
    env.reset(seed=seed)
    expert.reset(env)
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(expert.act())
        done = terminated or truncated
    assert info["is_success"]


def test_an_environment_speaks_of_it_by_name():
    env = LiftEnv(robot=str(SEVEN), action_space="ee_pose")
    assert env.specs.robot == "seven_axis"
    assert env.specs.action.parts[0].frame == "base_link"
    assert env.specs.observation["joint_position"].names == tuple(f"j{i}" for i in range(1, 8))


@BOTH
def test_added_servos_are_stiff_and_gravity_is_compensated(path):
    env = LiftEnv(robot=str(path))
    env.reset(seed=0)
    start, size = env.simulation.last_command, len(env.robot.joints)
    speed = np.append(np.full(size, 0.2), 0.0)
    for k in range(1, 51):
        env.command(start + speed * (k / 100))
    lag = (env.simulation.last_command - env.simulation.measured())[:size] / 0.2
    assert np.all(lag < 0.04)
    for _ in range(50):
        env.command(env.simulation.last_command)
    np.testing.assert_allclose(
        env.simulation.measured()[:size], env.simulation.last_command[:size], atol=2e-3
    )


@BOTH
def test_the_wrist_camera_looks_at_the_tool_point(path):
    arm = robots.load(path)
    model = arm.spec().compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    camera, tool = data.camera("wrist_camera"), data.site(f"{arm.robot.name}_tcp")
    x, y, z = camera.xmat.reshape(3, 3).T @ (tool.xpos - camera.xpos)
    half = np.tan(np.radians(75 / 2))
    assert z < -0.05 and abs(x / z) < half and abs(y / z) < half


def test_nothing_of_the_users_scene_comes_along():
    model = LiftEnv(robot=str(SIX)).simulation.model
    names = [model.body(i).name for i in range(model.nbody)]
    assert "six_axis/cube" in names and "cube" in names and "six_axis/loose" not in names
    assert model.opt.timestep == 0.002 and model.nsensor == 0
    planes = [i for i in range(model.ngeom) if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_PLANE]
    assert [model.geom(i).name for i in planes] == ["floor"]


def servos(path):
    model = robots.load(path).spec().compile()
    return {model.actuator(i).name: model.actuator_gainprm[i, 0] for i in range(model.nu)}


def with_servos():
    names = ("yaw", "shoulder", "elbow", "roll", "pitch", "turn")
    lines = "".join(f'<position joint="{name}" kp="500" kv="40"/>' for name in names)
    motors = re.search("<actuator>.*</actuator>", SIX.read_text(), re.DOTALL)
    assert motors is not None
    return motors.group(), f"<actuator>{lines}</actuator>"


def test_position_actuators_are_kept_and_renamed(changed):
    gains = servos(changed(SIX, with_servos()))
    assert gains == {
        **dict.fromkeys(("yaw", "shoulder", "elbow", "roll", "pitch", "turn"), 500.0),
        "gripper_opening": 1500.0,
    }


def test_position_actuators_give_way_when_asked(changed):
    gains = servos(changed(SIX, with_servos(), yaml="servo: ours"))
    assert min(v for k, v in gains.items() if k != "gripper_opening") > 500.0


def test_gravity_is_felt_when_asked(changed):
    for word, total in (("compensated", 1.0), ("felt", 0.0)):
        path = changed(SIX, with_servos(), yaml=f"gravity: {word}")
        model = robots.load(path).spec().compile()
        body = model.jnt_bodyid[model.joint("shoulder").id]
        assert model.body_gravcomp[body] == total


# What the YAML beside it can say.


def test_a_yaml_beside_it_has_the_last_word(changed):
    yaml = """
name: my_arm
home: [0.1, 0.2, -0.1, 0.0, -1.6, 0.0]
limits:
  all: {acceleration: 3.0}
  elbow: {lower: -1.0, velocity: 0.5, acceleration: 2.0, effort: 77}
names: {yaw: joint_a}
workspace: {lower: [0.2, -0.3, 0.0], upper: [0.7, 0.3, 0.5]}
"""
    arm = robots.load(changed(SIX, yaml=yaml))
    robot = arm.robot
    assert robot.name == "my_arm" and robot.joint_names[0] == "joint_a"
    assert robot.home == (0.1, 0.2, -0.1, 0.0, -1.6, 0.0)
    elbow = robot.joints[2]
    assert (elbow.lower, elbow.velocity, elbow.acceleration, elbow.effort) == (-1.0, 0.5, 2.0, 77.0)
    assert robot.joints[0].acceleration == 3.0 and robot.workspace_upper == (0.7, 0.3, 0.5)
    model = arm.spec().compile()
    assert model.joint("elbow").range[0] == pytest.approx(-1.0)  # the file counts in degrees
    assert model.actuator("elbow").forcerange == pytest.approx((-77.0, 77.0))


def test_a_mount_turns_and_moves_the_whole_arm(changed):
    plain, turned = robots.load(SIX).robot, robots.load(changed(SIX, yaml="mount_xyz: [0.1, 0, 0]")).robot
    joints = np.zeros(6)
    moved = turned.transform_tcp_to_base(joints) - plain.transform_tcp_to_base(joints)
    np.testing.assert_allclose(moved[:3, 3], (0.1, 0.0, 0.0), atol=1e-9)
    turned_arm = robots.load(changed(SIX, yaml="mount_rpy: [0, 0, 0.5]"))
    for _, pose, (position, rotation) in poses(turned_arm, 5):
        np.testing.assert_allclose(pose[:3, 3], position, atol=1e-9)
        np.testing.assert_allclose(pose[:3, :3], rotation, atol=1e-9)


def test_a_gripper_can_be_swapped_for_ours(changed):
    path = changed(SEVEN, yaml="gripper: ours\nflange: {at: link7, xyz: [0, 0, 0.05]}")
    arm = robots.load(path)
    assert arm.robot.gripper.opening_max == 0.085
    model = arm.spec().compile()
    names = [model.body(i).name for i in range(model.nbody)]
    assert not any("finger" in n and n.startswith("seven_axis/") for n in names)
    assert "seven_axis/palm" not in names and "seven_axis_hand" in names


def test_a_robot_of_ours_keeps_its_name(changed):
    path = changed(SIX, ('model="six axis"', 'model="ur5e"'))
    assert robots.load(path).robot.name == "ur5e_by_path"


# What can be wrong.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed: 3", r"unknown fields \['speed'\]; known: .*'home'"),
        ("limits: {elbow: {velocty: 1}}", r"limits.elbow: unknown fields \['velocty'\]"),
        ("limits: {knee: {velocity: 1}}", r"unknown joints \['knee'\]; the arm's are .*'elbow'"),
        ("limits: {elbow: {velocity: 0}}", "elbow: limits must be positive"),
        ("limits: {elbow: {lower: 3}}", "lower limit 3.0 is not below the upper"),
        ("names: {knee: a}", r"unknown joints \['knee'\]"),
        ("names: {elbow: yaw}", "the same name"),
        ("home: [0, 0]", "six_axis has 6 joints, its home 2 angles"),
        ("home: [0, 9, 0, 0, 0, 0]", "home of shoulder is 9.0"),
        ("home: [a]", "expected float, got 'a'"),
        ("gripper: none", r"'none' is not one of \('found', 'ours'\)"),
        ("servo: mine", r"'mine' is not one of \('found', 'ours'\)"),
        ("tool: {at: tip}", "no site, body or link 'tip'; the model has sites attachment_site"),
        ("flange: {at: pedestal}", "flange 'pedestal' is not beyond joint turn"),
        ("redundant_joint: knee", "redundant joint 'knee'"),
        ("{", "six_axis.yaml"),
        ("- 1", "expected a mapping"),
    ],
)
def test_a_wrong_yaml_is_refused_by_key(changed, text, said):
    assert re.search(said, refused(changed(SIX, yaml=text)), re.DOTALL)


MJCF_FAULTS = {
    "no tool": (
        [('name="attachment_site"', 'name="end"')],
        "Add a site 'tcp'.*sites end and bodies loose, pedestal",
    ),
    "no range": ([('range="-175 175"', 'limited="false"')], "without a range: roll.*limits: {roll: {lower"),
    "ball": ([('name="roll" axis="1 0 0" range="-175 175"', 'name="roll" type="ball"')], "roll is a ball"),
    "slide": (
        [('name="elbow" axis="0 1 0" range="-120 130" ref="10"', 'name="elbow" type="slide" range="0 1"')],
        "elbow is a sliding joint",
    ),
    "floating": ([('<body name="pedestal">', '<body name="pedestal"><freejoint name="f"/>')], "fixed base"),
    "branch": (
        [
            (
                '<body name="forearm"',
                '<body name="other"><joint name="second"/><geom size="0.1"/></body><body name="forearm"',
            )
        ],
        "joints second branch off",
    ),
    "jaw": (
        [
            (
                '<site name="attachment_site"',
                '<body name="jaw"><joint name="bite" range="0 60"/><geom size="0.01"/></body>'
                '<site name="attachment_site"',
            )
        ],
        "beyond the flange are bite.*gripper: ours",
    ),
    "coupled": (
        [("</actuator>", '</actuator><equality><joint joint1="roll" joint2="pitch"/></equality>')],
        "equality holds joint",
    ),
    "tendon": (
        [
            (
                "</actuator>",
                '</actuator><tendon><fixed name="t"><joint joint="yaw" coef="1"/></fixed></tendon>',
            )
        ],
        "tendon t pulls at a joint",
    ),
    "mesh": (
        [("<asset>", '<asset><mesh name="m" file="shell.stl"/>')],
        "files that are not there: shell.stl",
    ),
    "unknown element": ([("<asset>", "<asset><sauce/>")], "sauce"),
    "another kind": ([("<mujoco model", "<scene model"), ("</mujoco>", "</scene>")], "starts with <scene>"),
    "not xml": ([("</mujoco>", "")], "is not XML"),
    "tiny": ([('pos="0 -0.02 0.33"', 'pos="0 0 9"')], "no posture found.*home: "),
}


@pytest.mark.parametrize("fault", MJCF_FAULTS)
def test_an_mjcf_that_lacks_something_says_what(changed, fault):
    replacements, said = MJCF_FAULTS[fault]
    assert re.search(said, refused(changed(SIX, *replacements)), re.DOTALL)


URDF_FAULTS = {
    "no tool between the fingers": (
        [('name="hand_tcp"', 'name="tool0"'), ('link="hand_tcp"', 'link="tool0"')],
        "tcp",
    ),
    "collision mesh": (
        [('<box size="0.05 0.14 0.04"/>', '<mesh filename="package://nowhere/palm.stl"/>')],
        "not there.*package://nowhere/palm.stl",
    ),
    "continuous": ([('name="j5" type="revolute"', 'name="j5" type="continuous"')], "j5"),
    "xacro": ([('<robot name="seven_axis">', '<robot name="a" xmlns:x="http://xacro"><x:arg/>')], "xacro"),
    "a link twice": ([('link name="link3"', 'link name="link2"')], "seven_axis.urdf"),
    "tool askew": (
        [('rpy="0 0 -0.7853981633974483"', 'rpy="0 1.5708 0"')],
        "must point out of the gripper.*tool: {at: NAME, rpy",
    ),
    "one finger": (
        [('name="right_slide" type="prismatic"', 'name="right_slide" type="fixed"'), ("<mimic", "<x")],
        "a gripper is two sliding fingers",
    ),
}


@pytest.mark.parametrize("fault", URDF_FAULTS)
def test_a_urdf_that_lacks_something_says_what(changed, fault):
    replacements, said = URDF_FAULTS[fault]
    assert re.search(said, refused(changed(SEVEN, *replacements)), re.DOTALL)


def test_a_mesh_is_found_by_its_package(changed, tmp_path):
    stl = b"\0" * 80 + (4).to_bytes(4, "little")
    corners = np.array([[0, 0, 0], [0.05, 0, 0], [0, 0.05, 0], [0, 0, 0.05]], dtype="<f4")
    for face in ((0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3)):
        stl += np.zeros(3, "<f4").tobytes() + corners[list(face)].tobytes() + b"\0\0"
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "palm.stl").write_bytes(stl)
    mesh = ('<box size="0.05 0.14 0.04"/>', '<mesh filename="package://shapes/palm.stl"/>')
    assert robots.load(changed(SEVEN, mesh)).spec().compile().nmesh == 1


def test_a_picture_mujoco_cannot_draw_is_left_out(changed):
    shown = re.search(r"<visual>.*?</visual>", SEVEN.read_text(), re.DOTALL)
    assert shown is not None
    picture = '<visual><geometry><mesh filename="package://nowhere/base.dae"/></geometry></visual>'
    assert robots.load(changed(SEVEN, (shown.group(), picture))).robot.name == "seven_axis"


def test_a_joint_named_as_a_thing_of_the_task_is_refused(changed):
    path = changed(SIX, ('name="yaw"', 'name="cube"'), ('joint="yaw"', 'joint="cube"'))
    with pytest.raises(ModelError, match=r"lift\.xml with .*six_axis\.xml.*repeated name 'cube'"):
        LiftEnv(robot=str(path))


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path):
    with pytest.raises(ModelError, match=r"no robot model .*arm\.urdf"):
        robots.load(tmp_path / "arm.urdf")
    with pytest.raises(UnknownNameError, match=r"'nope'; known: a path to .*fr3, ur5e"):
        robots.load("nope")
    with pytest.raises(UnknownNameError):
        robot_files.load(str(SIX))  # robot files are ours; a user's arm is the simulator's


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00nonsense", b"<mujoco>" + b"\0" * 40, b"<robot/>", b"<mujoco/>"]
)
@pytest.mark.parametrize("suffix", [".xml", ".urdf"])
def test_rubbish_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"arm{suffix}"
    path.write_bytes(content)
    refused(path)
