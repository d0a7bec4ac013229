"""Scores that compare candidates with what was done, or is committed: past tokens and consistency."""

from __future__ import annotations

import numpy as np
import pytest
from scoring import ARMS, FR3, GRIP, HOME, chunks, planar, scored, situation, specs_of

from robopolicy.core.errors import ConfigError, ShapeError, UnknownNameError
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import Prefix
from robopolicy.evaluation.committed import committed
from robopolicy.runtime.control.past import past_actions

PER_CENT = (FR3.limits.upper - FR3.limits.lower) / 100


def test_past_tokens_by_hand() -> None:
    specs = planar()
    candidates = np.zeros((1, 2, 12, 1), np.float32)
    candidates[0, :, :3, 0] = [[1, 2, 99], [3, 5, -99]]  # the third is not past any more
    values = scored("past_tokens", specs)(candidates, situation(specs, 1, past=[[3], [4]]))
    np.testing.assert_array_equal(values, [[-(4 + 4) / 2, -(0 + 1) / 2]])


def test_past_tokens_against_the_definition() -> None:
    specs = specs_of()
    candidates, past = chunks(specs), chunks(specs, 2, 1, seed=1)[:, 0, :2]
    values = scored("past_tokens", specs)(candidates, situation(specs, past=past))
    assert values.shape == (2, 5) and values.dtype == np.float64
    for row in range(2):
        for i in range(5):
            terms = [
                ((float(candidates[row, i, k, d]) - float(past[row, k, d])) / PER_CENT[d]) ** 2
                for k in range(2)
                for d in range(8)
            ]
            assert values[row, i] == pytest.approx(-np.mean(terms), rel=1e-12)


def test_a_candidate_one_per_cent_of_every_range_off_has_minus_one() -> None:
    specs = specs_of()
    score = scored("past_tokens", specs)
    candidates = np.broadcast_to(HOME + PER_CENT, (1, 1, 12, 8)).astype(np.float32)
    assert score.unit == "%^2"
    assert score(candidates, situation(specs, 1, past=HOME)) == pytest.approx(-1, rel=1e-3)


def test_steps_before_the_episode_began_do_not_count() -> None:
    specs = planar()
    candidates = np.zeros((2, 1, 12, 1), np.float32)
    past = [[[np.nan], [3.0]], [[np.nan], [np.nan]]]
    values = scored("past_tokens", specs)(candidates, situation(specs, past=past))
    np.testing.assert_array_equal(values, [[-9.0], [0.0]])


@pytest.mark.parametrize("name", ["past_tokens", "consistency"])
def test_nothing_known_changes_no_choice(name: str) -> None:
    specs = specs_of()
    values = scored(name, specs)(chunks(specs), situation(specs))
    np.testing.assert_array_equal(values, np.zeros((2, 5)))
    assert not np.signbit(values).any()


def test_past_tokens_needs_a_past() -> None:
    with pytest.raises(ConfigError, match="observation horizon of at least 2, got 1"):
        scored("past_tokens", specs_of(horizons=Horizons(1, 8, 4)))
    specs = specs_of()
    wrong = situation(specs_of(horizons=Horizons(2, 8, 4)), past=HOME)
    with pytest.raises(ShapeError, match=r"\(2, 2, 8\), got \(2, 1, 8\)"):
        scored("past_tokens", specs)(chunks(specs), wrong)


def test_consistency_by_hand() -> None:
    specs = planar(horizons=Horizons(2, 4, 2))
    candidates = np.array([[[0, 1, 2, 3], [5, 1, 1, 1]]], np.float32)[..., None]
    weight = np.array([[1, 1, 0.5, 0]], np.float32)
    prefix = Prefix(np.array([[0, 1, 1, 9]], np.float32)[..., None], weight)
    seen = situation(specs, 1, prefix=prefix)
    values = scored("consistency", specs)(candidates, seen)
    np.testing.assert_allclose(values, [[-(0.5 * 1) / 2.5, -25 / 2.5]])
    executed = scored("consistency", specs, executed_only=True)(candidates, seen)
    np.testing.assert_allclose(executed, [[-0.5 / 1.5, 0]])


def test_a_prefix_of_no_weight_and_free_steps_that_are_not_finite_change_nothing() -> None:
    specs = planar(horizons=Horizons(2, 4, 2))
    candidates = np.array([[[0, 1, np.nan, 3]]], np.float32)[..., None]
    prefix = Prefix(np.ones((1, 4, 1), np.float32), np.array([[1, 1, 0, 0]], np.float32))
    assert scored("consistency", specs)(candidates, situation(specs, 1, prefix=prefix)) == -0.5
    nothing = Prefix(prefix.action, np.zeros((1, 4), np.float32))
    assert scored("consistency", specs)(candidates, situation(specs, 1, prefix=nothing)) == 0


def test_a_prefix_of_another_shape_is_refused() -> None:
    specs = specs_of()
    prefix = Prefix(np.zeros((1, 12, 8), np.float32), np.ones((1, 12), np.float32))
    with pytest.raises(ShapeError, match="a prefix needs"):
        scored("consistency", specs)(chunks(specs), situation(specs, prefix=prefix))


