"""One optimiser step: forward and backward in parts, clipping, the step itself, the average of weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.datasets.loader import TensorBatch
from robopolicy.models.policy_module import PolicyModule
from robopolicy.training.config import LoopConfig
from robopolicy.training.distributed import Processes
from robopolicy.training.ema import Ema
from robopolicy.training.optimiser import build_optimiser, clip_gradients

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Update:
    """Everything that changes from step to step, the random numbers included.

    Args:
        policy: on its device.
    Raises:
        ConfigError: fp16 without a GPU.
    """

    def __init__(self, policy: PolicyModule, config: LoopConfig, processes: Processes) -> None:
        kind = torch.device(processes.device).type
        if config.precision == "fp16" and kind != "cuda":
            raise ConfigError(
                "precision 'fp16' needs a GPU: on a CPU a step takes some 50 times as long as in 'fp32'; "
                "'bf16' is the fast one there"
            )
        self.policy, self.config, self.processes = policy, config, processes
        self.optimiser, self.schedule = build_optimiser(policy, config, config.steps)
        self._parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.objective = self._prepare()
        self.ema = Ema(policy, power=config.ema_power)
        self.scaler = torch.amp.GradScaler(kind, enabled=config.precision == "fp16")
        self.generator = torch.Generator(processes.device).manual_seed(config.seed)
        self._kind = kind
        self.prompt = kind == "cpu"
        self.stepping = False  # whether weights may be half changed

    def _prepare(self) -> nn.Module:
        """What is called for the loss."""
        if self.config.compile:
            for part in self.policy.children():  # loss and encode are no forward, what they call is
                part.compile()
        return self.processes.prepare(self.policy)

    def autocast(self) -> torch.autocast:
        """Around every forward pass."""
        dtype = DTYPES[self.config.precision]
        return torch.autocast(self._kind, dtype, enabled=dtype is not torch.float32)

    def __call__(self, batch: TensorBatch) -> Tensor:
        """Change the weights once.

        Returns:
            (2,) loss and norm of its gradient before clipping, still on the device.
        Raises:
            NonFiniteValueError: one of them is no finite number; the weights are as they were. On a GPU,
            where looking would make it wait, the caller looks later.
        """
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._gradients(batch)
        self.scaler.unscale_(self.optimiser)
        norm = clip_gradients(self._parameters, self.config.gradient_clip)
        values = torch.stack([loss, norm.float()])
        if self.prompt:
            self.check(values.tolist())
        self.stepping = True
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        self.policy.after_step()
        self.ema.update()
        self.stepping = False
        return values

    def check(self, values: list[float]) -> None:
        """Raise NonFiniteValueError unless loss and gradient norm are finite."""
        loss, norm = values
        if not math.isfinite(loss):
            raise NonFiniteValueError(f"loss is {loss}")
        if not math.isfinite(norm) and not self.scaler.is_enabled():  # fp16 skips such steps by itself
            raise NonFiniteValueError(f"the gradient's norm is {norm}")

    def _gradients(self, batch: TensorBatch) -> Tensor:
        parts = self.config.accumulate
        rows = len(batch.action) // parts
        total = torch.zeros((), device=batch.action.device)
        for part in range(parts):
            mine = slice(part * rows, (part + 1) * rows)
            with self.processes.accumulate(self.objective, part == parts - 1):
                with self.autocast():
                    loss = self._loss(batch, mine)
                loss = loss.float() / parts
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _loss(self, batch: TensorBatch, rows: slice) -> Tensor:
        """Scalar, of these rows of a batch."""
        observation = {key: value[rows] for key, value in batch.observation.items()}
        loss: Tensor = self.objective(observation, batch.action[rows], batch.mask[rows], self.generator)
        return loss

    def random_state(self) -> dict[str, Any]:
        """Of the noise and augmentation, and of torch's own generators, which dropout draws from."""
        state = {"noise": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self._kind == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.processes.device)
        return state

    def state(self, random: dict[str, Any] | None = None) -> dict[str, Any]:
        """What ``restore`` takes; ``random`` instead of the present random state."""
        return {
            "policy": self.policy.state_dict(),
            "ema": self.ema.state(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random or self.random_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on exactly from a ``state``; RuntimeError or ValueError where it is of another policy."""
        self.policy.load_state_dict(state["policy"], strict=True)
        self.ema.restore(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        random = state["random"]
        self.generator.set_state(random["noise"])
        torch.set_rng_state(random["torch"])
        if "cuda" in random and self._kind == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.processes.device)
