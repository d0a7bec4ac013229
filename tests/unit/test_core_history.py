"""The window a policy sees at run time is the one it was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from reference.windows import window as reference_window
from synthetic import make_specs, random_value

from robopolicy.core.errors import NonFiniteValueError, ShapeError
from robopolicy.core.history import History
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import PolicySpecs


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_every_step_of_an_episode_gives_the_training_window(rng, horizon):
    specs = PolicySpecs(make_specs(image=True), Horizons(horizon, horizon, 1))
    frames = {name: random_value(spec, 6, rng) for name, spec in specs.specs.observation.items()}
    episode = {"action": np.zeros((6, 1)), "observation": frames}
    history = History(specs)
    for _ in range(2):  # the second time after a reset
        history.reset()
        for t in range(6):
            history.push({name: value[t] for name, value in frames.items()})
            expected, _, _ = reference_window(episode, [("joint_position", 1)], t, horizon, 1)
            for name, value in history.window().items():
                assert value.dtype == specs.specs.observation[name].dtype
                np.testing.assert_array_equal(value, np.stack(expected[name]))


def test_a_refused_observation_changes_nothing(rng):
    specs = PolicySpecs(make_specs(), Horizons(2, 2, 1))
    history = History(specs)
    good = {name: random_value(spec, 1, rng)[0] for name, spec in specs.specs.observation.items()}
    history.push(good)
    before = history.window()
    with pytest.raises(ShapeError, match="goal"):
        history.push({**good, "goal": np.zeros(3)})
    with pytest.raises(NonFiniteValueError, match="goal"):
        history.push({**good, "goal": np.array([0.0, np.nan])})
    for name, value in history.window().items():
        np.testing.assert_array_equal(value, before[name])


def test_what_was_pushed_may_be_reused_by_the_caller(rng):
    """Drivers fill one buffer again and again; the past must not follow the present."""
    specs = PolicySpecs(make_specs(), Horizons(2, 2, 1))
    history = History(specs)
    buffer = {name: random_value(spec, 1, rng)[0] for name, spec in specs.specs.observation.items()}
    history.push(buffer)
    before = history.window()["joints"].copy()
    buffer["joints"] += 1
    np.testing.assert_array_equal(history.window()["joints"], before)