@pytest.mark.parametrize("name", ["past_tokens", "consistency"])
def test_a_candidate_with_nan_has_no_value_and_its_neighbours_keep_theirs(name: str) -> None:
    specs = specs_of()
    candidates = chunks(specs)
    prefix = Prefix(np.zeros((2, 12, 8), np.float32), np.ones((2, 12), np.float32))
    seen = situation(specs, past=HOME, prefix=prefix)
    clean = scored(name, specs)(candidates, seen)
    candidates[1, 2, 1, 4] = np.nan
    values = scored(name, specs)(candidates, seen)
    assert np.isnan(values[1, 2]) and np.isnan(values).sum() == 1
    np.testing.assert_array_equal(np.where(np.isnan(values), clean, values), clean)


@pytest.mark.parametrize("name", ["past_tokens", "consistency"])
def test_units_are_made_comparable_or_refused(name: str) -> None:
    arm, other = ARMS["joint_position"], specs_of(robot="")
    with pytest.raises(ConfigError, match=r"cannot compare \['m', 'rad'\] without a robot.*scale="):
        scored(name, other)
    assert scored(name, other, FR3).unit == "%^2"
    assert scored(name, other, dimensions=arm.names).unit == "rad^2"
    assert scored(name, other, scale=(1.0,) * 7 + (0.01,)).unit == "1"
    assert scored(name, planar()).unit == "px^2"
    assert scored(name, specs_of(ARMS["ee_pose"], GRIP)).unit == "%^2"
    for bad in ((1.0,) * 7, (1.0,) * 7 + (0.0,), (1.0,) * 7 + (np.nan,)):
        with pytest.raises(ConfigError, match="one positive scale for each of"):
            scored(name, other, scale=bad)
    with pytest.raises(UnknownNameError, match="unknown action dimension 'elbow'; known: fr3_joint1"):
        scored(name, other, dimensions=("elbow",))


@pytest.mark.parametrize("name", ["past_tokens", "consistency"])
def test_commands_relative_to_the_observation_are_refused_and_increments_are_not(name: str) -> None:
    relative = specs_of(ARMS["relative_joints"], GRIP)
    with pytest.raises(ConfigError, match=r"fr3_joint7'\] count from the current observation"):
        scored(name, relative)
    assert scored(name, relative, dimensions=(FR3.gripper.name,)).unit == "%^2"
    assert scored(name, specs_of(ARMS["joint_delta"], GRIP), scale=(0.1,) * 8).unit == "1"


def test_poses_are_shared_out_by_the_workspace_and_rotations_by_two() -> None:
    specs = specs_of(ARMS["ee_pose"], GRIP)
    box = np.subtract(FR3.workspace_upper, FR3.workspace_lower)
    candidates = np.broadcast_to(0.1 * np.array([*box, *[2.0] * 6, 0.08]), (1, 1, 12, 10)).astype(np.float32)
    value = scored("past_tokens", specs)(candidates, situation(specs, 1, past=0.0))
    assert value == pytest.approx(-100, rel=1e-5)


def test_a_given_scale_and_fewer_dimensions() -> None:
    specs = specs_of()
    candidates = np.broadcast_to(HOME, (1, 1, 12, 8)).astype(np.float32)
    past = HOME.copy()
    past[0], past[7] = past[0] + 0.5, past[7] + 0.01
    seen = situation(specs, 1, past=past)
    grip = scored("past_tokens", specs, dimensions=(FR3.gripper.name,), scale=(0.01,))
    assert grip(candidates, seen) == pytest.approx(-1.0, rel=1e-5)
    joint = scored("past_tokens", specs, dimensions=("fr3_joint1",), scale=(0.25,))
    assert joint(candidates, seen) == pytest.approx(-4.0, rel=1e-5)


def line(steps: np.ndarray) -> np.ndarray:
    """(len(steps), 1): a point that moves by 10 px a step, so many steps after the current observation."""
    return 10.0 * steps[:, None].astype(np.float64)


@pytest.mark.parametrize("reached", ["end", "start"])
def test_going_on_as_before_agrees_with_what_was_done_and_is_committed(reached: str) -> None:
    """Whenever within its step a command is reached: the run's own past and evaluation's plan, in step."""
    specs, tick_ns, now_ns = planar(reached=reached), 10_000_000, 10**12
    late, start = int(reached == "end"), specs.horizons.action_start
    time_ns = [now_ns - k * tick_ns for k in range(100, 0, -1)]
    commands = list(
        line(np.array([(t + tick_ns - now_ns) / 1e8 for t in time_ns]))
    )  # reached at the tick's end
    past = past_actions(specs, now_ns, time_ns, commands, tick_ns)
    on = line(np.arange(12) - start + late)
    before = (on - 10 * specs.horizons.action).astype(np.float32)  # the plan of the call before, for then
    moved = committed([before], specs)
    candidates = np.stack([on, on + 3.0])[None].astype(np.float32)
    seen = situation(specs, 1, past=past[None], prefix=moved)
    for name in ("past_tokens", "consistency"):
        values = scored(name, specs)(candidates, seen)
        np.testing.assert_allclose(values, [[0, -9]], atol=1e-6)
