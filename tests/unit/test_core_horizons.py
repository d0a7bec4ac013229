"""Three horizons, one consistent set of derived numbers."""

from __future__ import annotations

import pytest

from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons

VALID = [
    (o, p, a)
    for o in range(1, 4)
    for p in range(1, 9)
    for a in range(1, 9)
    if o + a - 1 <= p  # the rule, stated once more
]


@pytest.mark.parametrize(("o", "p", "a"), VALID)
def test_executed_actions_begin_at_the_current_observation_and_lie_in_the_chunk(o, p, a):
    executed = list(range(p))[Horizons(o, p, a).executed]
    assert len(executed) == a
    assert executed[0] == o - 1


@pytest.mark.parametrize("values", [(0, 16, 8), (2, 0, 8), (2, 16, 0), (-1, 16, 8)])
def test_a_horizon_below_one_is_named(values):
    with pytest.raises(ConfigError, match=r"(observation|prediction|action) horizon must be >= 1, got"):
        Horizons(*values)


def test_executed_actions_past_the_chunk_are_refused_with_the_numbers():
    with pytest.raises(ConfigError, match=r"2 \+ 16 - 1 > 16"):
        Horizons(2, 16, 16)
