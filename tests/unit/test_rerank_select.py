"""Choosing by value: shares as V-GPS has them, and what is not a number is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from robopolicy.core.errors import ConfigError
from robopolicy.runtime.reranking.select import select

numbers = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([np.nan, np.inf, -np.inf]))


def rngs(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(row) for row in range(count)]


def test_the_best_is_taken_and_the_first_of_equals() -> None:
    values = np.array([[1.0, 3.0, 3.0], [np.nan, -5.0, np.inf], [np.nan, np.nan, -np.inf]])
    assert select(values, rng=[]).tolist() == [1, 1, -1]


@given(st.lists(numbers, min_size=1, max_size=8), st.sampled_from([0.0, 1e-9, 0.1, 1.0, 1e9]))
def test_whatever_the_values_only_finite_ones_are_chosen(values: list[float], temperature: float) -> None:
    row = np.array([values])
    index = select(row, temperature=temperature, rng=rngs(1))[0]
    assert index == -1 if not np.isfinite(row).any() else np.isfinite(row[0, index])


def test_shares_are_those_of_the_exponentials() -> None:
    values, temperature, draws = np.array([0.0, 1.0, -0.5, np.nan]), 0.7, 20_000
    rng = np.random.default_rng(0)
    chosen = select(np.tile(values, (draws, 1)), temperature=temperature, rng=[rng] * draws)
    expected = np.exp(values[:3] / temperature)
    shares = np.bincount(chosen, minlength=4) / draws
    np.testing.assert_allclose(shares[:3], expected / expected.sum(), atol=0.015)
    assert shares[3] == 0


def test_returns_a_thousand_apart_do_not_overflow() -> None:
    assert select(np.array([[-1e300, 1e300, 0.0]]), temperature=1e-3, rng=rngs(1)).tolist() == [1]


def test_a_negative_temperature_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1"):
        select(np.zeros((1, 3)), temperature=-1, rng=rngs(1))
