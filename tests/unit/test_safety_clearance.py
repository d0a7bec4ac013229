"""Workspace, walls, self-collision and tool speed, by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robopolicy.core.errors import ConfigError, ShapeError, SpecError
from robopolicy.core.geometry import segment_distance
from robopolicy.core.kinematics import Kinematics
from robopolicy.core.robot import Capsule, Robot
from robopolicy.robots import load
from robopolicy.runtime.safety.filter import SafetyConfig, SafetyFilter

ROBOTS = {name: load(name) for name in ("fr3", "ur5e")}
FR3 = ROBOTS["fr3"]


def home(robot: Robot) -> np.ndarray:
    return np.array([*robot.home, robot.gripper.opening_max / 2])


def clearances(robot: Robot, sent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each command the least height over z = 0 of fingers and of other parts, and gap of pairs [m]."""
    kinematics = Kinematics(robot)
    ends = kinematics.capsules(kinematics.frames(sent[:, : len(robot.joints)]))
    lowest = {True: np.full(len(sent), np.inf), False: np.full(len(sent), np.inf)}
    for i, capsule in enumerate(robot.capsules):
        if capsule.joint:
            height = ends[:, i, :, 2].min(axis=1) - capsule.radius
            lowest[capsule.tool] = np.minimum(lowest[capsule.tool], height)
    gap = np.full(len(sent), np.inf)
    for i, j in robot.pairs:
        apart = robot.capsules[i].radius + robot.capsules[j].radius
        gap = np.minimum(gap, segment_distance(ends[:, i], ends[:, j]) - apart)
    return lowest[True], lowest[False], gap


def drive(
    guard: SafetyFilter, goal: np.ndarray, seconds: float, hold: float = 0.0
) -> tuple[np.ndarray, set[str]]:
    """Ask for a goal within a time, and hold it; all commands and all reasons."""
    start, sent, reasons = guard.position, [guard.position], set()
    ticks = round(seconds * guard.control_rate)
    for k in range(1, ticks + round(hold * guard.control_rate) + 1):
        share = min(1.0, k / ticks)
        smooth = share**3 * (10 - 15 * share + 6 * share**2)
        command, why = guard.filter(start + smooth * (goal - start))
        sent.append(command)
        reasons |= set(why)
    return np.array(sent), reasons


def tools(sent: np.ndarray) -> np.ndarray:
    """(n, 3) tool centre points of the FR3 [m]."""
    return np.array([FR3.transform_tcp_to_base(command[:-1])[:3, 3] for command in sent])


#: How far each joint goes from home to press the tool into the table.
DOWN = {"fr3": {1: 1.6, 3: 0.4, 5: 1.2}, "ur5e": {1: 0.9}}


def lowered(name: str, share: float = 1.0) -> np.ndarray:
    joints = home(ROBOTS[name])
    for joint, angle in DOWN[name].items():
        joints[joint] += share * angle
    return joints


@pytest.mark.parametrize(("name", "rate"), [("fr3", 100.0), ("fr3", 500.0), ("ur5e", 100.0)])
def test_the_tool_is_held_over_the_table_and_leaves_again(name: str, rate: float) -> None:
    robot = ROBOTS[name]
    guard = SafetyFilter(robot.limits, rate, SafetyConfig.for_robot(robot))
    guard.reset(home(robot))
    sent, reasons = drive(guard, lowered(name), 1.5, hold=0.5)
    fingers, others, _ = clearances(robot, sent)
    assert fingers.min() >= -1e-6 and others.min() >= 0.01 - 1e-6
    assert min(fingers.min(), others.min() - 0.01) < 0.01 and "clearance" in reasons
    sent, _ = drive(guard, home(robot), 1.5, hold=0.5)
    assert np.abs(sent[-1] - home(robot)).max() < 1e-9


