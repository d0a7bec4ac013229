"""Specs refuse contradictions, and arrays that break them, by name and with the valid values."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import make_specs

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.specs import ACTION_SPACES, ActionPart, ActionSpec, ArraySpec, Specs


def observation_of(specs: Specs) -> dict[str, np.ndarray]:
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.observation.items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": ()}, "at least one axis"),
        ({"shape": (3, 0)}, "no empty one"),
        ({"shape": (3,), "dtype": "float33"}, "'float33' is not a numpy dtype"),
        ({"shape": (3, 3, 4), "dtype": "uint8", "kind": "image"}, "an image is uint8"),
        ({"shape": (3,), "kind": "sound"}, "'sound' is not one of"),
        ({"shape": (3,), "dtype": "uint8", "kind": "image"}, "an image is uint8"),
        ({"shape": (3, 3, 3), "kind": "image"}, "an image is uint8"),
        ({"shape": (3,), "units": ("m",)}, "1 units for a last axis of 3"),
        ({"shape": (3,), "names": ("a", "b")}, "2 names for a last axis of 3"),
        ({"shape": (3,), "angles": (3,)}, r"angle indices \(3,\) outside 0..2"),
    ],
)
def test_contradicting_array_specs_are_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        ArraySpec(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("joint_torque", ("a",)), "joint_torque.*joint_position"),
        (("joint_position", ("a",), "sideways"), "sideways.*absolute.*relative"),
        (("ee_delta", tuple("xyzuvwrst")), "always relative"),
        (("joint_position", ()), "must be given and differ"),
        (("joint_position", ("a", "a")), "must be given and differ"),
        (("ee_pose", ("x", "y", "z")), "9 dimensions, got 3"),
    ],
)
def test_contradicting_action_parts_are_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        ActionPart(*arguments)


@pytest.mark.parametrize("space", sorted(ACTION_SPACES))
def test_every_action_space_has_a_unit_per_dimension(space):
    units = ACTION_SPACES[space]
    names = tuple(f"d{i}" for i in range(len(units) if isinstance(units, tuple) else 2))
    part = ActionPart(space, names, "relative")
    assert len(part.units) == len(names)
    assert all(part.units)


def test_slices_tile_the_action_in_order():
    arm, tool = ActionPart("joint_position", ("a", "b")), ActionPart("ee_pose", tuple("xyzuvwrst"))
    spec = ActionSpec((arm, tool, ActionPart("gripper_opening", ("g",))))
    covered = [i for _, place in spec.slices() for i in range(spec.dim)[place]]
    assert covered == list(range(spec.dim)) == list(range(len(spec.names))) == list(range(len(spec.units)))


def test_an_action_needs_a_part_and_specs_an_observation_and_a_rate():
    with pytest.raises(SpecError, match="at least one part"):
        ActionSpec(())
    arm = ActionPart("joint_position", ("a", "b"))
    with pytest.raises(SpecError, match="names must differ across parts"):
        ActionSpec((arm, ActionPart("gripper_opening", ("b",))))
    with pytest.raises(SpecError, match=r"'soon' is not one of .*'start'"):
        ActionSpec((arm,), "soon")
    specs = make_specs()
    with pytest.raises(SpecError, match="at least one observation"):
        Specs({}, specs.action, 10.0)
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(SpecError, match="policy_rate"):
            Specs(specs.observation, specs.action, rate)


def test_a_missing_observation_lists_what_came():
    specs = make_specs()
    observation = observation_of(specs)
    del observation["goal"]
    with pytest.raises(SpecError, match=r"lacks \['goal'\]; it has \['joints', 'points'\]"):
        specs.check_observation(observation)


def test_a_wrong_shape_names_the_observation_and_both_shapes():
    specs = make_specs()
    with pytest.raises(ShapeError, match=r"'points'.*\(3, 2\).*\(2, 3\)"):
        specs.check_observation({**observation_of(specs), "points": np.zeros((2, 3))})


def test_nan_names_the_observation():
    specs = make_specs()
    with pytest.raises(NonFiniteValueError, match="'joints'"):
        specs.check_observation({**observation_of(specs), "joints": np.array([0.0, np.nan])})


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_an_image_of_another_dtype_is_refused(dtype):
    """A float image in 0..1 would be read as black, without a word."""
    specs = make_specs(image=True)
    image = np.ones(specs.observation["scene"].shape, dtype)
    with pytest.raises(SpecError, match=rf"'scene'.*uint8.*{dtype}"):
        specs.check_observation({**observation_of(specs), "scene": image})


def test_actions_are_held_against_dimension_and_finiteness():
    specs = make_specs()
    specs.check_action(np.zeros((4, specs.action.dim)))
    for wrong in (np.zeros(()), np.zeros(specs.action.dim + 1)):
        with pytest.raises(ShapeError, match="must end in 3"):
            specs.check_action(wrong)
    with pytest.raises(NonFiniteValueError):
        specs.check_action(np.array([0.0, np.inf, 0.0]))


def test_select_keeps_order_and_lists_the_keys_when_one_is_unknown():
    specs = make_specs()
    assert list(specs.select(("points", "joints")).observation) == ["points", "joints"]
    with pytest.raises(SpecError, match=r"\['nose'\]; there are \['goal', 'joints', 'points'\]"):
        specs.select(("nose",))
