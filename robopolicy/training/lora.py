"""Low-rank adapters (LoRA, Hu et al. 2021) through peft, merged into plain weights when a policy is saved."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy.training.optimiser import named_so

#: What is adapted; transposed convolutions and stacked experts are not, since peft has no adapter for them.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
#: Parts whose weights are read without calling their layers, past any adapter.
READ_DIRECTLY = ("film", "cross_attention.query", "cross_attention.output", "modulation")


@dataclass(frozen=True)
class LoraConfig:
    """Adapters: weight' = weight + alpha / rank * B A.

    Args:
        rank: of the product B A.
        alpha: its scale times the rank.
        targets: beginnings of the names of layers to adapt ("denoiser"); empty takes every linear layer and
            convolution.
    Raises:
        ConfigError: names the field.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ConfigError(f"rank must be >= 1 and alpha positive, got {self.rank} and {self.alpha}")


def add_adapters(
    module: nn.Module, config: LoraConfig, *, without: frozenset[str] = frozenset()
) -> list[str]:
    """Put adapters into ``module``, which at first change nothing, and freeze all else.

    Args:
        without: parameters whose layers get no adapter, being trained whole.
    Returns:
        names of the adapted layers.
    Raises:
        ConfigError: no layer fits the targets; MissingDependencyError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError("LoRA needs peft: pip install robopolicy[train]") from error
    layers = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, LAYERS)
        and f"{name}.weight" not in without
        and not any(f".{part}." in f".{name}." for part in READ_DIRECTLY)
        and (not config.targets or named_so(name, config.targets))
    ]
    if not layers:
        raise ConfigError(f"no linear layer or convolution begins with any of {list(config.targets)}")
    options = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=layers)  # type: ignore[arg-type]
    peft.inject_adapter_in_model(options, module)
    return layers


def plain_weights(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the policy without adapters, which computes the same.

    Args:
        module: with adapters, or without any: then ``weights`` come back as they are.
        weights: in the form of its ``state_dict``, averaged ones for instance.
    """
    if not any(".lora_A." in name for name in weights):
        return weights
    merged = copy.deepcopy(module)
    merged.load_state_dict(weights)
    for layer in _adapted(merged):
        layer.merge()
    return {
        name.replace(".base_layer.", "."): value.detach()
        for name, value in merged.state_dict().items()
        if ".lora_" not in name
    }


def _adapted(module: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
