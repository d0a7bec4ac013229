"""From a batch of transitions to what an objective is given."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robopolicy.core.normalise import Normalisers
from robopolicy.core.specs import Specs
from robopolicy.datasets.transitions import TransitionArrays, TransitionBatch
from robopolicy.datasets.windows import WindowSource
from robopolicy.training.distributed import Processes
from robopolicy.training.inputs import Inputs
from robopolicy.training.phrasing import InstructionTable
from robopolicy.training.value.policy import PolicyChunks


class ValueInputs(Inputs):
    """As ``Inputs``; adds what a policy would do, where there is one.

    Args:
        chunks: of every window of the source; None without a policy.
    """

    def __init__(
        self,
        specs: Specs,
        normalisers: Normalisers,
        table: InstructionTable | None,
        processes: Processes,
        *,
        seed: int,
        chunks: PolicyChunks | None,
    ) -> None:
        super().__init__(specs, normalisers, table, processes, seed=seed)
        self.chunks = chunks

    @property
    def normalise(self) -> partial[Any]:
        return partial(TransitionArrays.normalised, specs=self._specs, normalisers=self._normalisers)

    def states(self, source: WindowSource) -> NDArray[np.float32]:
        """(windows, features) normalised, of the newest observation, without cameras."""
        seen = {key: spec for key, spec in self._specs.observation.items() if spec.kind == "state"}
        if not seen:
            return np.zeros((len(source), 0), np.float32)
        specs = dataclasses.replace(self._specs, observation=seen)
        return np.concatenate(list(self._normalisers.observations(specs, source.observation).values()), -1)

    def place(self, batch: Any, step: int | None) -> Any:
        if self.chunks is not None:
            drawn = (self.chunks.take(index.numpy()) for index in (batch.index, batch.next_index))
            now, then = (torch.from_numpy(chunks) for chunks in drawn)
            batch = dataclasses.replace(batch, policy_chunks=now, next_policy_chunks=then)
        placed: TransitionBatch = super().place(batch, step)  # type: ignore[assignment]
        return placed
