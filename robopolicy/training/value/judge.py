"""A critic before episodes that it was not trained on: its values, and what they are worth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopolicy.core.policy import keyed_rng
from robopolicy.datasets.loader import as_tensors
from robopolicy.datasets.transitions import TransitionBatch, Transitions
from robopolicy.models.critics import EnsembleCritic
from robopolicy.models.saved import read_weights
from robopolicy.training.loop import HELD_OUT, RANKS
from robopolicy.training.value.inputs import ValueInputs
from robopolicy.training.value.measures import (
    Bin,
    Judged,
    Rate,
    calibration,
    calibration_error,
    chunk_accuracy,
    discrimination_by_progress,
    nearest_failures,
    ranking_accuracy,
    spread,
)
from robopolicy.training.value.update import ValueUpdate

NEIGHBOURS = (-2, -1, 0, 1, 2)  # steps around a window whose chunks stand in for candidates
RUN = 16  # held-out windows that are chosen together
SIMILAR_S = 2.0  # by which the times of two situations that are compared may differ
SMALL_SPREAD = 0.01
_CHOICE, _BOOTSTRAP = 7, 8  # parts of the keys of random numbers, to tell what they are for


@dataclass(frozen=True)
class Findings:
    """What was measured, and what should worry its owner.

    Args:
        loss: of the objective. ranking: of all pairs, outcomes: of successes against failures.
        chunks: see ``measures.chunk_accuracy``.
        spread: see ``measures.spread``; ``spread_of`` says of which chunks.
    """

    judged: Judged
    loss: float
    ranking: Rate | None
    outcomes: Rate | None
    chunks: Rate | None
    by_progress: list[float | None]
    bins: list[Bin]
    spread: float
    spread_of: str

    def scalars(self) -> dict[str, float]:
        """For the metrics of a training; what cannot be said is left out."""
        found = {name: rate.value for name, rate in self._rates.items() if rate is not None}
        if chosen_by := [rate.value for rate in (self.ranking, self.chunks) if rate is not None]:
            found[RANKS] = float(np.mean(chosen_by))
        error = calibration_error(self.bins)
        return {HELD_OUT: self.loss, **found, "calibration_error": error, "spread": self.spread}

    @property
    def _rates(self) -> dict[str, Rate | None]:
        return {
            "ranking_accuracy": self.ranking,
            "outcome_accuracy": self.outcomes,
            "chunk_accuracy": self.chunks,
        }

    def warnings(self) -> list[str]:
        """Why candidates should perhaps not be chosen by these values."""
        said = []
        if self.ranking is None:
            said.append("the critic's ranking cannot be measured: no two held-out returns can be compared")
        elif self.ranking.interval[0] <= 0.5:
            low, high = self.ranking.interval
            said.append(
                f"the critic cannot be seen to rank: {self.ranking.value:.2f} of the held-out pairs are in "
                f"order, interval {low:.2f} to {high:.2f}, and 0.5 is chance"
            )
        if self.chunks is not None and self.chunks.interval[0] <= 0.5:
            low, high = self.chunks.interval
            said.append(
                f"the critic cannot be seen to tell chunks apart: in {self.chunks.value:.2f} of situations "
                f"what succeeded is valued above what failed, interval {low:.2f} to {high:.2f}"
            )
        if self.spread < SMALL_SPREAD:
            said.append(
                f"values hardly depend on the chunk: over {self.spread_of} they vary {self.spread:.4f} times "
                "as much as over states, so candidates will be chosen by little more than noise"
            )
        return said

    def tree(self) -> dict[str, Any]:
        """For ``value.json``."""
        return {
            **self.scalars(),
            **{name: None if rate is None else vars(rate) for name, rate in self._rates.items()},
            "discrimination_by_progress": self.by_progress,
            "spread_of": self.spread_of,
            "calibration": [vars(part) for part in self.bins],
            "windows": len(self.judged.value),
            "warnings": self.warnings(),
        }


class Judge:
    """Measures a critic in training, each time on the same held-out windows, with averaged weights and by the
    least of its members, as a reranker reads them by default. Nothing of the training changes."""

    def __init__(self, update: ValueUpdate, held_out: Transitions, inputs: ValueInputs) -> None:
        self._update, self._held_out, self._inputs = update, held_out, inputs
        config = update.config
        self._index = sampled(len(held_out), config.held_out.windows, keyed_rng(config.seed, _CHOICE))
        frame = self._judged(np.zeros(len(self._index)))
        self._pairs = nearest_failures(
            inputs.states(held_out)[self._index],
            frame.group,
            frame.time,
            frame.success,
            within=round(SIMILAR_S * held_out.specs.policy_rate),
        )

    def __call__(self, saved: Path | None = None) -> Findings:
        """Of the critic as it is, or of a ``saved`` one; its loss is then that beside what else the objective
        has learnt by now."""
        update, learner = self._update, self._update.learner.eval()
        generator = torch.Generator(torch.device(update.processes.device)).manual_seed(update.config.seed)
        won, lost = self._pairs
        try:
            with update.ema.in_place(), torch.no_grad(), update.autocast(), _weights(learner.critic, saved):
                seen = [self._look(index, generator) for index in self._parts(self._index)]
                losses = [loss for loss, part, _ in seen for _ in part]
                action, conditioning = torch.cat([s[1] for s in seen]), torch.cat([s[2] for s in seen])
                value = self._values(conditioning, action[:, None])[:, 0]
                other = self._values(conditioning[won], action[lost][:, None])[:, 0]
                chunks = self._over_chunks(conditioning, action)
        finally:
            learner.train()
        return self._findings(value, other, chunks, float(np.mean(losses)))

    def _parts(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        size = self._update.config.batch_size // self._update.config.accumulate
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _look(self, index: NDArray[np.int64], generator: torch.Generator) -> tuple[float, Tensor, Tensor]:
        """Loss, chunks and conditioning of some windows; what they are of may be large."""
        host = as_tensors(self._inputs.normalise(self._held_out.batch(index)), TransitionBatch)
        batch, learner = self._inputs.place(host, None), self._update.learner
        return float(learner.loss(batch, generator)), batch.action, learner.critic.encode(batch.observation)

    def _values(self, conditioning: Tensor, chunks: Tensor) -> NDArray[np.float64]:
        """(rows, n) the least of the members, of conditioning (rows, ...) and chunks (rows, n, ...)."""
        critic, found = self._update.learner.critic, [np.empty((0, chunks.shape[1]))]
        for rows in self._parts(np.arange(len(chunks))):
            part = slice(rows[0], rows[-1] + 1)
            found.append(critic.values(conditioning[part], chunks[part]).amin(-1).double().cpu().numpy())
        return np.concatenate(found)

    def _over_chunks(self, conditioning: Tensor, action: Tensor) -> NDArray[np.float64]:
        """(rows, chunks) values of a policy's chunks, or without one of those done a little before and after;
        NaN where none is at hand."""
        index, pool = self._index, self._inputs.chunks
        if pool is not None:
            drawn = torch.from_numpy(pool.take(index)).to(action.device)
            return self._values(conditioning, drawn)
        near = (np.arange(len(index))[:, None] + np.array(NEIGHBOURS)).clip(0, len(index) - 1)
        there = index[near] - index[:, None] == np.array(NEIGHBOURS)  # neither clipped nor left out
        there &= self._held_out.episode[index[near]] == self._held_out.episode[index][:, None]
        return np.where(there, self._values(conditioning, action[near]), np.nan)

    def _findings(
        self,
        value: NDArray[np.float64],
        other: NDArray[np.float64],
        chunks: NDArray[np.float64],
        loss: float,
    ) -> Findings:
        judged, (won, lost) = self._judged(value), self._pairs
        rng = partial(keyed_rng, self._update.config.seed, _BOOTSTRAP)
        return Findings(
            judged,
            loss,
            ranking_accuracy(judged, rng()),
            ranking_accuracy(judged, rng(), outcomes=True),
            chunk_accuracy(value[won], other, judged.episode[won], judged.episode[lost], rng()),
            discrimination_by_progress(judged),
            calibration(judged, rng()),
            spread(chunks),
            "the chunks done just before and after"
            if self._inputs.chunks is None
            else "the chunks of a policy",
        )

    def _judged(self, value: NDArray[np.float64]) -> Judged:
        held, index = self._held_out, self._index
        starts = np.searchsorted(held.episode, held.episode)
        lengths = np.bincount(held.episode)[held.episode]
        time = np.arange(len(held)) - starts
        return Judged(
            value,
            held.mc_return[index].astype(np.float64),
            np.unique(held.episode[index], return_inverse=True)[1],
            time[index],
            (time / lengths)[index],
            held.success[index].astype(np.float64),
            held.group[index],
        )


def sampled(count: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Sorted windows out of ``count``, in runs, so that those just before and after are among them."""
    starts = rng.permutation(-(-count // RUN)) * RUN
    index = (starts[:, None] + np.arange(RUN)).reshape(-1)
    return np.sort(index[index < count][:most])


@contextlib.contextmanager
def _weights(critic: EnsembleCritic, saved: Path | None) -> Iterator[None]:
    """Within it the critic has those of a ``saved`` one."""
    own = {name: weight.clone() for name, weight in critic.state_dict().items()}
    try:
        if saved is not None:
            read_weights(saved, critic)
        yield
    finally:
        critic.load_state_dict(own)
