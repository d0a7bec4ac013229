"""The same adversaries against every check: workspace, table, self-collision and tool speed."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import KINDS, adversary, violations

from robopolicy.core.geometry import segment_distance
from robopolicy.core.kinematics import Kinematics
from robopolicy.robots import load
from robopolicy.runtime import SafetyConfig, SafetyFilter

ROBOTS = {name: load(name) for name in ("fr3", "ur5e")}
ROUNDING = 1e-6  # [m]


@given(
    seed=st.integers(0, 2**32 - 1),
    phases=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 40)), min_size=1, max_size=4),
    name=st.sampled_from(sorted(ROBOTS)),
    speed=st.sampled_from([0.1, 0.5, 1.0]),
)
@settings(max_examples=20, deadline=None)
def test_no_adversary_moves_the_arm_where_it_may_not_be(
    seed: int, phases: list, name: str, speed: float
) -> None:
    rng, robot = np.random.default_rng(seed), ROBOTS[name]
    config = dataclasses.replace(SafetyConfig.for_robot(robot), tool_speed=speed)
    guard = SafetyFilter(robot.limits, 100.0, config)
    start = np.array([*robot.home, 0.04])
    guard.reset(start)
    sent = [start, start, start]
    for kind, length in phases:
        target = start
        for k in range(length):
            if kind != "jump" or k % 10 == 0:
                target = adversary(rng, kind, sent[-1], k, robot.limits, 0.01)
            sent.append(guard.brake() if kind == "brake" else guard.filter(target)[0])
    while not guard.at_rest:
        sent.append(guard.brake())
    assert not violations(sent, robot.limits, config.position_margin, 0.01)
    joints, kinematics = np.array(sent)[:, :-1], Kinematics(robot)
    tool = np.array([robot.transform_tcp_to_base(posture)[:3, 3] for posture in joints])
    assert (tool >= np.array(robot.workspace_lower) - ROUNDING).all()
    assert (tool <= np.array(robot.workspace_upper) + ROUNDING).all()
    assert np.linalg.norm(np.diff(tool, axis=0), axis=1).max() * 100.0 <= speed * (1 + 1e-6)
    ends = kinematics.capsules(kinematics.frames(joints))
    for i, capsule in enumerate(robot.capsules):
        if capsule.joint:
            clearance = config.tool_clearance if capsule.tool else config.link_clearance
            assert ends[:, i, :, 2].min() >= capsule.radius + clearance - ROUNDING
    for i, j in robot.pairs:
        apart = robot.capsules[i].radius + robot.capsules[j].radius + config.link_clearance
        assert segment_distance(ends[:, i], ends[:, j]).min() >= apart - ROUNDING
