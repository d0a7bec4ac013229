"""Normalisers lose nothing, whatever the data; angles stay continuous where they wrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robopolicy.core.errors import ConfigError, ShapeError, SpecError
from robopolicy.core.normalise import MODES, Affine, Normalisers, expand_angles
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs

finite = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
samples = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=finite)


@given(samples, st.sampled_from(MODES))
def test_inverse_undoes_forward(values, mode):
    affine = Affine.fit(values, mode)
    back = affine.inverse(affine.forward(values))
    assert back.dtype == np.float32
    # float32 in between: half a unit in the last place of the normalised value, times the scale
    room = 1e-6 * (np.abs(values) + np.asarray(affine.scale) + np.abs(affine.offset))
    assert (np.abs(back - values) <= room).all()


@given(samples)
def test_min_max_maps_onto_minus_one_to_one(values):
    affine = Affine.fit(values, "min_max")
    normal = affine.forward(values)
    assert (np.abs(normal) <= 1 + 1e-6).all()
    wide = np.ptp(values.astype(np.float64), axis=0) > 1e-5
    np.testing.assert_allclose(normal[:, wide].max(axis=0, initial=-1), 1, atol=1e-6)
    np.testing.assert_allclose(normal[:, wide].min(axis=0, initial=1), -1, atol=1e-6)


@given(st.floats(-1e4, 1e4), st.integers(1, 5), st.sampled_from(MODES))
def test_a_constant_dimension_becomes_zero_and_comes_back(constant, count, mode):
    values = np.full((count, 2), constant)
    values[:, 1] = np.arange(count)
    affine = Affine.fit(values, mode)
    np.testing.assert_allclose(affine.forward(values)[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(affine.inverse(affine.forward(values))[:, 0], constant, 1e-6, 1e-30)
    # what was constant in the data may move at run time, in its own units
    assert affine.forward(values + 1)[0, 0] == pytest.approx(1, abs=1e-3)


@given(st.floats(-20, 20), st.floats(-1e-4, 1e-4))
def test_a_small_turn_is_a_small_change_even_where_the_angle_jumps(angle, turn):
    wrapped = [np.mod(a, 2 * np.pi) for a in (angle, angle + turn)]
    first, second = (expand_angles(np.array([3.0, a]), (1,)) for a in wrapped)
    assert first.shape == (3,) and first[0] == 3.0
    assert np.abs(first - second).max() <= abs(turn) + 1e-9
    assert first[1] == pytest.approx(np.cos(angle), abs=1e-9)
    assert first[2] == pytest.approx(np.sin(angle), abs=1e-9)


def test_expanding_angles_leaves_its_input_alone():
    value = np.array([[1.0, 2.0]])
    expand_angles(value, (0, 1))
    np.testing.assert_array_equal(value, [[1.0, 2.0]])


def test_whole_number_angles_are_not_cut_to_whole_cosines():
    np.testing.assert_allclose(expand_angles(np.array([1]), (0,)), [np.cos(1), np.sin(1)])


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 2)])
@pytest.mark.parametrize("angles", [(), (0,)])
def test_states_of_any_rank_are_flattened_per_sample(shape, angles):
    spec = ArraySpec(shape, angles=angles)
    specs = Specs({"s": spec}, ActionSpec((ActionPart("gripper_opening", ("g",)),)), 10.0)
    data = np.random.default_rng(0).uniform(-1, 1, (20, *shape)).astype(np.float32)
    normalisers = Normalisers.fit(specs, {"s": data}, np.arange(20.0)[:, None], "min_max")
    features = int(np.prod(shape)) + len(angles) * int(np.prod(shape[:-1]))
    windows = data.reshape(5, 4, *shape)
    assert normalisers.observations(specs, {"s": windows})["s"].shape == (5, 4, features)
    np.testing.assert_array_equal(
        normalisers.observations(specs, {"s": windows})["s"].reshape(20, -1),
        normalisers.observations(specs, {"s": data})["s"],
    )


def test_images_pass_untouched():
    specs = Specs(
        {"c": ArraySpec((4, 4, 3), "uint8", kind="image")},
        ActionSpec((ActionPart("gripper_opening", ("g",)),)),
        10.0,
    )
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    normalisers = Normalisers.fit(specs, {"c": image}, np.zeros((2, 1)), "min_max")
    assert normalisers.observation == {}
    assert normalisers.observations(specs, {"c": image})["c"] is image


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match=r"'median' is not one of .*min_max"):
        Affine.fit(np.zeros((2, 2)), "median")
    for shape in ((0, 2), (2,), (2, 2, 2)):
        with pytest.raises(ShapeError, match="samples, got"):
            Affine.fit(np.zeros(shape))
    with pytest.raises(SpecError, match="2 offsets but 1 scales"):
        Affine((0.0, 0.0), (1.0,))
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="positive and finite"):
            Affine((0.0,), (scale,))
    with pytest.raises(SpecError):
        Affine.fit(np.array([[0.0], [np.nan]]))
    for direction in ("forward", "inverse"):
        with pytest.raises(ShapeError, match=r"normaliser of 1 dimensions given \(2, 3\)"):
            getattr(Affine((0.0,), (1.0,)), direction)(np.zeros((2, 3)))