def test_fingers_may_come_within_millimetres_of_the_table() -> None:
    """Pads 5 mm above it, as for grasping: 14 mm below the tool centre point, at any opening."""
    pytest.importorskip("mujoco", reason="the simulator is not installed")
    from robopolicy_sim.kinematics import InverseKinematics
    from robopolicy_sim.robots import load as simulated

    for name, tip in (("fr3", 0.009), ("ur5e", 0.0108)):
        robot, inverse = ROBOTS[name], InverseKinematics(simulated(name))
        pose = robot.transform_tcp_to_base(np.asarray(robot.home))
        joints, height = np.asarray(robot.home), float(pose[2, 3])
        guard = SafetyFilter(robot.limits, 100.0, SafetyConfig.for_robot(robot))
        guard.reset(home(robot))
        for k in range(1, 301):
            share = k / 300
            pose[2, 3] = height + (tip + 0.005 - height) * share**3 * (10 - 15 * share + 6 * share**2)
            joints = inverse.solve(pose, joints)
            command, reasons = guard.filter(np.append(joints, robot.gripper.opening_max / 2))
            assert reasons == (), (name, k, pose[2, 3])
        assert guard.position[-1] == command[-1]


def test_an_arm_folded_into_itself_is_stopped() -> None:
    """The hand towards the base, its fingers towards the first links; in a workspace that allows it."""
    roomy = dataclasses.replace(FR3, workspace_lower=(-1.0, -1.0, -1.0), workspace_upper=(1.0, 1.0, 2.0))
    guard = SafetyFilter(FR3.limits, 100.0, SafetyConfig.for_robot(roomy))
    guard.reset(home(FR3))
    folded = home(FR3)
    folded[[1, 3, 5]] = -0.6, -2.99, 0.6
    assert clearances(FR3, folded[None])[2] < 0.0
    sent, reasons = drive(guard, folded, 2.0, hold=1.0)
    assert "self_collision" in reasons and guard.at_rest
    assert 0.01 - 1e-6 <= clearances(FR3, sent)[2].min() < 0.015


def test_an_elbow_is_kept_inside_a_box() -> None:
    """The hand goes to the left, the elbow would swing out to the right."""
    walls = dataclasses.replace(SafetyConfig.for_robot(FR3), enclosure_lower=(-np.inf, -0.2, 0.0))
    kinematics, rightmost = Kinematics(FR3), []
    goal = home(FR3)
    goal[[0, 2]] = 1.2, -1.0
    for config in (walls, SafetyConfig.for_robot(FR3)):
        guard = SafetyFilter(FR3.limits, 100.0, config)
        guard.reset(home(FR3))
        sent, reasons = drive(guard, goal, 2.0, hold=0.5)
        right = kinematics.coordinate(kinematics.frames(sent[:, :-1]), 1).min(axis=2) - kinematics.radius
        rightmost.append(right[:, kinematics.frame > 0].min())
        assert ("clearance" in reasons) == (config is walls)
    assert -0.2 + 0.01 - 1e-6 <= rightmost[0] < -0.17
    assert rightmost[1] < -0.25  # or the test would say nothing


def test_the_tool_stays_in_its_workspace() -> None:
    guard = SafetyFilter(FR3.limits, 100.0, SafetyConfig.for_robot(FR3))
    guard.reset(home(FR3))
    goal = home(FR3)
    goal[0] = 2.0
    sent, reasons = drive(guard, goal, 2.0, hold=0.5)
    assert "workspace" in reasons
    assert FR3.workspace_lower[0] - 1e-6 <= tools(sent)[:, 0].min() < FR3.workspace_lower[0] + 0.005


@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_a_tool_asked_to_hurry_goes_on_smoothly_at_its_limit(rate: float) -> None:
    config = dataclasses.replace(SafetyConfig.for_robot(FR3), tool_speed=0.25)
    guard = SafetyFilter(FR3.limits, rate, config)
    guard.reset(home(FR3))
    goal = home(FR3)
    goal[0] = 0.8
    sent, reasons = drive(guard, goal, 0.3, hold=1.7)
    tool = tools(sent)
    speed = np.linalg.norm(np.diff(tool, axis=0), axis=1) * rate
    assert "tool_speed" in reasons and speed.max() <= 0.25 * (1 + 1e-6)
    cruising = (tool[1:, 1] > 0.08) & (tool[1:, 1] < 0.15)
    assert speed[cruising].min() > 0.9 * 0.25  # scaled, not stopped again and again
    push = np.diff(sent[:, 0], n=2) * rate**2
    assert np.abs(push[cruising[1:]]).max() < 0.1 * FR3.limits.acceleration[0]
    assert np.array_equal(sent[-1], goal)


