"""Smoothness metrics on movements whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.runtime.scheduling.smoothness import (
    log_dimensionless_jerk,
    smoothness,
    spectral_arc_length,
    splice_discontinuity,
)

RATE = 1000.0
MS = 1_000_000


def minimum_jerk(seconds: float = 1.0, length: float = 1.0) -> np.ndarray:
    """(n, 1) of the movement with the least jerk from rest to rest (Flash and Hogan 1985)."""
    t = np.linspace(0.0, 1.0, round(seconds * RATE) + 1)[:, None]
    return length * (10 * t**3 - 15 * t**4 + 6 * t**5)


def ticks(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64) * MS


@pytest.mark.parametrize(("seconds", "length"), [(1.0, 1.0), (1.0, 0.1), (2.5, 3.0)])
def test_minimum_jerk_has_its_known_values_whatever_its_size(seconds, length):
    movement = minimum_jerk(seconds, length)
    # v_peak = 15/8 L/T and integral jerk^2 = 720 L^2/T^5.
    assert log_dimensionless_jerk(movement, RATE) == pytest.approx(-math.log(720 / (15 / 8) ** 2), abs=0.01)
    if length == 1.0:
        assert spectral_arc_length(movement, RATE) == pytest.approx(-1.41, abs=0.02)
    found = smoothness(movement, RATE, ticks(len(movement)))
    assert found.peak_velocity == pytest.approx(15 / 8 * length / seconds, rel=1e-3)
    assert found.peak_acceleration == pytest.approx(10 / math.sqrt(3) * length / seconds**2, rel=1e-3)
    assert found.peak_jerk == pytest.approx(60 * length / seconds**3, rel=0.02)
    assert found.rms_jerk == pytest.approx(math.sqrt(720) * length / seconds**3, rel=0.02)
    assert (found.splice_position, found.splice_velocity, found.splice_acceleration) == (0, 0, 0)


def test_a_vector_moves_like_its_length():
    movement = minimum_jerk()
    both = movement * np.array([[0.6, 0.8]])
    assert log_dimensionless_jerk(both, RATE) == pytest.approx(log_dimensionless_jerk(movement, RATE))
    assert spectral_arc_length(both, RATE) == pytest.approx(spectral_arc_length(movement, RATE))


def test_two_movements_are_less_smooth_than_one_and_tremor_less_still():
    one = minimum_jerk(2.0)
    two = np.vstack([minimum_jerk(1.0, 0.5), 0.5 + minimum_jerk(1.0, 0.5)[1:]])
    t = np.linspace(0, 2, len(one))[:, None]
    trembling = one + 0.01 * np.sin(2 * np.pi * 8 * t) * np.sin(np.pi * t / 2) ** 2
    for metric in (log_dimensionless_jerk, spectral_arc_length):
        values = [metric(movement, RATE) for movement in (one, two, trembling)]
        assert values == sorted(values, reverse=True)
        assert values[0] - values[1] > 0.1


def test_spectral_arc_length_leaves_out_what_is_above_its_cutoff():
    movement = minimum_jerk()
    t = np.linspace(0, 1, len(movement))[:, None]
    hum = movement + 1e-4 * np.sin(2 * np.pi * 60 * t) * np.sin(np.pi * t) ** 2
    assert spectral_arc_length(hum, RATE) == pytest.approx(spectral_arc_length(movement, RATE), abs=1e-3)
    assert log_dimensionless_jerk(hum, RATE) < log_dimensionless_jerk(movement, RATE) - 1


@pytest.mark.parametrize(("order", "size"), [(0, 0.3), (1, 0.5), (2, 7.0)])
def test_a_step_of_position_velocity_or_acceleration_is_found_at_its_join(order, size):
    t = (np.arange(400) - 200) / RATE
    movement = np.where(t > 0, size * np.maximum(t, 0) ** order / math.factorial(order), 0.0)[:, None]
    jumps = splice_discontinuity(movement, RATE, ticks(400), [201 * MS])  # the 202nd is the first new one
    assert jumps[order] == pytest.approx(size if order < 2 else size / 2, rel=1e-6)
    assert all(jump < 0.01 * size for jump in jumps[:order])
    assert splice_discontinuity(movement, RATE, ticks(400), [100 * MS]) == (0, 0, 0)
    assert splice_discontinuity(movement, RATE, ticks(400), [100 * MS, 201 * MS]) == jumps


def test_joins_outside_the_run_and_runs_too_short_to_tell():
    movement = minimum_jerk()
    jumps = splice_discontinuity(movement, RATE, ticks(len(movement)), [-5 * MS, 10**15])
    assert max(jumps) < 1e-3
    for short in (np.zeros((0, 2)), np.zeros((1, 2)), np.zeros((3, 2)), np.zeros((50, 2))):
        found = smoothness(short, RATE, ticks(len(short)), [0])
        assert math.isnan(found.log_dimensionless_jerk) and math.isnan(found.spectral_arc_length)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"\(7,\)"):
        spectral_arc_length(np.zeros(7), RATE)
    with pytest.raises(ConfigError, match="-1"):
        log_dimensionless_jerk(np.zeros((7, 1)), -1)
    with pytest.raises(ShapeError, match="7 commands"):
        splice_discontinuity(np.zeros((7, 1)), RATE, ticks(6), [0])
