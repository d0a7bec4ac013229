"""Our training loop in turns of some steps, and the floor: the same step on tensors that lie ready."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch
from throughput import readers

from robopolicy.core.normalise import Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.loader import Loader, TensorBatch
from robopolicy.models.policy_module import PolicyModule
from robopolicy.policies.diffusion_unet import build
from robopolicy.training.allocator import keep_freed_memory
from robopolicy.training.config import TrainConfig
from robopolicy.training.distributed import Processes
from robopolicy.training.inputs import Inputs
from robopolicy.training.update import Update
from training.cases import Case

IN_MEMORY = 2 << 30
AHEAD = 3  # batches that a loader may have prepared while another way took its turn


class Ours:
    """What ``robopolicy train`` puts together, without checkpoints and trackers.

    Args:
        folder: a new one, for the store.
        memory_bytes: for decoded frames; 0 decodes them when they are sampled.
    """

    def __init__(self, case: Case, folder: Path, memory_bytes: int) -> None:
        keep_freed_memory()
        if not folder.exists():
            readers.write_store(case.workload, folder, "jpeg")
        store = readers.EpisodeStore.open(folder)
        windows = readers.open_windows(case.workload, store, memory_bytes, threads=TrainConfig.loader_threads)
        torch.manual_seed(0)
        module: PolicyModule = build(case.config, PolicySpecs(windows.specs, readers.HORIZONS))
        normalisers = Normalisers.fit(windows.specs, windows.observation, windows.action, "min_max")
        config = TrainConfig(batch_size=case.batch_size, horizons=readers.HORIZONS, device="cpu")
        processes = Processes()
        self.update = Update(module, config, processes)
        self.inputs = Inputs(windows.specs, normalisers, None, processes, seed=0)
        loader = Loader(windows, case.batch_size, seed=0, transform=self.inputs.normalise)
        self.batches = loader.batches()
        self.parameters = sum(p.numel() for p in module.parameters())
        self.step = 0
        batch = next(self.batches)
        self._ready = dataclasses.replace(
            batch, observation={key: value.clone() for key, value in batch.observation.items()}
        )

    def train(self, steps: int) -> tuple[float, float]:
        """Seconds of so many steps, by the clock and of processor time."""
        for _ in range(AHEAD):
            next(self.batches)
        started, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.step += 1
            self.update(self.inputs.place(next(self.batches), self.step)).tolist()
        return time.perf_counter() - started, time.process_time() - processor

    def resident(self, steps: int) -> tuple[float, float]:
        """As ``train``, of forward and backward passes and optimiser steps on one batch, nothing else."""
        batch, module, optimiser = self._ready, self.update.policy, self.update.optimiser
        started, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            loss = self._loss(module, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return time.perf_counter() - started, time.process_time() - processor

    def _loss(self, module: PolicyModule, batch: TensorBatch) -> torch.Tensor:
        conditioning = module.encode(batch.observation, self.update.generator)
        return module.loss(conditioning, batch.action, batch.mask, self.update.generator)

    def close(self) -> None:
        self.batches.close()
