"""Where the environments of an evaluation live: one file per kind, found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.hosting import Answer, Request


@dataclass(frozen=True)
class Lost:
    """A worker died: the episodes in these slots are gone and must begin again."""

    slots: tuple[int, ...]
    reason: str


class Executor(Protocol):
    """Hosts of environments. Slots are spread over them; each slot has at most one request under way."""

    def send(self, request: Request) -> None:
        """Give a slot something to do; returns at once."""
        ...

    def receive(self) -> list[Answer | Lost]:
        """Wait until something has happened; never empty. Errors of an environment are raised here."""
        ...

    def close(self) -> None:
        """Close every environment and end every worker."""
        ...


def names() -> list[str]:
    """Executors that exist: the file names in this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def start(name: str, make: Callable[[], Any], specs: PolicySpecs, *, slots: int, workers: int) -> Executor:
    """An executor by its name.

    Args:
        make: builds one environment; must be picklable unless the executor is "inline".
        slots: environments in all, numbered from 0.
        workers: processes to spread them over.
    Raises:
        UnknownNameError: lists the known ones.
        MissingDependencyError: its package is not installed.
    """
    if name not in names():
        raise UnknownNameError("executor", name, names())
    if workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}")
    module = importlib.import_module(f"{__name__}.{name}")
    executor: Executor = module.start(make, specs, min(workers, slots))
    return executor
