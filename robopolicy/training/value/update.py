"""One optimiser step of a critic."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from robopolicy.core.errors import ConfigError
from robopolicy.steering.objectives._objective import Objective
from robopolicy.training.config import LoopConfig
from robopolicy.training.distributed import Processes
from robopolicy.training.update import Update


class ValueUpdate(Update):
    """As ``Update``, where an objective takes the policy's place: it holds the critic and whatever else
    learns or is averaged, and gives the loss of a batch of transitions.

    Args:
        learner: on its device.
    Raises:
        ConfigError: several processes, or fp16 without a GPU.
    """

    def __init__(self, learner: Objective, config: LoopConfig, processes: Processes) -> None:
        self.learner = learner
        in_its_place: Any = learner
        super().__init__(in_its_place, config, processes)

    def _prepare(self) -> nn.Module:
        if self.processes.count > 1:
            raise ConfigError(
                f"a critic trains in one process, and {self.processes.count} were started: leave torchrun out"
            )
        if self.config.compile:
            for part in self.learner.critic.children():
                part.compile()
        return self.learner

    def _loss(self, batch: Any, rows: slice) -> Tensor:
        return self.learner.loss(batch.rows(rows), self.generator)
