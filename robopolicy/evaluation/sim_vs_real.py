"""How well simulation predicts the real robot: rank violation and correlation over a set of policies.

Everything takes ``real`` and ``sim`` by keyword: the rank violation weighs by the real rates, so swapping
the two gives another, plausible number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.evaluation.resampling import (
    Outcomes,
    bootstrap_interval,
    rate,
    resampled_rates,
    seed_sets,
)
from robopolicy.evaluation.statistics import Interval

#: A policy's success rate, or its episodes as seed to success, from which rate and resamples are taken.
Measured = float | Outcomes
Table = Mapping[str, Measured]
Array = NDArray[np.float64]

RESAMPLES = 10_000
#: The published code adds this to Pearson's denominator; kept, so that figures agree with published ones.
PUBLISHED_EPSILON = 1e-8


@dataclass(frozen=True)
class SimVsReal:
    """Agreement of simulated with real success rates.

    Args:
        policies: what was compared, sorted.
        mmrv: mean maximum rank violation, 0 (all ranks agree) to 1. Noise in the rates only adds to it.
        pearson: -1 to 1; NaN where one side is constant. Noise in the rates weakens it.
        resampled: what the bootstrap drew: policies, or episodes and how they are paired.
        undefined_resamples: share of draws in which a side was constant, left out of pearson's interval.
    """

    policies: tuple[str, ...]
    mmrv: float
    mmrv_interval: Interval
    pearson: float
    pearson_interval: Interval
    resampled: str
    undefined_resamples: float
    real: Mapping[str, float] = field(default_factory=dict)
    sim: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What another simulator does to the agreement with one reality: after minus before, paired.

    ``mmrv`` below 0 and ``pearson`` above 0 are improvements.
    """

    before: SimVsReal
    after: SimVsReal
    mmrv: float
    mmrv_interval: Interval
    pearson: float
    pearson_interval: Interval


def mmrv(*, real: Table, sim: Table) -> float:
    """Mean maximum rank violation (SIMPLER, Li et al. 2024, section III-B).

    mean_i max_j |R_i - R_j| * [(S_i > S_j) != (R_i > R_j)], over all ordered pairs, as published code has
    it. So a tie on both sides agrees. Policies tied in simulation but not in reality are a violation of the
    really better one alone, policies tied in reality alone cost nothing, since |R_i - R_j| is 0.

    Raises:
        ConfigError: fewer than two policies, or the sides name different ones, which are listed.
        NonFiniteValueError: a rate is NaN or outside 0..1.
    """
    real_rates, sim_rates = _rates(real=real, sim=sim)
    return float(rank_violation(real=real_rates, sim=sim_rates))


def pearson(*, real: Table, sim: Table) -> float:
    """Pearson correlation of real and simulated rates, with the 1e-8 that SIMPLER's code has below the line.

    NaN where one side is constant (published code gives 0 there, or 1 when both are): such rates say
    nothing about correlation. Raises as ``mmrv``.
    """
    real_rates, sim_rates = _rates(real=real, sim=sim)
    return float(correlation(real_rates, sim_rates))


