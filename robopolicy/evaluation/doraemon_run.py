"""DORAEMON's loop for a policy that stays as it is: draw, evaluate, adapt the ranges, log.

Since the policy does not change, the episodes of all iterations count in every estimate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy.evaluation.betas import Betas
from robopolicy.evaluation.doraemon import Batch, DoraemonConfig, doraemon_step
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.statistics import Interval, wilson_interval

_RANGE = 0.05  # share of the draws beyond either end of the ranges that are logged and drawn


@dataclass(frozen=True)
class Iteration:
    """One line of the log.

    Args:
        a, b: of the distributions that the episodes were drawn from; low, high: between which 90 % lie.
        entropy: of them in nats; 0 is uniform.
        successes, episodes, interval: measured under them, with the 95 % Wilson interval of the rate.
        outcome, predicted_success, kl, ess, trust: of the step to the next ones; see ``doraemon.Step``.
    """

    iteration: int
    a: Mapping[str, float]
    b: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    entropy: float
    successes: int
    episodes: int
    interval: Interval
    outcome: str
    predicted_success: float
    kl: float
    ess: float
    trust: float


def run_doraemon(
    betas: Betas,
    evaluate: Callable[[Betas, int], Sequence[EpisodeResult]],
    iterations: int,
    config: DoraemonConfig,
    log: Path,
    on_iteration: Callable[[Iteration], None] = lambda iteration: None,
) -> list[Iteration]:
    """Adapt the ranges, iteration by iteration.

    Args:
        betas: where to begin.
        evaluate: given distributions and the iteration, episodes drawn from them, with what was drawn among
            their conditions.
        log: a JSONL file; one line is added per iteration.
    Raises:
        ConfigError: fewer than one iteration, or episodes that do not say what was drawn.
    """
    if iterations < 1:
        raise ConfigError(f"iterations must be >= 1, got {iterations}")
    done: list[Iteration] = []
    batches: list[Batch] = []  # all of them: the policy does not change
    for index in range(iterations):
        episodes = evaluate(betas, index)
        drawn = drawn_values(episodes, betas.names)
        won = np.array([episode.success for episode in episodes], dtype=bool)
        batches.append(Batch(betas, drawn, won))
        step = doraemon_step(batches, config)
        low, high = betas.quantiles(_RANGE), betas.quantiles(1 - _RANGE)
        done.append(
            Iteration(
                iteration=index,
                a=dict(zip(betas.names, betas.a)),
                b=dict(zip(betas.names, betas.b)),
                low=dict(zip(betas.names, low.tolist())),
                high=dict(zip(betas.names, high.tolist())),
                entropy=betas.entropy(),
                successes=int(won.sum()),
                episodes=len(won),
                interval=wilson_interval(int(won.sum()), len(won)),
                outcome=step.outcome,
                predicted_success=step.success,
                kl=step.kl,
                ess=step.ess,
                trust=step.trust,
            )
        )
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(done[-1])) + "\n")
        on_iteration(done[-1])
        betas = step.new
    return done


def drawn_values(episodes: Sequence[EpisodeResult], names: Sequence[str]) -> np.ndarray[Any, Any]:
    """(n, dim) what was drawn for the parameters; ConfigError lists what the episodes have instead."""
    for episode in episodes:
        missing = [name for name in names if name not in episode.conditions]
        if missing:
            raise ConfigError(f"episodes do not say what {missing} was, only {sorted(episode.conditions)}")
    return np.array([[float(e.conditions[name]) for name in names] for e in episodes])


def draw_progress(path: Path, iterations: Sequence[Iteration], betas: Betas, alpha: float) -> None:
    """A PNG: the range of every parameter, then entropy, success and effective sample size.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("plots need matplotlib: pip install 'robopolicy[viz]'") from error
    rows = -(-(betas.dim + 3) // 3)
    figure = Figure(figsize=(10.5, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 3, squeeze=False, sharex=True).flatten().tolist()
    x = [i.iteration for i in iterations]
    for axis, name, low, high in zip(axes, betas.names, betas.low, betas.high):
        axis.fill_between(x, [i.low[name] for i in iterations], [i.high[name] for i in iterations], alpha=0.4)
        axis.axhline(low, color="grey", linewidth=0.8)
        axis.axhline(high, color="grey", linewidth=0.8)
        axis.set_title(f"{name}: 90 % of the draws", fontsize=10)
    entropy, success, ess = axes[betas.dim : betas.dim + 3]
    entropy.plot(x, [i.entropy for i in iterations], marker=".")
    entropy.set_title("entropy [nats]; 0 is uniform", fontsize=10)
    rates = np.array([i.successes / i.episodes for i in iterations])
    spread = np.abs(np.array([i.interval for i in iterations]).T - rates)
    success.errorbar(x, rates, yerr=spread, marker=".", capsize=2)
    success.axhline(alpha, color="black", linestyle="--", linewidth=0.8)
    success.set(ylim=(-0.03, 1.03))
    success.set_title("success rate; dashed: what must be kept", fontsize=10)
    ess.plot(x, [i.ess / i.episodes for i in iterations], marker=".")
    ess.set_ylim(bottom=0)
    ess.set_title("effective sample size / episodes per iteration", fontsize=10)
    for axis in axes[betas.dim + 3 :]:
        axis.set_visible(False)
    for axis in axes[: betas.dim + 3]:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