def test_a_moving_start_that_cannot_keep_the_bounds_is_refused() -> None:
    config = dataclasses.replace(SafetyConfig.for_robot(FR3), tool_speed=0.5)
    guard = SafetyFilter(FR3.limits, 100.0, config)
    spin = np.array([2.5] + [0.0] * 7)
    with pytest.raises(ConfigError, match="tool_speed"):
        guard.reset(home(FR3), spin)
    guard.reset(home(FR3), 0.3 * spin)


def test_from_short_of_clearance_it_only_moves_away() -> None:
    low = lowered("ur5e", 0.75)
    robot = ROBOTS["ur5e"]
    height = clearances(robot, low[None])[0]
    assert -0.2 < height < -0.002  # pressed into the table
    guard = SafetyFilter(robot.limits, 100.0, SafetyConfig.for_robot(robot))
    guard.reset(low)
    sent, reasons = drive(guard, lowered("ur5e"), 1.0)
    assert reasons & {"clearance", "workspace"}
    assert clearances(robot, sent)[0].min() >= height - 1e-6
    sent, _ = drive(guard, home(robot), 1.5, hold=0.5)
    heights = clearances(robot, sent)[0]
    assert heights.min() >= height - 1e-6 and heights[-1] > 0.0
    assert np.abs(sent[-1] - home(robot)).max() < 1e-9


def test_distances_of_segments_are_those_of_all_their_points() -> None:
    rng, share = np.random.default_rng(0), np.linspace(0, 1, 101)
    first, second = rng.normal(size=(2, 300, 2, 3))
    first[:50, 1] = first[:50, 0]
    second[30:80, 1] = second[30:80, 0]  # points
    second[80:120] = first[80:120] + rng.normal(size=(40, 1, 3))  # parallel
    first[120:140, 1] = second[120:140, 0]  # touching
    found = segment_distance(first, second)
    for one, other, distance in zip(first, second, found):
        a = one[0] + share[:, None] * (one[1] - one[0])
        b = other[0] + share[:, None] * (other[1] - other[0])
        tried = np.linalg.norm(a[:, None] - b[None], axis=2).min()
        assert distance <= tried + 1e-12 and tried - distance < 0.03


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_batches_of_postures_are_the_same_as_one_by_one(name: str) -> None:
    robot = ROBOTS[name]
    kinematics, rng = Kinematics(robot), np.random.default_rng(0)
    joints = rng.uniform(-2, 2, (20, len(robot.joints)))
    frames = kinematics.frames(joints)
    tool = kinematics.tool(frames)
    for posture, point in zip(joints, tool):
        np.testing.assert_allclose(point, robot.transform_tcp_to_base(posture)[:3, 3], atol=1e-12)
    with pytest.raises(ShapeError, match="joint positions"):
        kinematics.frames(joints[0])


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_no_capsule_moves_further_than_its_reach(name: str) -> None:
    """The bound that lets distances be skipped: per radian of each joint, over random motions."""
    robot = ROBOTS[name]
    kinematics, rng = Kinematics(robot), np.random.default_rng(0)
    reach = kinematics.reach()
    before = rng.uniform(-2, 2, (500, len(robot.joints)))
    after = before + rng.normal(size=before.shape) * 10.0 ** rng.uniform(-3, 0, (500, 1))
    moved = kinematics.capsules(kinematics.frames(after)) - kinematics.capsules(kinematics.frames(before))
    furthest = np.linalg.norm(moved, axis=3).max(axis=2)
    assert (furthest <= np.abs(after - before) @ reach.T + 1e-12).all()


def test_bad_capsules_are_refused() -> None:
    with pytest.raises(SpecError, match="radius"):
        Capsule("link", "", (0, 0, 0), (0, 0, 1), 0.0)
    with pytest.raises(SpecError, match="elbow"):
        dataclasses.replace(FR3, capsules=(Capsule("link", "elbow", (0, 0, 0), (0, 0, 1), 0.1),), touching=())
    with pytest.raises(SpecError, match="tail"):
        dataclasses.replace(FR3, touching=(("hand", "tail"),))
