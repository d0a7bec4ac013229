"""Temporal ensembling and real-time chunking: what they say, held against their sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
from chunks import HORIZONS, LIMITS, MS, PERIOD_NS, action_time_ns, make_scheduler, make_specs
from hypothesis import given, settings
from hypothesis import strategies as st

from robopolicy.runtime import ChunkScheduler, SchedulerConfig
from robopolicy.runtime.delay import DelayMeter
from robopolicy.runtime.scheduling.ensemble import ensemble
from robopolicy.runtime.scheduling.plan import Plan
from robopolicy.runtime.scheduling.prefix import soft_weights


def act_average(populated: list[np.ndarray], k: float = 0.01) -> np.ndarray:
    """ACT's rule, as its paper puts it: w_i = exp(-k i) with w_0 for the oldest action, normalised."""
    weights = np.exp(-k * np.arange(len(populated)))
    return (weights / weights.sum()) @ np.array(populated)


def test_ensemble_is_acts_average_when_every_step_is_asked_for():
    rng = np.random.default_rng(0)
    chunks = rng.normal(size=(10, 8, 3))  # one a step, 8 long
    plans = [Plan(chunk, i * PERIOD_NS, PERIOD_NS, i * PERIOD_NS) for i, chunk in enumerate(chunks)]
    for step in (0, 3, 9):
        averaged = ensemble(plans[: step + 1], -0.01)
        for k in range(8):
            at = step + k
            populated = [chunks[i][at - i] for i in range(step + 1) if 0 <= at - i < 8]
            np.testing.assert_allclose(averaged[k], act_average(populated))


def test_ensemble_favours_the_newest_by_its_decay():
    old, new = np.zeros((4, 1)), np.ones((4, 1))
    plans = [Plan(old, 0, PERIOD_NS, 0), Plan(new, 2 * PERIOD_NS, PERIOD_NS, 2 * PERIOD_NS)]
    averaged = ensemble(plans, 0.5)[:, 0]
    np.testing.assert_allclose(averaged, [1 / (1 + math.exp(-1))] * 2 + [1, 1])


def test_waypoints_between_grids_are_linear():
    plan = Plan(np.array([[0.0], [1.0], [4.0]]), 0, PERIOD_NS, 0)
    times = np.array([-50, 0, 25, 150, 200, 900]) * MS
    np.testing.assert_allclose(plan.at(times)[:, 0], [0, 0, 0.25, 2.5, 4, 4])
    assert plan.covers(times).tolist() == [False, True, True, True, True, False]


def test_soft_weights_fall_from_what_is_committed_to_where_the_plan_ends():
    """Eq. 5 of real-time chunking with H = 16, s = 5, d = 4, written out; linear instead of exponential."""
    weights = soft_weights(16, frozen=4, overlap=11)
    for i in range(16):
        c = (16 - 5 - i) / (16 - 5 - 4 + 1)
        assert weights[i] == pytest.approx(1.0 if i < 4 else c if i < 11 else 0.0, abs=1e-6)
    assert (np.diff(weights[3:12]) < 0).all()
    assert soft_weights(4, frozen=4, overlap=4).tolist() == [1, 1, 1, 1]
    assert soft_weights(4, frozen=0, overlap=0).tolist() == [0, 0, 0, 0]


def test_there_is_a_prefix_only_where_there_is_something_to_agree_with():
    for mode in ("replace", "ensemble"):
        scheduler = make_scheduler(mode)
        scheduler.accept(np.zeros((16, 3)), 0, 0)
        assert scheduler.committed(PERIOD_NS) is not None and not scheduler.binds
    scheduler = make_scheduler("real_time_chunking")
    assert scheduler.binds
    assert scheduler.committed(0) is None
    scheduler.accept(np.zeros((16, 3)), 0, 0)
    assert scheduler.committed(0) is not None
    # Its last action is due 15 periods after its observation: action 0 of one 15 periods later.
    assert scheduler.committed(15 * PERIOD_NS) is not None
    assert scheduler.committed(15 * PERIOD_NS + 1) is None
    scheduler.reset(np.zeros(3), 0)
    assert scheduler.committed(0) is None


