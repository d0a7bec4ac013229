"""Smoothness: derivatives in their units, and the join to what was done before."""

from __future__ import annotations

import numpy as np
import pytest
from scoring import ARMS, FR3, GRIP, HOME, chunks, planar, scored, situation, specs_of

from robopolicy.core.errors import ConfigError, ShapeError, UnknownNameError
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart


def times(specs, order: int) -> np.ndarray:
    """(1, 1, prediction_horizon, 1): t^order / order!, whose derivative of that order is 1; 0 is now."""
    t = (np.arange(specs.horizons.prediction) - specs.horizons.action_start) / specs.specs.policy_rate
    return (t**order / {2: 2, 3: 6}[order]).astype(np.float32)[None, None, :, None]


@pytest.mark.parametrize("name, order, unit", [("acceleration", 2, "(px/s^2)^2"), ("jerk", 3, "(px/s^3)^2")])
def test_a_constant_derivative_of_two_scores_minus_four(name: str, order: int, unit: str) -> None:
    specs = planar(rate=5.0)
    score = scored("smoothness", specs, order=name)
    curve = 2 * times(specs, order)
    assert score.unit == unit
    assert score(curve, situation(specs, 1)) == pytest.approx(-4, rel=1e-3)
    assert score(curve, situation(specs, 1, past=curve[:, 0, :2])) == pytest.approx(-4, rel=1e-3)


def test_against_the_definition_where_the_past_is_partly_known() -> None:
    specs = specs_of()
    candidates, past = chunks(specs), chunks(specs, 2, 1, seed=1)[:, 0, :2]
    past[1, 0] = np.nan
    joints = np.full((2, 3, 7), np.nan, np.float32)  # no camera, no encoder: the past alone
    values = scored("smoothness", specs)(candidates, situation(specs, past=past, joint_position=joints))
    for row, first in ((0, 0), (1, 1)):
        for i in range(5):
            path = [*past[row, first:].astype(float), *candidates[row, i, 2:8].astype(float)]
            terms = [
                (path[k + 3][d] - 3 * path[k + 2][d] + 3 * path[k + 1][d] - path[k][d]) * 1000
                for k in range(len(path) - 3)
                for d in range(7)
            ]
            assert values[row, i] == pytest.approx(-np.mean(np.square(terms)), rel=1e-9)


def test_a_jump_at_the_join_costs_and_one_that_nobody_saw_does_not() -> None:
    specs = planar()
    candidates = np.zeros((1, 2, 12, 1), np.float32)
    candidates[0, 1] = 3.0
    values = scored("smoothness", specs)(candidates, situation(specs, 1, past=np.zeros((2, 1))))
    assert values[0, 0] == 0 and values[0, 1] < -1000
    np.testing.assert_array_equal(scored("smoothness", specs)(candidates, situation(specs, 1)), [[0, 0]])


@pytest.mark.parametrize(
    "horizons, reached",
    [(Horizons(1, 8, 4), "end"), (Horizons(3, 12, 6), "end"), (Horizons(3, 12, 6), "start")],
)
def test_the_measured_joints_stand_in_for_an_unknown_past(horizons: Horizons, reached: str) -> None:
    specs = specs_of(horizons=horizons, reached=reached)
    candidates = np.broadcast_to(HOME, (1, 2, horizons.prediction, 8)).astype(np.float32)
    candidates[0, 1, :, 0] += 0.1
    none = np.full((max(horizons.action_start, 1), 8), np.nan)[: horizons.action_start]
    for past in (None, none):
        values = scored("smoothness", specs)(candidates, situation(specs, 1, past=past))
        assert abs(values[0, 0]) < 1e-6 and values[0, 1] < -1


def steady(specs, steps: np.ndarray) -> np.ndarray:
    """Where a joint that moves at 0.5 rad/s is, so many steps after the current observation."""
    return HOME[:7] + 0.05 * steps[:, None] * np.eye(7)[0]


@pytest.mark.parametrize("observation", [1, 2, 3])
@pytest.mark.parametrize("reached", ["end", "start"])
@pytest.mark.parametrize("order", ["acceleration", "jerk"])
def test_going_on_as_one_has_moved_costs_nothing(reached: str, observation: int, order: str) -> None:
    """Measured joints stand in for the past at the instants at which commands are reached."""
    specs = specs_of(ARMS["joint_position"], horizons=Horizons(observation, 12, 6), reached=reached)
    start, late = observation - 1, reached == "end"
    seen = situation(specs, 1, joint_position=steady(specs, np.arange(-start, 1)))
    on = np.arange(12) - start + late
    candidates = np.stack([steady(specs, on), steady(specs, on) + 0.1])[None].astype(np.float32)
    going, jumping = scored("smoothness", specs, order=order)(candidates, seen)[0]
    assert going == pytest.approx(0, abs=0.1)
    if reached == "start" and observation == 1:  # where it was before is not known
        assert jumping == pytest.approx(0, abs=0.1)
    else:
        assert jumping < -10


