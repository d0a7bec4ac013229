"""Checks that the configs of several families share."""

from __future__ import annotations

import math
from typing import Any

from robopolicy.core.errors import ConfigError


def check_transformer(config: Any) -> None:
    """ConfigError that names the field unless ``dim``, ``layers`` and ``heads`` make a transformer."""
    check_counts(config, "layers", "heads")
    if config.dim < 4 or config.dim % 2 or config.dim % config.heads:
        raise ConfigError(f"dim {config.dim} must be >= 4, even and a multiple of heads {config.heads}")


def check_counts(config: Any, *names: str) -> None:
    """ConfigError that names the first of these fields that is below one."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be >= 1, got {getattr(config, name)}")


def check_experts(config: Any) -> None:
    """ConfigError that names the field unless ``active_experts`` of ``experts`` can be in use."""
    check_counts(config, "active_experts", "expert_hidden")
    if config.experts < config.active_experts:
        raise ConfigError(f"experts {config.experts} are fewer than active_experts {config.active_experts}")


def check_not_negative(config: Any, *names: str) -> None:
    """ConfigError that names the first of these fields that is not in 0 <= x < inf."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigError(f"{name} must be >= 0 and finite, got {getattr(config, name)}")


def check_dropout(config: Any) -> None:
    """ConfigError unless ``dropout`` is a probability below one."""
    if not 0 <= config.dropout < 1:
        raise ConfigError(f"dropout {config.dropout} not in [0, 1)")