@pytest.mark.parametrize("reached", ["end", "start"])
@pytest.mark.parametrize("delay_ms", [0, 130, 300, 2000])
def test_the_prefix_is_aligned_with_the_new_chunk(reached, delay_ms):
    scheduler = make_scheduler("real_time_chunking", limits=None, reached=reached)
    chunk = np.cumsum(np.random.default_rng(1).normal(size=(16, 3)), axis=0)
    scheduler.accept(chunk, 0, 0)
    scheduler._meter = DelayMeter(window=1, warmup=0)
    scheduler._meter.add(delay_ms * MS)
    observed_ns = 6 * PERIOD_NS
    actions, weights = scheduler.committed(observed_ns)
    assert actions.shape == (16, 3) and weights.shape == (16,)
    assert actions.dtype == weights.dtype == np.float32
    np.testing.assert_allclose(actions[:9], chunk[6:15], atol=1e-5)  # action 6 + k of the old is k of the new
    assert (weights[10:] == 0).all() and (weights[:10] > 0).all()
    for k in range(10):
        begins_ns = action_time_ns(k, observed_ns, reached) - PERIOD_NS
        assert (weights[k] == 1) == (begins_ns < observed_ns + delay_ms * MS)


@given(seed=st.integers(0, 2**32 - 1), delays=st.lists(st.integers(0, 700), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_policy_that_returns_the_prefix_leaves_the_reference_as_it_is(seed, delays):
    """On the plan's own grid exactly, tail included."""
    told, left = (make_scheduler("real_time_chunking") for _ in range(2))
    steps = np.random.default_rng(seed).normal(scale=[0.02, 0.02, 0.003], size=(16, 3))
    chunk = np.array([0.1, 0.2, 0.03]) + np.cumsum(steps, axis=0)
    for scheduler in (told, left):
        scheduler.reset(chunk[0], 0)
        scheduler.accept(chunk, 0, 0)
    now_ns = 900 * MS  # the first join is over
    for delay in delays:
        observed_ns = -(-now_ns // PERIOD_NS) * PERIOD_NS
        prefix = told.committed(observed_ns)
        if prefix is None:
            break
        now_ns = observed_ns + delay * MS
        told.accept(prefix[0], observed_ns, now_ns)
        for at_ns in range(now_ns, now_ns + 2_500 * MS, 40 * MS):
            np.testing.assert_allclose(told.reference(at_ns)[0], left.reference(at_ns)[0], atol=2e-6)


@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(1, 99))
@settings(max_examples=40, deadline=None)
def test_between_grids_the_prefix_leaves_it_nearly_as_it_is(seed, shift):
    told, left = (make_scheduler("real_time_chunking", limits=None) for _ in range(2))
    chunk = np.cumsum(np.random.default_rng(seed).normal(scale=0.02, size=(16, 3)), axis=0)
    for scheduler in (told, left):
        scheduler.reset(chunk[0], 0)
        scheduler.accept(chunk, 0, 0)
    observed_ns = 500 * MS + shift * MS
    told.accept(told.committed(observed_ns)[0], observed_ns, observed_ns + 50 * MS)
    bend = np.abs(np.diff(chunk, 2, axis=0)).max()
    for at_ns in range(observed_ns + 50 * MS, 1_300 * MS, 20 * MS):
        gap = np.abs(told.reference(at_ns)[0] - left.reference(at_ns)[0]).max()
        assert gap <= bend / 8  # the error of linear interpolation


def test_modes_agree_with_themselves_not_with_each_other():
    """Two chunks that disagree: replace follows the newer, ensemble goes between."""
    found = {}
    for mode in ("replace", "ensemble"):
        scheduler = ChunkScheduler(make_specs(), SchedulerConfig(mode=mode), limits=LIMITS)
        scheduler.reset(np.zeros(3), 0)
        scheduler.accept(np.zeros((16, 3)), 0, 0)
        scheduler.accept(np.full((16, 3), 0.05), 4 * PERIOD_NS, 5 * PERIOD_NS)
        found[mode] = [scheduler.reference(at)[0][0] for at in (1_200 * MS, 1_900 * MS)]
    weight = 1 / (1 + math.exp(-0.1 * 4))
    np.testing.assert_allclose(found["replace"], [0.05, 0.05], atol=1e-9)
    np.testing.assert_allclose(found["ensemble"], [0.05 * weight, 0.05], atol=1e-9)
    assert HORIZONS.prediction == 16
