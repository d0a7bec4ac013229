"""Workspace: where candidates take the tool, and how far out of a box."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scoring import ARMS, FR3, GRIP, HOME, chunks, planar, scored, situation, specs_of

from robopolicy import robots
from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.specs import ActionPart
from robopolicy.runtime.reranking.tool_path import ToolPath


@pytest.mark.parametrize("name", robots.names())
def test_the_tool_is_where_forward_kinematics_puts_it(name: str) -> None:
    robot = robots.load(name)
    shuffled = robot.joint_names[::-1]  # commanded in another order than the robot file's
    gripper = ActionPart("gripper_opening", (robot.gripper.name,))
    specs = specs_of(gripper, ActionPart("joint_position", shuffled), robot=name)
    joints = np.random.default_rng(0).uniform(-3, 3, (4, 3, len(shuffled)))
    actions = np.concatenate([np.zeros((4, 3, 1)), joints[..., ::-1]], axis=-1)
    tool = ToolPath(specs.specs)(actions)
    assert tool.shape == (3, 4, 3)
    for i in np.ndindex(4, 3):
        np.testing.assert_allclose(
            tool[(slice(None), *i)], robot.transform_tcp_to_base(joints[i])[:3, 3], atol=1e-12
        )


def poses(*points: tuple[float, float, float]) -> tuple:
    """Specs in poses, and one candidate that is executed through the points and then far away."""
    specs = specs_of(ARMS["ee_pose"], GRIP)
    candidate = np.zeros((1, 1, 12, 10), np.float32)
    candidate[0, 0, :, :3] = 50.0
    candidate[0, 0, 2:8, :3] = np.array([*points, *[points[-1]] * (6 - len(points))])
    return specs, candidate


BOX = {"lower": (0.0, 0.0, 0.0), "upper": (1.0, 1.0, 1.0)}


def test_depth_is_the_distance_to_the_box() -> None:
    specs, candidate = poses((0.5, 0.5, 0.5), (1.3, -0.4, 0.5), (0.5, 0.5, 1.1))
    seen = situation(specs, 1)
    assert scored("workspace", specs, **BOX)(candidate, seen) == pytest.approx(-0.5, rel=1e-6)
    mean = scored("workspace", specs, **BOX, over="mean")(candidate, seen)
    assert mean == pytest.approx(-(0.5 + 4 * 0.1) / 6, rel=1e-6)
    far = scored("workspace", specs, **BOX, executed_only=False)(candidate, seen)
    assert far == pytest.approx(-49 * np.sqrt(3), rel=1e-6)
    inside = scored("workspace", specs, lower=(-9.0, -9.0, 0.0), upper=(9.0, 99.0, 9.0))(candidate, seen)
    assert inside == 0 and not np.signbit(inside)
    drawn_in = scored("workspace", specs, **BOX, margin=0.1)(candidate, seen)
    assert drawn_in == pytest.approx(-np.hypot(0.4, 0.5), rel=1e-6)


def test_joints_are_judged_by_the_robots_own_workspace() -> None:
    specs = specs_of()
    candidates = chunks(specs, spread=0.8)
    values = scored("workspace", specs)(candidates, situation(specs))
    for row, i in np.ndindex(2, 5):
        depths = []
        for action in candidates[row, i, 2:8]:
            at = FR3.transform_tcp_to_base(action[:7].astype(np.float64))[:3, 3]
            inside = np.clip(at, FR3.workspace_lower, FR3.workspace_upper)
            depths.append(np.linalg.norm(at - inside))
        assert values[row, i] == pytest.approx(-max(depths), abs=1e-12)
    assert (values < 0).any()


def test_a_given_robot_counts_before_the_named_one() -> None:
    small = dataclasses.replace(FR3, workspace_upper=(0.3, 0.7, 1.0))
    specs = specs_of()
    home = np.broadcast_to(HOME, (1, 1, 12, 8)).astype(np.float32)
    seen = situation(specs, 1)
    assert scored("workspace", specs)(home, seen) == 0
    reached = FR3.transform_tcp_to_base(home[0, 0, 0, :7].astype(np.float64))[0, 3]
    assert scored("workspace", specs, small)(home, seen) == pytest.approx(0.3 - reached)


@pytest.mark.parametrize("arm", ["joint_delta", "ee_delta", "relative_joints"])
def test_commands_that_count_from_elsewhere_are_refused(arm: str) -> None:
    with pytest.raises(
        ConfigError, match=f"one arm commanded in absolute .*, not of relative {ARMS[arm].space}"
    ):
        scored("workspace", specs_of(ARMS[arm], GRIP), **BOX)


def test_no_arm_two_arms_and_unknown_arms_are_refused() -> None:
    with pytest.raises(ConfigError, match="not of absolute planar_position"):
        scored("workspace", planar(), **BOX)
    left = ActionPart("joint_position", ("l1", "l2"))
    with pytest.raises(ConfigError, match="one arm"):
        scored("workspace", specs_of(ARMS["joint_position"], left), **BOX)
    with pytest.raises(ConfigError, match="no robot is known"):
        scored("workspace", specs_of(robot=""), **BOX)
    with pytest.raises(ConfigError, match=r"'l1', 'l2'.*but fr3 has"):
        scored("workspace", specs_of(left), **BOX)


def test_boxes_that_are_none_are_refused() -> None:
    specs = specs_of()
    for options, said in (
        ({"lower": (0.0, 0.0)}, r"a corner has finite x, y and z \[m\], got \[0.0, 0.0\]"),
        ({"upper": (1.0, np.inf, 1.0)}, "a corner has finite x, y and z"),
        ({"lower": (1.0, 0.0, 0.0), "upper": (1.0, 1.0, 1.0)}, "must be below upper"),
        ({**BOX, "margin": 0.5}, "by twice the margin, 0.5"),
        ({"margin": -0.1}, "margin must be finite and >= 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            scored("workspace", specs, **options)
    with pytest.raises(UnknownNameError, match="unknown over 'sum'; known: max, mean"):
        scored("workspace", specs, over="sum")
    marker = dataclasses.replace(ARMS["ee_pose"], frame="tag")
    with pytest.raises(ConfigError, match=r"needs lower=.*poses are in 'tag'"):
        scored("workspace", specs_of(marker, GRIP))
    with pytest.raises(ConfigError, match=r"needs lower=.*no robot is known"):
        scored("workspace", specs_of(marker, GRIP, robot=""))
    assert scored("workspace", specs_of(marker, GRIP, robot=""), **BOX).unit == "m"


def test_a_candidate_with_nan_has_no_value() -> None:
    specs = specs_of()
    candidates = chunks(specs)
    candidates[1, 4, 3, 2] = np.nan
    values = scored("workspace", specs)(candidates, situation(specs))
    np.testing.assert_array_equal(np.argwhere(np.isnan(values)), [[1, 4]])
