"""AdamW over named groups of parameters: a rate of its own for the encoder, parts that stay frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from robopolicy.core.errors import ConfigError

SCHEDULES = ("cosine", "linear", "constant")
#: What the parameters of every policy's encoder lie under; of a critic's they are further down.
ENCODER = "encoder."


@dataclass(frozen=True)
class OptimiserConfig:
    """How weights move.

    Args:
        learning_rate: peak of the schedule.
        weight_decay: of AdamW, per unit of learning rate.
        decay_all: decay biases and norms as well; False spares what has fewer than two axes.
        betas: of AdamW.
        encoder_rate: learning rate of the encoder relative to ``learning_rate``.
        frozen: beginnings of the names of parameters that stay as they are ("encoder.vision", say).
        warmup_steps: of linear warm-up.
        schedule: after it, "cosine" or "linear" to zero, or "constant".
        gradient_clip: largest norm of all gradients together; 0 does not clip.
    Raises:
        ConfigError: names the field.
    """

    learning_rate: float = 5e-4
    weight_decay: float = 1e-6
    decay_all: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    encoder_rate: float = 1.0
    frozen: tuple[str, ...] = ()
    warmup_steps: int = 200
    schedule: str = "cosine"
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule {self.schedule!r} is not one of {SCHEDULES}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be in [0, 1), got {self.betas}")
        for name in ("weight_decay", "encoder_rate", "warmup_steps", "gradient_clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")


def build_optimiser(module: nn.Module, config: OptimiserConfig, steps: int) -> tuple[AdamW, LambdaLR]:
    """Freeze what the config names, and optimise what then still asks for gradients.

    Args:
        steps: of the whole training, over which the schedule falls.
    Returns:
        the optimiser and its schedule; step both once per update.
    Raises:
        ConfigError: a name of ``frozen`` begins no parameter's, or nothing is left to train.
    """
    freeze(module, config.frozen)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = config.encoder_rate if f".{ENCODER}" in f".{name}" else 1.0
            decay = config.weight_decay if config.decay_all or parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise ConfigError(f"nothing is left to train: frozen are {list(config.frozen)}")
    named = [
        {"params": parameters, "lr": config.learning_rate * rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    on = {parameter.device.type for parameters in groups.values() for parameter in parameters}
    optimiser = AdamW(named, config.learning_rate, config.betas, fused=on <= {"cpu", "cuda"} or None)
    return optimiser, LambdaLR(optimiser, partial(rate_factor, steps=steps, config=config))


def freeze(module: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Parameters whose names begin so ask for no gradient: neither they nor their average moves."""
    names = [name for name, _ in module.named_parameters()]
    for prefix in prefixes:
        if not any(named_so(name, (prefix,)) for name in names):
            known = sorted({".".join(name.split(".")[:2]) for name in names})
            raise ConfigError(f"no parameter's name begins with {prefix!r}; there are {known}")
    for name, parameter in module.named_parameters():
        if named_so(name, prefixes):
            parameter.requires_grad_(False)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients down together to a norm of ``limit``; 0 does not.

    Returns:
        () their norm before. On a CPU gradients within the limit are not even read a second time.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit and (norm.device.type != "cpu" or norm > limit):
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def rate_factor(step: int, *, steps: int, config: OptimiserConfig) -> float:
    """Learning rate after ``step`` updates, relative to its peak."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    done = min(1.0, step / steps)
    falls = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
    return warmup * falls[config.schedule]


def trainable_parameters(module: nn.Module) -> tuple[int, int]:
    """How many numbers are trained, and how many there are."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def named_so(name: str, beginnings: Sequence[str]) -> bool:
    """Whether a parameter's or layer's name is one of these or lies under it ("encoder" or "encoder.")."""
    return any(name == beginning or name.startswith(beginning.rstrip(".") + ".") for beginning in beginnings)
