"""Several processes that train one policy as one process would: the same batches, the same noise.

Processes come from ``torchrun`` or ``accelerate launch``, on one machine or several; gradients are averaged
by torch's DistributedDataParallel, which accelerate sets up for the device at hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from robopolicy.core.errors import ConfigError, MissingDependencyError, RobopolicyError
from robopolicy.models.policy_module import PolicyModule
from robopolicy.training.shared_draws import SharedDraws


class Objective(nn.Module):
    """A policy's training loss as one ``forward``, which is what can be spread over processes or compiled."""

    def __init__(self, policy: PolicyModule, rank: int = 0, count: int = 1) -> None:
        super().__init__()
        self.policy = policy
        self.rank, self.count = rank, count

    def forward(
        self, observation: dict[str, Tensor], action: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Scalar loss of this process's rows (batch, ...), see ``PolicyModule.loss``."""
        with self._draws(len(action)):
            return self.policy.loss(self.policy.encode(observation, generator), action, mask, generator)

    def _draws(self, rows: int) -> AbstractContextManager[Any]:
        return nullcontext() if self.count == 1 else SharedDraws(rows, self.rank, self.count)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank: of this process, 0 on the main one.
        count: of all.
        device: that this process computes on, "cpu" or "cuda:1".
        accelerator: accelerate's; None for a single process, which needs nothing of it.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    accelerator: Any = None

    @property
    def main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def share(self, batch_size: int, parts: int = 1) -> NDArray[np.int64]:
        """Rows of the global batch that are this process's: its share of each of the parts that the batch is
        computed in, one after the other. ConfigError unless all get as many."""
        if batch_size % (self.count * parts):
            into = f" in {parts} parts" if parts > 1 else ""
            raise ConfigError(
                f"batch_size {batch_size} cannot be shared by {self.count} processes evenly{into}: "
                f"it must be a multiple of {self.count * parts}"
            )
        return np.arange(batch_size).reshape(parts, self.count, -1)[:, self.rank].ravel()

    def prepare(self, policy: PolicyModule) -> nn.Module:
        """The policy's ``Objective``, whose ``backward`` averages gradients over all processes.

        Weights become the main process's. Build the optimiser from ``policy`` itself, as for one process.
        """
        objective = Objective(policy, self.rank, self.count).to(self.device)
        return objective if self.accelerator is None else self.accelerator.prepare_model(objective)

    def accumulate(self, objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one part of a batch: only the ``last`` part averages gradients."""
        if self.accelerator is None or last:
            return nullcontext()
        kept_apart: AbstractContextManager[Any] = self.accelerator.no_sync(objective)
        return kept_apart

    def average(self, values: Mapping[str, float]) -> dict[str, float]:
        """Mean of each value over the processes, the same on all of them."""
        if self.accelerator is None:
            return dict(values)
        total = torch.tensor([*values.values()], dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return dict(zip(values, (total / self.count).tolist()))

    def any(self, flag: bool) -> bool:
        """Whether any process says so: whatever stops one must stop all at the same step."""
        return self.average({"flag": float(flag)})["flag"] > 0

    def on_main(self, work: Callable[[], None]) -> None:
        """Do ``work`` on the main process while the others wait; where it fails, it fails on all.

        Raises:
            RobopolicyError: elsewhere than on the main process, with the message of what was raised there.
        """
        failure: BaseException | None = None
        if self.main:
            try:
                work()
            except Exception as error:
                failure = error
        if self.accelerator is not None:
            said = [str(failure) if failure else None]
            distributed.broadcast_object_list(said, src=0)
            if said[0] is not None and not self.main:
                raise RobopolicyError(f"the main process failed: {said[0]}")
        if failure is not None:
            raise failure

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the group; nothing can be averaged afterwards."""
        if self.accelerator is not None and distributed.is_initialized():
            distributed.destroy_process_group()


def join(device: str = "auto") -> Processes:
    """The processes that a launcher started, or this one alone.

    Args:
        device: "auto" takes a GPU per process where there are any; "cpu" and "cuda" insist.
    Raises:
        ConfigError: "cuda" without a GPU for every process.
        MissingDependencyError: several processes without accelerate.
    """
    graphics = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(device=("cuda" if graphics else "cpu") if device == "auto" else device)
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and here > graphics:
        raise ConfigError(f"{here} processes on this machine but {graphics} GPUs; start as many or fewer")
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise MissingDependencyError(
            "several processes need accelerate: pip install robopolicy[train]"
        ) from error
    on_cpu = device == "cpu" or here > graphics
    # parts of a policy may sit out a batch (the routers of other tasks), hence the search for unused ones
    options = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[options])
    place = "cpu" if on_cpu else f"cuda:{local}"
    return Processes(accelerator.process_index, accelerator.num_processes, place, accelerator)