def test_what_was_done_counts_more_than_what_was_measured() -> None:
    specs = specs_of()
    candidates = np.broadcast_to(HOME, (1, 1, 12, 8)).astype(np.float32)
    lagging = situation(specs, 1, past=HOME, joint_position=HOME[:7] - 0.2)
    assert scored("smoothness", specs)(candidates, lagging) == 0


def test_only_what_is_executed_counts_and_no_gripper_unless_asked_for() -> None:
    specs = specs_of()
    candidates = np.broadcast_to(HOME, (1, 3, 12, 8)).astype(np.float32)
    candidates[0, 1, 8:, 0] += 1.0  # never executed
    candidates[0, 2, 5:, 7] = 0.0  # the gripper closes
    seen = situation(specs, 1, past=HOME)
    np.testing.assert_array_equal(scored("smoothness", specs)(candidates, seen), [[0, 0, 0]])
    whole = scored("smoothness", specs, executed_only=False)(candidates, seen)
    assert whole[0, 0] == 0 and whole[0, 1] < -1 and whole[0, 2] == 0
    grip = scored("smoothness", specs, dimensions=(FR3.gripper.name,))
    assert grip.unit == "(m/s^3)^2" and grip(candidates, seen)[0, 2] < -1


def test_increments_are_judged_by_the_positions_they_add_up_to() -> None:
    absolute, deltas = specs_of(), specs_of(ARMS["joint_delta"], GRIP)
    path = chunks(absolute, spread=0.01).astype(np.float64)
    path[:, :, 0] = HOME  # where increments count from
    steps = np.diff(path, axis=2, prepend=path[:, :, :1])
    steps[..., 7] = path[..., 7]
    joints = np.full((2, 3, 7), np.nan)
    past = {"past": path[:, 0, :2], "joint_position": joints}
    own = scored("smoothness", absolute)(path[:, :1], situation(absolute, **past))
    moved = scored("smoothness", deltas)(steps[:, :1], situation(deltas, past=steps[:, 0, :2]))
    # Two increments reach one position further back than two positions do.
    assert scored("smoothness", deltas).unit == "(rad/s^3)^2"
    np.testing.assert_allclose(own, moved, rtol=0.5)
    first = np.concatenate([path[:, 0, :1], path[:, 0, :2]], axis=1)[..., :7]
    terms = np.diff(np.concatenate([first, path[:, 0, 2:8, :7]], axis=1), 3, axis=1) * 1000
    np.testing.assert_allclose(moved[:, 0], -np.mean(terms**2, axis=(1, 2)), rtol=1e-4)


def test_relative_commands_are_not_joined_to_the_past() -> None:
    specs = specs_of(ARMS["relative_joints"], GRIP)
    candidates = np.ones((1, 1, 12, 8), np.float32)
    assert scored("smoothness", specs)(candidates, situation(specs, 1, past=np.zeros((2, 8)))) == 0


def test_poses_are_judged_by_their_position() -> None:
    specs = specs_of(ARMS["ee_pose"], GRIP)
    score, candidates = scored("smoothness", specs), chunks(specs, 1, 1)
    seen = situation(specs, 1)
    before = score(candidates, seen)
    candidates[..., 3:] += 1.0
    np.testing.assert_array_equal(score(candidates, seen), before)
    assert score.unit == "(m/s^3)^2" and before < 0


def test_what_cannot_be_added_up_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one unit and reference, not .*gripper_opening \[absolute, m\]"):
        scored("smoothness", specs_of(), dimensions=("fr3_joint1", FR3.gripper.name))
    with pytest.raises(ConfigError, match="not any; choose by dimensions="):
        scored("smoothness", specs_of(GRIP))
    with pytest.raises(ConfigError, match="smoothness adds up"):
        scored("smoothness", specs_of(ARMS["ee_delta"], GRIP), dimensions=("r0", "r1"))
    with pytest.raises(UnknownNameError, match="unknown order 'snap'; known: acceleration, jerk"):
        scored("smoothness", specs_of(), order="snap")
    short = specs_of(horizons=Horizons(2, 8, 3))
    with pytest.raises(ConfigError, match="jerk takes 4 actions, got 3; order=acceleration"):
        scored("smoothness", short)
    scored("smoothness", short, order="acceleration")
    scored("smoothness", short, executed_only=False)
    specs = specs_of(ActionPart("planar_position", ("x", "y")))
    with pytest.raises(ShapeError, match=r"past actions must be \(2, 2, 2\)"):
        scored("smoothness", specs)(chunks(specs), situation(planar(), past=0.0))


def test_a_candidate_with_nan_has_no_value() -> None:
    specs = specs_of()
    candidates = chunks(specs)
    candidates[0, 3, 4, 0] = np.nan
    np.testing.assert_array_equal(
        np.argwhere(np.isnan(scored("smoothness", specs)(candidates, situation(specs, past=HOME)))), [[0, 3]]
    )
