"""One file = one reward: how much each step of a stored episode was worth. Critics learn from it.

A reward is a function ``(episode, facts) -> (steps,)`` of floats; ``needs`` says which signals it looks at.
A user's own, by import path "package.module:function", may be anything that judges a stored episode: a
formula, a model of preferences, a vision-language model that watches the cameras.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.datasets.episode import Episode
from robopolicy.steering.rewards._needs import needs

__all__ = ["Reward", "names", "needs", "reward"]

Reward = Callable[[Episode, Mapping[str, Any]], NDArray[np.floating[Any]]]


def names() -> list[str]:
    """Rewards that come along: the file names in this package."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def reward(name: str) -> Reward:
    """The function ``reward`` of ``robopolicy.steering.rewards.NAME``, or a user's "package.module:function",
    which may lie in the current folder.

    Raises:
        UnknownNameError: no such file; lists the known ones.
        ConfigError: there is no such module or function.
    """
    if ":" in name:
        return _users(name)
    if name not in names():
        raise UnknownNameError("reward", name, [*names(), "package.module:function"])
    found: Reward = importlib.import_module(f"{__name__}.{name}").reward
    return found


def _users(path: str) -> Reward:
    module, _, function = path.partition(":")
    if not {"", str(Path.cwd())} & set(sys.path):  # an installed command does not look there by itself
        sys.path.append(str(Path.cwd()))
    try:
        found: Reward = getattr(importlib.import_module(module), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(f"reward {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"reward {path!r} is {type(found).__name__}, not a function (episode, facts)")
    return found