def sim_vs_real(
    *, real: Table, sim: Table, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> SimVsReal:
    """Both figures with bootstrap intervals.

    Where a side gives episodes they are resampled, and a side of mere rates is held fixed: the interval is
    about these policies. Where neither does, policies are resampled: it is about policies like these, and
    with fewer than ten of them it is rough.

    Raises:
        As ``mmrv``; ConfigError also where one side mixes rates and episodes.
    """
    point_real, point_sim = _rates(real=real, sim=sim)
    drawn, how = _resample({"real": real, "sim": sim}, resamples, np.random.default_rng(seed))
    violations, correlations = _both(real=drawn["real"], sim=drawn["sim"])
    violation, related = (float(value) for value in _both(real=point_real, sim=point_sim))
    names = sorted(real)
    return SimVsReal(
        policies=tuple(names),
        mmrv=violation,
        mmrv_interval=bootstrap_interval(violations, violation, bounds=(0, 1), confidence=confidence),
        pearson=related,
        pearson_interval=bootstrap_interval(correlations, related, bounds=(-1, 1), confidence=confidence),
        resampled=how,
        undefined_resamples=float(np.isnan(correlations).mean()),
        real=dict(zip(names, point_real.tolist())),
        sim=dict(zip(names, point_sim.tolist())),
    )


def change(
    *,
    real: Table,
    before: Table,
    after: Table,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Change:
    """Agreement of two simulators with the same reality, and their difference on the same draws."""
    first, second = (
        sim_vs_real(real=real, sim=sim, confidence=confidence, resamples=resamples, seed=seed)
        for sim in (before, after)
    )
    tables = {"real": real, "before": before, "after": after}
    drawn, _ = _resample(tables, resamples, np.random.default_rng(seed))
    earlier = _both(real=drawn["real"], sim=drawn["before"])
    later = _both(real=drawn["real"], sim=drawn["after"])
    violation, related = second.mmrv - first.mmrv, second.pearson - first.pearson
    return Change(
        before=first,
        after=second,
        mmrv=violation,
        mmrv_interval=bootstrap_interval(
            later[0] - earlier[0], violation, bounds=(-1, 1), confidence=confidence
        ),
        pearson=related,
        pearson_interval=bootstrap_interval(
            later[1] - earlier[1], related, bounds=(-2, 2), confidence=confidence
        ),
    )


def rank_violation(*, real: Array, sim: Array) -> Array:
    """``mmrv`` over the last axis, (..., policies) -> (...,)."""
    worst = np.zeros_like(real)
    for j in range(real.shape[-1]):
        disagree = (sim > sim[..., j : j + 1]) != (real > real[..., j : j + 1])
        np.maximum(worst, np.abs(real - real[..., j : j + 1]) * disagree, out=worst)
    mean: Array = worst.mean(axis=-1)
    return mean


def correlation(first: Array, second: Array) -> Array:
    """``pearson`` over the last axis, (..., policies) -> (...,)."""
    a = first - first.mean(axis=-1, keepdims=True)
    b = second - second.mean(axis=-1, keepdims=True)
    below = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    constant = (np.ptp(first, axis=-1) == 0) | (np.ptp(second, axis=-1) == 0)
    value: Array = np.where(constant, math.nan, (a * b).sum(axis=-1) / (below + PUBLISHED_EPSILON))
    return np.where((a == b).all(axis=-1) & ~constant, 1.0, value)


def _both(*, real: Array, sim: Array) -> tuple[Array, Array]:
    return rank_violation(real=real, sim=sim), correlation(real, sim)


def _rates(*, real: Table, sim: Table) -> tuple[Array, Array]:
    """Rates of both sides in the order of the sorted names."""
    if set(real) != set(sim):
        raise ConfigError(
            f"real and sim name different policies: only real {sorted(set(real) - set(sim))}, "
            f"only sim {sorted(set(sim) - set(real))}"
        )
    if len(real) < 2:
        raise ConfigError(f"ranks and correlation need at least two policies, got {sorted(real)}")
    sides = []
    for side, table in (("real", real), ("sim", sim)):
        rates = {name: rate(m) if isinstance(m, Mapping) else float(m) for name, m in table.items()}
        bad = {name: value for name, value in rates.items() if not 0 <= value <= 1}
        if bad:
            raise NonFiniteValueError(f"{side}: success rates lie in 0..1, got {bad}")
        sides.append(np.array([rates[name] for name in sorted(rates)]))
    return sides[0], sides[1]


def _resample(
    tables: Mapping[str, Table], resamples: int, rng: np.random.Generator
) -> tuple[dict[str, Array], str]:
    """Rates of every side, (resamples, policies), on common draws; and what was drawn."""
    names = sorted(tables["real"])
    rates = {side: _rates(real=tables["real"], sim=table)[1] for side, table in tables.items()}
    episodes: dict[str, list[Outcomes]] = {}
    for side, table in tables.items():
        given = [m for m in (table[name] for name in names) if isinstance(m, Mapping)]
        if given and len(given) < len(names):
            raise ConfigError(
                f"{side}: {len(given)} of {len(names)} policies give episodes; give all or none"
            )
        if given:
            episodes[side] = given
    if not episodes:
        chosen = rng.integers(len(names), size=(resamples, len(names)))
        return {side: values[chosen] for side, values in rates.items()}, "policies"
    flat = [table for given in episodes.values() for table in given]
    drawn = resampled_rates(flat, resamples, rng)
    result = {side: np.broadcast_to(values, (resamples, len(names))) for side, values in rates.items()}
    for place, side in enumerate(episodes):
        result[side] = drawn[:, place * len(names) : (place + 1) * len(names)]
    return result, _describe(episodes, list(tables), seed_sets(flat))


def _describe(episodes: Mapping[str, list[Outcomes]], sides: list[str], sets: int) -> str:
    fixed = [side for side in sides if side not in episodes]
    paired = "paired by seed over all policies" + (" and both sides" if not fixed else "")
    if sets > 1:
        paired = f"paired by seed within each of {sets} sets of seeds"
    return f"episodes, {paired}" + (f"; {' and '.join(fixed)} held fixed" if fixed else "")
