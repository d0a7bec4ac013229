"""From a batch of windows to what the network is given: normalised, with embedded instructions, in place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopolicy.core.language import CLEAN_INSTRUCTION, INSTRUCTION, TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import Specs
from robopolicy.datasets.loader import TensorBatch
from robopolicy.datasets.windows import Batch, WindowSource
from robopolicy.runtime.language.choose import load_text_encoder
from robopolicy.training.config import LoopConfig
from robopolicy.training.data import normalised
from robopolicy.training.distributed import Processes
from robopolicy.training.phrasing import InstructionTable, Phrasings, read_phrasings

_PHRASING = 4  # part of the keys of random numbers, to tell what they are for


class Language:
    """How the episodes' instructions reach the policy.

    Args:
        config: see ``LoopConfig.instruction`` and ``phrasings``.
    Raises:
        ConfigError, UnknownNameError: no such encoder or file.
    """

    def __init__(self, config: LoopConfig) -> None:
        self.encoder: TextEncoder = load_text_encoder(config.instruction)
        self.phrasings: Phrasings = read_phrasings(Path(config.phrasings)) if config.phrasings else {}

    def table(self, source: WindowSource) -> InstructionTable:
        """Embeddings of what the windows' episodes were told."""
        return InstructionTable(source.instructions, self.encoder, self.phrasings)

    def tasks(self, source: WindowSource) -> list[Tensor]:
        """Of every instruction, the embeddings (count, dim) of all ways to say it."""
        texts = self.table(source).texts
        return [torch.from_numpy(self.encoder.encode(ways)) for ways in texts]


class Inputs:
    """Prepares batches for a policy.

    Args:
        table: of the source's instructions; None for a policy without language.
        share: rows of the global batch (``Processes.share``) that ``place`` gets in training; None where
            it takes batches as they are.
    """

    def __init__(
        self,
        specs: Specs,
        normalisers: Normalisers,
        table: InstructionTable | None,
        processes: Processes,
        *,
        seed: int,
        share: NDArray[np.int64] | None = None,
    ) -> None:
        self._specs, self._normalisers, self._table = specs, normalisers, table
        self._processes, self._seed, self._share = processes, seed, share

    @property
    def normalise(self) -> partial[Batch]:
        """For the loader, in whose thread it runs."""
        return partial(normalised, specs=self._specs, normalisers=self._normalisers)

    def place(self, batch: TensorBatch, step: int | None) -> TensorBatch:
        """On the device, with instructions.

        Args:
            step: of the training, which keys how they are phrased; None takes them as they are.
        """
        if self._table is not None:
            rows = [torch.from_numpy(part) for part in self._embedded(batch.instruction.numpy(), step)]
            rows = [part.pin_memory() for part in rows] if batch.action.is_pinned() else rows
            told = dict(zip((INSTRUCTION, CLEAN_INSTRUCTION), rows))
            batch = dataclasses.replace(batch, observation={**batch.observation, **told})
        return batch.to(self._processes.device)

    def _embedded(self, index: NDArray[np.int64], step: int | None) -> Sequence[NDArray[np.float32]]:
        """See ``InstructionTable.noisy_and_clean``; drawn for the whole batch, as one process does."""
        assert self._table is not None
        if step is None:
            return self._table.noisy_and_clean(index)
        share = np.arange(len(index)) if self._share is None else self._share
        whole = np.zeros(len(share) * (1 if self._share is None else self._processes.count), np.int64)
        whole[share] = index  # what is drawn for a row does not depend on the others' instructions
        found = self._table.noisy_and_clean(whole, keyed_rng(self._seed, step, _PHRASING))
        return [part[share] for part in found]
