"""What drawing and judging candidates costs on one observation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from inference.networks import DEFAULT

from robopolicy.core.policy import draw_noise, keyed_rng
from robopolicy.export.bundle import export_bundle
from robopolicy.export.options import ExportOptions
from robopolicy.models.critic_module import TorchCritic
from robopolicy.models.critics import CriticConfig, EnsembleCritic
from robopolicy.policies._saved import save_policy
from robopolicy.runtime import BundlePolicy
from robopolicy.runtime.reranking.build import build_reranker
from robopolicy.runtime.reranking.config import RerankConfig

BUDGET_MS = 100.0  # of a 10 Hz policy
WARM_UP = 3
MOST = 4096  # candidates that anyone would ask for


@dataclass(frozen=True)
class Row:
    """Of one number of candidates: medians of both parts, and the 99th percentile of their sum [ms]."""

    provider: str
    threads: int
    k: int
    draw_ms_p50: float
    score_ms_p50: float
    total_ms_p50: float
    total_ms_p99: float


def export_pair(bundle: Path) -> Path:
    """The default policy and the default critic in one bundle."""
    policy = DEFAULT.build()
    run = bundle.with_name("run")
    save_policy(
        run / "policy",
        family="diffusion_unet",
        config=DEFAULT.config,
        specs=policy.policy_specs,
        normalisers=policy.normalisers,
        weights=policy.module.state_dict(),
    )
    torch.manual_seed(1)
    critic = EnsembleCritic(CriticConfig(), policy.policy_specs)
    options = ExportOptions(form="step", candidates=(1,))
    export_bundle(run, bundle, critic=TorchCritic(critic, policy.normalisers), options=options)
    return bundle


def measure(policy: BundlePolicy, counts: Sequence[int], calls: int, *, threads: int) -> list[Row]:
    """``calls`` decisions for each number of candidates, in turns."""
    takers = {count: Decisions(policy, count) for count in counts}
    for _ in range(calls):
        for taker in takers.values():
            taker.decide()
    return [taker.row(threads) for taker in takers.values()]


class Decisions:
    """The same decision again and again, through the reranker."""

    def __init__(self, policy: BundlePolicy, count: int) -> None:
        self._reranker = build_reranker(policy, RerankConfig(count), critic=policy)
        self._provider, self._count = policy.provider, count
        self._noise = draw_noise(policy.policy_specs, count, keyed_rng(2, count))[None]
        rng = keyed_rng(1)
        self._window = {
            name: rng.uniform(-1, 1, (1, policy.policy_specs.horizons.observation, *spec.shape)).astype(
                spec.dtype
            )
            for name, spec in policy.policy_specs.specs.observation.items()
        }
        self.times = np.empty((0, 3))
        for _ in range(WARM_UP):
            self.decide(kept=False)

    def decide(self, *, kept: bool = True) -> None:
        began = time.perf_counter_ns()
        choice = self._reranker.choose(self._window, self._noise)
        total = time.perf_counter_ns() - began
        if kept:
            self.times = np.vstack([self.times, np.array([choice.draw_ns, choice.score_ns, total]) / 1e6])

    @property
    def p99(self) -> float:
        """Of the whole decision [ms]."""
        return float(np.percentile(self.times[:, 2], 99))

    def row(self, threads: int) -> Row:
        draw, score, total = np.percentile(self.times, 50, axis=0).tolist()
        return Row(self._provider, threads, self._count, draw, score, total, self.p99)


def share(rows: Sequence[Row], count: int) -> float:
    """Time of judging so many candidates over that of drawing them, by the medians."""
    (row,) = [row for row in rows if row.k == count]
    return row.score_ms_p50 / row.draw_ms_p50


def affordable(policy: BundlePolicy, rows: Sequence[Row], *, calls: int) -> int:
    """The largest number of candidates whose 99th percentile fits the budget, found by halving between two of
    the rows (or beyond the last) until a sixteenth apart; 0 where not even one fits.

    Args:
        calls: of each number that is tried; 0 tries none besides the rows.
    """
    fits = [row.k for row in rows if row.total_ms_p99 <= BUDGET_MS]
    low = max(fits, default=0)
    high = min((row.k for row in rows if row.k > low), default=0)
    if not calls:
        return low

    def is_fast_enough(count: int) -> bool:
        taker = Decisions(policy, count)
        for _ in range(calls):
            taker.decide()
        return taker.p99 <= BUDGET_MS

    while not high and low:
        if low >= MOST or not is_fast_enough(2 * low):
            high = 2 * low
        else:
            low *= 2
    while low and high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if is_fast_enough(middle) else (low, middle)
    return low
