"""What a call of a policy must bring, and where its randomness comes from."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from synthetic import make_policy_specs, make_windows

from robopolicy import policies, robots
from robopolicy.core.errors import (
    ConfigError,
    NonFiniteValueError,
    ShapeError,
    SpecError,
    UnknownNameError,
)
from robopolicy.core.policy import NO_CONTEXT, Policy, check_inputs, draw_candidates, draw_noise, keyed_rng
from robopolicy.core.specs import PolicySpecs

SPECS = PolicySpecs(make_policy_specs().specs, make_policy_specs().horizons, noise_shape=(8, 3))


class Echo:
    """The noise itself as candidates: the smallest policy there is."""

    policy_specs = SPECS

    def sample(self, observation, noise, context=NO_CONTEXT):
        check_inputs(SPECS, observation, noise)
        return noise


def test_any_object_with_specs_and_sample_is_a_policy():
    assert isinstance(Echo(), Policy)
    assert not isinstance(object(), Policy)


def test_candidates_depend_on_the_generator_alone():
    window = {name: value[0] for name, value in make_windows(SPECS, 1).items()}
    first, again, other = (
        draw_candidates(Echo(), window, 5, rng=keyed_rng(*k)) for k in ((1, 2), (1, 2), (1, 3))
    )
    assert first.shape == (5, *SPECS.chunk_shape)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_keys_that_differ_anywhere_give_streams_that_differ():
    keys = [key for length in (1, 2, 3) for key in product(range(4), repeat=length)]
    draws = {int(keyed_rng(*key).integers(2**63)) for key in keys}
    assert len(draws) == len(keys)


def test_no_candidates_is_an_error():
    with pytest.raises(ConfigError, match="num_candidates must be >= 1, got 0"):
        draw_noise(SPECS, 0, keyed_rng(0))


def good_call() -> tuple[dict, np.ndarray]:
    noise = np.stack([draw_noise(SPECS, 4, keyed_rng(i)) for i in range(2)])
    return make_windows(SPECS, 2), noise


def test_a_good_call_gives_batch_and_candidates():
    assert check_inputs(SPECS, *good_call()) == (2, 4)


@pytest.mark.parametrize("cut", [np.s_[0], np.s_[:, :, :-1], np.s_[..., None], np.s_[..., :2]])
def test_noise_of_another_shape_is_refused_with_both_shapes(cut):
    observation, noise = good_call()
    with pytest.raises(ShapeError, match=r"noise must be .*\(8, 3\).*got"):
        check_inputs(SPECS, observation, noise[cut])


@pytest.mark.parametrize("cut", [np.s_[0], np.s_[:1], np.s_[:, :1], np.s_[:, None]])
def test_observations_of_another_batch_or_horizon_are_refused(cut):
    observation, noise = good_call()
    observation["goal"] = observation["goal"][cut]
    with pytest.raises(ShapeError, match=r"'goal' must be \(2, 2, 2\), got"):
        check_inputs(SPECS, observation, noise)


def test_missing_and_non_finite_inputs_are_named():
    observation, noise = good_call()
    noise[1, 2, 3, 0] = np.nan
    with pytest.raises(NonFiniteValueError, match="noise"):
        check_inputs(SPECS, observation, noise)
    observation["joints"][0, 0, 0] = np.inf
    with pytest.raises(NonFiniteValueError, match="'joints'"):
        check_inputs(SPECS, observation, noise)
    del observation["points"]
    with pytest.raises(SpecError, match="points"):
        check_inputs(SPECS, observation, noise)


@pytest.mark.parametrize(
    ("load", "kind", "known"),
    [(policies.family, "policy", "diffusion_unet"), (robots.load, "robot", "fr3")],
)
def test_an_unknown_name_lists_the_known_ones(load, kind, known):
    for name in ("nope", "", "_saved", "__init__", "../x"):
        with pytest.raises(UnknownNameError, match=rf"unknown {kind} .*known: .*{known}"):
            load(name)
