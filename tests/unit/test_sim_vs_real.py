"""Agreement of simulation with reality: published values, a naive twin, and intervals that cover."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.evaluation.resampling import resampled_rates
from robopolicy.evaluation.sim_vs_real import change, mmrv, pearson, rank_violation, sim_vs_real

REAL = {"a": 0.9, "b": 0.6, "c": 0.5, "d": 0.1}
SIM = {"a": 0.4, "b": 0.7, "c": 0.2, "d": 0.1}


def slow_mmrv(real: dict[str, float], sim: dict[str, float]) -> float:
    """The definition, word for word."""
    worst = []
    for i in real:
        violations = [0.0]
        for j in real:
            if (sim[i] > sim[j]) != (real[i] > real[j]):
                violations.append(abs(real[i] - real[j]))
        worst.append(max(violations))
    return sum(worst) / len(worst)


def slow_pearson(real: dict[str, float], sim: dict[str, float]) -> float:
    x, y = list(real.values()), [sim[name] for name in real]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    a, b = [v - mean_x for v in x], [v - mean_y for v in y]
    if len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan
    below = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    return sum(v * w for v, w in zip(a, b)) / (below + 1e-8)


def test_published_tables_are_met_to_the_ninth_digit(shared_data):
    tasks = json.loads(shared_data("simpler_sim_vs_real.json").read_text())["tasks"]
    assert len(tasks) == 3
    for task in tasks.values():
        found = sim_vs_real(real=task["real"], sim=task["sim"], resamples=50)
        assert found.mmrv == pytest.approx(task["expected"]["mmrv"], abs=1e-9)
        assert found.pearson == pytest.approx(task["expected"]["pearson"], abs=1e-9)
        assert mmrv(real=task["real"], sim=task["sim"]) == found.mmrv
        assert pearson(real=task["real"], sim=task["sim"]) == found.pearson


def test_a_table_worked_out_by_hand():
    """Only a and b change places: both lose |0.9 - 0.6|, c and d nothing; (0.3 + 0.3) / 4."""
    assert mmrv(real=REAL, sim=SIM) == pytest.approx(0.15, abs=1e-12)
    # deviations (.375, .075, -.025, -.425) and (.05, .35, -.15, -.25): .155 / sqrt(.3275 * .21)
    assert pearson(real=REAL, sim=SIM) == pytest.approx(0.155 / math.sqrt(0.3275 * 0.21), abs=1e-6)


def test_swapping_the_sides_gives_another_number_so_they_are_named():
    sim = {**SIM, "b": 0.8}
    assert mmrv(real=REAL, sim=sim) == pytest.approx(0.15, abs=1e-12)
    assert mmrv(real=sim, sim=REAL) == pytest.approx(0.2, abs=1e-12)  # now it weighs |0.4 - 0.8|
    with pytest.raises(TypeError):
        mmrv(REAL, sim)


def test_ties_count_as_in_the_published_code():
    assert mmrv(real={"a": 0.5, "b": 0.5}, sim={"a": 0.1, "b": 0.9}) == 0  # tied in reality: nothing lost
    assert mmrv(real={"a": 0.5, "b": 0.5}, sim={"a": 0.3, "b": 0.3}) == 0  # tied in both: they agree
    tied = mmrv(real={"a": 0.2, "b": 0.8}, sim={"a": 0.3, "b": 0.3})
    assert tied == pytest.approx(0.3)  # the really better one misses its rank by 0.6, the other does not


def test_a_constant_side_has_no_correlation_but_has_ranks():
    found = sim_vs_real(real=REAL, sim=dict.fromkeys(REAL, 0.5), resamples=100)
    assert math.isnan(found.pearson) and all(math.isnan(v) for v in found.pearson_interval)
    assert found.undefined_resamples == 1 and found.mmrv > 0
    assert pearson(real=REAL, sim=REAL) == 1.0


RATES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0]), st.floats(0, 1, width=32)), min_size=2
)


@given(RATES, st.booleans())
def test_the_fast_form_is_the_definition(rates, tie_the_simulator):
    real = {str(i): r for i, (r, _) in enumerate(rates)}
    sim = {str(i): round(s, 1) if tie_the_simulator else s for i, (_, s) in enumerate(rates)}
    assert mmrv(real=real, sim=sim) == pytest.approx(slow_mmrv(real, sim), abs=1e-12)
    assert pearson(real=real, sim=sim) == pytest.approx(slow_pearson(real, sim), abs=1e-7, nan_ok=True)
    assert mmrv(real=real, sim=real) == 0


def test_many_tables_at_once_are_each_table_alone(rng):
    real, sim = rng.integers(0, 5, (2, 30, 6)) / 4
    alone = [rank_violation(real=r, sim=s) for r, s in zip(real, sim)]
    assert rank_violation(real=real, sim=sim).tolist() == alone


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match=r"only real \['d'\], only sim \['e'\]"):
        mmrv(real=REAL, sim={"a": 1, "b": 1, "c": 1, "e": 1})
    with pytest.raises(ConfigError, match=r"at least two policies, got \['a'\]"):
        pearson(real={"a": 1.0}, sim={"a": 1.0})
    with pytest.raises(NonFiniteValueError, match=r"sim: success rates lie in 0..1, got \{'b': nan\}"):
        mmrv(real=REAL, sim={**SIM, "b": math.nan})
    with pytest.raises(NonFiniteValueError, match=r"real: .*90"):
        mmrv(real={**REAL, "a": 90}, sim=SIM)
    with pytest.raises(ConfigError, match="no episodes"):
        mmrv(real=REAL, sim={**SIM, "a": {}})
    with pytest.raises(ConfigError, match="sim: 1 of 4 policies give episodes"):
        sim_vs_real(real=REAL, sim={**SIM, "a": {1: True}})


def episodes(rates: dict[str, float], starts: np.ndarray, first: int = 0) -> dict[str, dict[int, bool]]:
    """Success where a start is easier than the policy is good; the starts are common to all policies."""
    return {n: {first + i: bool(u < r) for i, u in enumerate(starts)} for n, r in rates.items()}


def test_the_interval_says_what_was_resampled(rng):
    real, sim = episodes(REAL, rng.random(40)), episodes(SIM, rng.random(40), first=1000)
    draw = {"resamples": 200}
    assert sim_vs_real(real=REAL, sim=SIM, **draw).resampled == "policies"
    assert sim_vs_real(real=REAL, sim=sim, **draw).resampled == (
        "episodes, paired by seed over all policies; real held fixed"
    )
    assert sim_vs_real(real=real, sim=sim, **draw).resampled == (
        "episodes, paired by seed within each of 2 sets of seeds"
    )
    both = sim_vs_real(real=real, sim=episodes(SIM, rng.random(40)), **draw)
    assert both.resampled == "episodes, paired by seed over all policies and both sides"


def test_tables_on_the_same_seeds_share_their_draws(rng):
    same = {seed: bool(u < 0.5) for seed, u in enumerate(rng.random(30))}
    other = {seed + 100: value for seed, value in same.items()}
    drawn = resampled_rates([same, dict(reversed(same.items())), other], 500, rng)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 0.2
    assert drawn[:, 0].mean() == pytest.approx(np.mean(list(same.values())), abs=0.02)


def test_the_same_call_gives_the_same_interval():
    once, again = (sim_vs_real(real=REAL, sim=SIM, resamples=300) for _ in range(2))
    assert once == again
    assert once != sim_vs_real(real=REAL, sim=SIM, resamples=300, seed=1)
    low, high = once.mmrv_interval
    assert 0 <= low <= once.mmrv <= high


@pytest.mark.parametrize("spread", [0.02, 0.2])
def test_the_truth_is_covered_about_as_often_as_promised(rng, spread):
    """Ten policies, 60 episodes each, fresh seeds on both sides; truth from the rates themselves.

    Percentile intervals alone cover hardly any correlation where the spread is small.
    """
    names = [f"p{i}" for i in range(10)]
    real = dict(zip(names, np.linspace(0.1, 0.9, 10)))
    hits, runs = np.zeros(2), 100
    for _ in range(runs):
        sim = {n: float(np.clip(r + rng.normal(0, spread), 0, 1)) for n, r in real.items()}
        measured = [
            {n: dict(enumerate((rng.random(60) < r).tolist(), 100 * side)) for n, r in rates.items()}
            for side, rates in enumerate((real, sim))
        ]
        found = sim_vs_real(real=measured[0], sim=measured[1], resamples=400)
        for i, (truth, (low, high)) in enumerate(
            [
                (mmrv(real=real, sim=sim), found.mmrv_interval),
                (pearson(real=real, sim=sim), found.pearson_interval),
            ]
        ):
            hits[i] += low <= truth <= high
    assert (hits >= 0.9 * runs).all(), hits


def test_a_better_simulator_is_seen_as_such_and_no_change_as_none(rng):
    names = [f"p{i}" for i in range(10)]
    real = dict(zip(names, np.linspace(0.1, 0.9, 10)))
    wrong = dict(zip(names, rng.permutation(np.linspace(0.1, 0.9, 10))))
    starts = rng.random(100)
    happened = episodes(real, starts)
    better = change(real=happened, before=episodes(wrong, starts), after=happened, resamples=500)
    assert better.mmrv < 0 and better.mmrv_interval[1] < 0
    assert better.pearson > 0 and better.pearson_interval[0] > 0
    assert better.mmrv == pytest.approx(better.after.mmrv - better.before.mmrv)
    same = change(real=happened, before=happened, after=happened, resamples=100)
    assert same.mmrv_interval == (0, 0) and same.pearson_interval == (0, 0)
