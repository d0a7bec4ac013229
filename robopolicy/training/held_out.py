"""The averaged weights' loss on episodes that were not trained on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from robopolicy.core.policy import keyed_rng
from robopolicy.datasets.loader import TensorBatch
from robopolicy.datasets.windows import WindowSource
from robopolicy.training.config import LoopConfig
from robopolicy.training.inputs import Inputs
from robopolicy.training.update import Update

_CHOICE = 5  # part of the keys of random numbers, to tell what they are for


def held_out_loss(update: Update, source: WindowSource, inputs: Inputs, config: LoopConfig) -> float:
    """Mean loss over the held-out windows, or as many as ``config.held_out.windows``.

    Windows and noise are the same at every measurement; images are not augmented; nothing of the training
    changes.
    """
    device = torch.device(update.processes.device)
    generator = torch.Generator(device).manual_seed(config.seed)
    total, count = 0.0, 0
    policy = update.policy.eval()
    try:
        with update.ema.in_place(), torch.no_grad(), update.autocast():
            for host in _batches(source, inputs, config):
                batch = inputs.place(host, None)
                loss = policy.loss(policy.encode(batch.observation), batch.action, batch.mask, generator)
                total += float(loss) * len(batch.action)
                count += len(batch.action)
    finally:
        policy.train()
    return total / count


def _batches(source: WindowSource, inputs: Inputs, config: LoopConfig) -> Iterator[TensorBatch]:
    chosen = keyed_rng(config.seed, _CHOICE).permutation(len(source))[: config.held_out.windows]
    rows = config.batch_size // config.accumulate
    for start in range(0, len(chosen), rows):
        ready = inputs.normalise(source.batch(np.sort(chosen[start : start + rows])))
        yield TensorBatch(
            {key: torch.from_numpy(value) for key, value in ready.observation.items()},
            torch.from_numpy(ready.action),
            torch.from_numpy(ready.mask),
            torch.from_numpy(ready.instruction),
        )
