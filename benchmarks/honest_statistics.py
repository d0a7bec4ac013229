"""Do the intervals and tests of the evaluation hold what they promise, and what does stopping early save?

python benchmarks/honest_statistics.py [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.special import gammaln

from robopolicy.evaluation.resampling import bootstrap_interval
from robopolicy.evaluation.sequential import log_e_value
from robopolicy.evaluation.sim_vs_real import correlation, rank_violation
from robopolicy.evaluation.statistics import paired_difference_interval

ALPHA = 0.05
Ints = NDArray[np.int64]


def paired_coverage(count: int, correction: float) -> dict[str, float]:
    """Exact coverage of Tango's 95 % interval over a grid of rates and correlations."""
    tables = [(gain, loss) for gain in range(count + 1) for loss in range(count + 1 - gain)]
    bounds = np.array(
        [paired_difference_interval(gains=g, losses=b, count=count, correction=correction) for g, b in tables]
    )
    gains, losses = np.array(tables).T
    ways = gammaln(count + 1) - gammaln(gains + 1) - gammaln(losses + 1) - gammaln(count - gains - losses + 1)
    covered, widths = [], []
    rates = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
    for first, second, phi in itertools.product(rates, rates, (0.0, 0.3, 0.6, 0.8)):
        both = first * second + phi * np.sqrt(first * (1 - first) * second * (1 - second))
        gain, loss = second - min(both, first, second), first - min(both, first, second)
        cells = np.log(np.maximum([gain, loss, 1 - gain - loss], 1e-300))
        chance = np.exp(ways + gains * cells[0] + losses * cells[1] + (count - gains - losses) * cells[2])
        hit = (bounds[:, 0] <= second - first + 1e-9) & (second - first - 1e-9 <= bounds[:, 1])
        covered.append(float(chance[hit].sum()))
        widths.append(float(chance @ (bounds[:, 1] - bounds[:, 0])))
    return {
        "pairs": count, "correction": correction,
        "lowest": min(covered), "mean": float(np.mean(covered)), "width": float(np.mean(widths)),
    }  # fmt: skip


def paths(gain: float, loss: float, runs: int, length: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Running counts of gains and losses, each (runs, length)."""
    draws = rng.random((runs, length))
    return (draws < gain).cumsum(axis=1), ((draws >= gain) & (draws < gain + loss)).cumsum(axis=1)


def mcnemar_p(gains: Ints, losses: Ints) -> NDArray[np.float64]:
    p: NDArray[np.float64] = np.minimum(
        1, 2 * stats.binom.cdf(np.minimum(gains, losses), gains + losses, 0.5)
    )
    return p


def false_alarms(rate: float, runs: int, length: int) -> dict[str, float]:
    """Equal policies, looked at after every pair: how often each test ever claims a difference."""
    gains, losses = paths(rate * (1 - rate), rate * (1 - rate), runs, length, np.random.default_rng(0))
    sequential = (log_e_value(gains, losses) >= -np.log(ALPHA)).any(axis=1).mean()
    peeking = (mcnemar_p(gains, losses) <= ALPHA).any(axis=1).mean()
    return {"rate": rate, "pairs": length, "sequential": float(sequential), "mcnemar_peeking": float(peeking)}


def saving(first: float, second: float, power: float, runs: int) -> dict[str, float]:
    """Mean pairs of the sequential test, capped so as to have this power, and the fixed McNemar test's n."""
    length = 1500
    gain, loss = second * (1 - first), first * (1 - second)
    gains, losses = paths(gain, loss, runs, length, np.random.default_rng(1))
    crossed = log_e_value(gains, losses) >= -np.log(ALPHA)
    stop = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, length + 1)
    cap = int(np.quantile(stop, power, method="higher"))
    rejects = (mcnemar_p(gains, losses) <= ALPHA).mean(axis=0)
    # the power of an exact test saws up and down with n: the first n from which it stays above
    fixed = length - int((rejects[::-1] >= power).cumprod().sum()) + 1
    mean = float(np.minimum(stop, cap).mean())
    return {
        "first": first, "second": second, "power": power, "fixed": fixed, "cap": cap,
        "mean": mean, "saved": 1 - mean / fixed,
    }  # fmt: skip


def agreement_coverage(episodes: int, spread: float, runs: int) -> dict[str, float]:
    """How often intervals of rank violation and correlation cover the truth: ours, and mere percentiles."""
    rng, resamples = np.random.default_rng(2), 400
    hits, plain = np.zeros(2), np.zeros(2)
    for _ in range(runs):
        real = np.linspace(0.1, 0.9, 10)
        sim = np.clip(real + rng.normal(0, spread, 10), 0, 1)
        measured, drawn = [], []
        for rates in (real, sim):
            outcomes = (rng.random((episodes, 10)) < rates).astype(float)
            counts = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples).astype(float)
            measured.append(outcomes.sum(axis=0) / episodes)
            drawn.append(counts @ outcomes / episodes)
        for i, (of, bounds) in enumerate([(violation, (0.0, 1.0)), (correlation, (-1.0, 1.0))]):
            low, high = bootstrap_interval(of(*drawn), float(of(*measured)), bounds=bounds)
            hits[i] += low <= of(real, sim) <= high
            low, high = np.nanquantile(of(*drawn), [0.025, 0.975])
            plain[i] += low <= of(real, sim) <= high
    return {
        "episodes": episodes, "spread": spread, "mmrv": hits[0] / runs, "pearson": hits[1] / runs,
        "mmrv_percentile": plain[0] / runs, "pearson_percentile": plain[1] / runs,
    }  # fmt: skip


def violation(real: NDArray[np.float64], sim: NDArray[np.float64]) -> NDArray[np.float64]:
    return rank_violation(real=real, sim=sim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    runs = 1000 if given.quick else 10_000
    counts = (10, 20) if given.quick else (10, 20, 40, 60, 100)
    pairs = [(0.5, 0.8), (0.6, 0.9), (0.7, 0.9), (0.8, 0.9)]
    result: dict[str, list[dict[str, float]]] = {
        "paired_interval_coverage": [paired_coverage(n, c) for n in counts for c in (0.0, 0.5)],
        "false_alarms": [false_alarms(rate, runs, 500) for rate in (0.5, 0.8, 0.95)],
        "saving": [saving(*rates, power, runs // 5) for rates in pairs for power in (0.8, 0.95)],
        "agreement_coverage": [
            agreement_coverage(n, spread, runs // 20) for n in (60, 100, 300) for spread in (0.02, 0.1, 0.3)
        ],
    }
    for title, rows in result.items():
        show(title, rows)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title.replace("_", " "))
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
