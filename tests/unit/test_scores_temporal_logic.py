"""Signal temporal logic: what formulas mean on candidates, and what is said of those that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scoring import ARMS, FR3, GRIP, HOME, chunks, planar, scored, situation, specs_of

from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart

NOW = Horizons(3, 8, 2)  # of 8 actions, 6 are to come


def judge(formula: str, *paths: list[float], reached: str = "start", **states) -> list[float]:
    """Robustness of each path of one signal x, at 10 Hz, its first value now."""
    specs = planar(horizons=NOW, reached=reached)
    candidates = np.full((1, len(paths), 8, 1), 77.0, np.float32)
    candidates[0, :, 2:, 0] = paths
    return scored("temporal_logic", specs, formula=formula)(candidates, situation(specs, 1, **states))[
        0
    ].tolist()


RISE = [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "formula, robustness",
    [
        ("x < 3", 3),
        ("x <= 3", 3),
        ("x > 3", -3),
        ("2 * x - 1 >= -3", 2),
        ("-(x + 1) / 2 < 1.5e0", 2),
        ("abs(x - 4) < 1", -3),
        ("2 - 3 < x < 10", 1),
        ("10 > x > -1", 1),
        ("always[0, 0.3] x < 4", 1),
        ("always [0.2,0.3] x > 1", 1),
        ("always x < 4", -1),
        ("eventually[0, 0.3] x > 2", 1),
        ("eventually x > 7", -2),
        ("not x > 3", 3),
        ("!x > 3", 3),
        ("x < 3 and x > -1", 1),
        ("x < 3 & x > -1 && x < 2", 1),
        ("x < -3 or x < 3", 3),
        ("x < -3 | x < 3 || x < -9", 3),
        ("x > 1 implies x > 9", 1),
        ("x > 1 -> x > 9 => x > 11", 9),  # the right one first
        ("x < 9 until[0.2, 0.4] x > 2.5", 1.5),
        ("x < 2 until[0.3, 0.5] x > 2.5", -1),
        ("x < 9 until x > 2.5", 2.5),
        ("always[0, 0.2] eventually[0.1, 0.3] x > 2", 1),
        ("eventually always[0, 0.1] x > 2", 2),
        ("always x > -1 and x < 2", 1),  # always takes only what is behind it
        ("always (x > -1 and x < 2)", -3),
        ("'x' < 3", 3),
    ],
)
def test_by_hand(formula: str, robustness: float) -> None:
    assert judge(formula, RISE) == [robustness]


def test_candidates_are_told_apart() -> None:
    assert judge("eventually[0, 0.5] x > 3", RISE, [0] * 6, [9] * 6) == [2, -3, 6]


def test_a_command_reached_at_the_end_of_its_step_counts_a_period_later() -> None:
    assert judge("always[0, 0.2] x < 9", RISE) == [7]
    assert judge("always[0, 0.2] x < 9", RISE, reached="end") == [8]
    assert judge("eventually[0.6, 0.6] x > 0", RISE, reached="end") == [5]
    assert judge("x > 3", RISE, reached="end") == [-3]  # now: the first one that can still be chosen
    with pytest.raises(ConfigError, match=r"0\.6 s is past the chunk, which reaches 0\.5 s"):
        judge("eventually[0.6, 0.6] x > 0", RISE)


def test_times_that_are_whole_steps_but_for_rounding_are_whole_steps() -> None:
    specs = planar(horizons=Horizons(1, 40, 8), rate=100.0)
    assert 0.29 * 100 < 29 and 0.07 * 100 > 7
    candidates = np.arange(40, dtype=np.float32)[None, None, :, None]
    score = scored("temporal_logic", specs, formula="always[0.07, 0.29] 0 < x < 100")
    assert score(candidates, situation(specs, 1)) == 7
    score = scored("temporal_logic", specs, formula="always[0.07, 0.29] x < 100")
    assert score(candidates, situation(specs, 1)) == 100 - 29


def test_observations_are_constants_and_may_be_compared_with_commands() -> None:
    moved = {"cube_position": [[9, 9, 9], [9, 9, 9], [1, 2, 3]], "force": [5, 7]}
    assert judge("eventually x > observation.cube_position.z", RISE, **moved) == [2]
    assert judge("always[0, 0.1] observation.force.1 < 10", RISE, [0] * 6, **moved) == [3, 3]


def test_the_examples_of_the_manual() -> None:
    specs = specs_of(horizons=Horizons(2, 16, 8), reached="end")
    candidates = np.broadcast_to(HOME, (1, 2, 16, 8)).astype(np.float32)
    candidates[0, 1, 9:, 7] = 0.0
    seen, at = situation(specs, 1), FR3.transform_tcp_to_base(HOME[:7])[:3, 3]
    above = scored("temporal_logic", specs, formula="always[0,0.8] tool.z > 0.05")
    np.testing.assert_allclose(above(candidates, seen), [[at[2] - 0.05] * 2], rtol=1e-6)
    text = f"eventually[0,1] (abs(tool.x - {at[0] + 0.01}) < 0.02 and gripper < 0.01)"
    grasp = scored("temporal_logic", specs, formula=text)
    np.testing.assert_allclose(grasp(candidates, seen), [[-0.03, 0.01]], atol=1e-6)
    text = "not gripper < 0.01 until[0, 1] abs(tool.z - observation.cube_position.z) < 0.6"
    assert scored("temporal_logic", specs, formula=text)(candidates, seen).shape == (1, 2)


def test_poses_name_their_own_position() -> None:
    specs = specs_of(ARMS["ee_pose"], GRIP, robot="")
    candidates = chunks(specs)
    for tool, own in (("tool.x", "x"), ("tool.z", "z"), ("gripper", "gripper_opening")):
        first, second = (
            scored("temporal_logic", specs, formula=f"always {name} < 0.1")(candidates, situation(specs))
            for name in (tool, own)
        )
        np.testing.assert_array_equal(first, second)


def test_nan_is_passed_on_where_it_matters() -> None:
    nan = float("nan")
    values = judge("always[0, 0.3] x < 9", RISE, [nan, *RISE[1:]], [*RISE[:5], nan])
    assert np.isnan(values).tolist() == [False, True, False]
    assert np.isnan(judge("x < 9 until[0.1, 0.3] x > 1", [0, nan, 2, 3, 4, 5])).all()


def test_known_signals_are_listed_below_the_place() -> None:
    with pytest.raises(ConfigError) as caught:
        scored("temporal_logic", specs_of(), formula="always[0, 0.5]  tool.w > 0.05")
    shown = str(caught.value).splitlines()
    assert shown[0] == "formula, character 16: unknown signal 'tool.w'"
    assert shown[1] == "  always[0, 0.5] tool.w > 0.05"
    assert shown[2].index("^") == shown[1].index("tool.w")
    assert shown[3].startswith("known: fr3_joint1, fr3_joint2") and "tool.z, observation.joint" in shown[3]
    assert shown[3].endswith("observation.cube_position.z, observation.force.0, observation.force.1")


@pytest.mark.parametrize(
    "arm, name, said",
    [
        ("joint_delta", "fr3_joint2", "'fr3_joint2' is a delta command, no position"),
        ("relative_joints", "fr3_joint2", "'fr3_joint2' is a relative command, no position"),
        ("joint_delta", "tool.z", "'tool.z' is not known: .* not of relative joint_delta"),
        ("ee_delta", "tool.x", "'tool.x' is not known: .* not of relative ee_delta"),
        ("ee_delta", "x", "'x' is a delta command"),
    ],
)
def test_increments_are_no_positions(arm: str, name: str, said: str) -> None:
    specs = specs_of(ARMS[arm], GRIP)
    with pytest.raises(ConfigError, match=said):
        scored("temporal_logic", specs, formula=f"{name} < 1")
    assert scored("temporal_logic", specs, formula="gripper < 0.01")(chunks(specs), situation(specs)).any()


def test_two_grippers_are_called_by_their_names() -> None:
    grips = ActionPart("gripper_opening", ("left/finger", "right/finger"))
    with pytest.raises(ConfigError, match="unknown signal 'gripper'"):
        scored("temporal_logic", specs_of(grips), formula="gripper < 0.01")
    scored("temporal_logic", specs_of(grips), formula="'left/finger' < 0.01")


WRONG = {
    "x": (2, "expected <, <=, > or >= behind a number or signal, got the end"),
    "always[0, 0.2] x and x < 1": (18, "expected <, <=, > or >= behind a number or signal, got 'and'"),
    "x >": (4, r"expected a number, a signal or '\(', got the end"),
    "x < 1 x": (7, "expected and, or, implies, until or the end, got 'x'"),
    "(x < 1": (7, r"expected '\)' to close the one at character 1, got the end"),
    "x < 1)": (6, r"got '\)'"),
    "x == 1": (3, r"motion never meets a number exactly: write abs\(x - y\) < tolerance"),
    "1 < 2": (1, "a comparison without a signal is always the same"),
    "x * x < 1": (5, "multiplied and divided by numbers only"),
    "1 / x < 1": (5, "multiplied and divided by numbers only"),
    "x / (2 - 2) < 1": (5, "and not by 0"),
    "x < (x < 1)": (5, "expected a number or a signal, not a condition"),
    "abs x < 1": (5, r"expected '\(' after abs, got 'x'"),
    "x # 1": (3, "'#' is no part of a formula"),
    "always[0.31, 0.39] x < 1": (8, "there is one every 0.1 s"),
    "always[0.2, 0.1] x < 1": (8, "ends after it begins"),
    "always[0, 9] x < 1": (11, "9 s is past the chunk, which reaches 0.5 s"),
    "always[0; 1] x < 1": (9, "';' is no part"),
    "always[0 1] x < 1": (10, "expected ',' between the times"),
    "always[-1, 0] x < 1": (8, "expected 'number' of seconds, got '-'"),
    "always[0, 1e999] x < 1": (11, "1e999 is too large a number"),
    "always[0, 0.3] always[0, 0.3] x < 1": (1, "looks 0.6 s ahead altogether, the chunk reaches 0.5 s"),
    "x < 1 until x < 2 until x < 3": (19, "until does not chain"),
    "(" * 99 + "x < 1" + ")" * 99: (42, "nested more than 40 deep"),
    " and ".join(["x < 1"] * 999): (1001, "longer than 400 words"),
    "__import__('os')": (1, "unknown signal '__import__'"),
}


@pytest.mark.parametrize("formula", WRONG, ids=lambda text: text[:30])
def test_what_is_wrong_is_said_with_its_place(formula: str) -> None:
    place, said = WRONG[formula]
    with pytest.raises(ConfigError, match=f"(?s)formula, character {place}: .*{said}"):
        judge(formula, RISE)


def test_no_formula_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs formula='...', for example"):
        scored("temporal_logic", specs_of())
