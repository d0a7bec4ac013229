"""Where metrics go besides ``metrics.jsonl``: one file per service, each with ``open_tracker``."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from robopolicy.core.errors import UnknownNameError

AUTOMATIC = "auto"


class Tracker(Protocol):
    """Takes scalars."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Named scalars after ``step`` updates."""

    def close(self) -> None:
        """All of them are written when it returns."""


def names() -> list[str]:
    """Services there is a file for."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def open_trackers(
    asked: tuple[str, ...], run: Path, *, config: Mapping[str, Any], step: int, warn: Callable[[str], None]
) -> Trackers:
    """The trackers of a run.

    Args:
        asked: names; "auto" is TensorBoard where it is installed.
        config: of the run, for those that show it.
        step: that the training goes on from; what was logged after it is not kept where that is possible.
        warn: told when one fails.
    Raises:
        UnknownNameError: no such tracker; MissingDependencyError: its package is not installed.
    """
    chosen = []
    for name in asked:
        if name == AUTOMATIC:
            if importlib.util.find_spec("tensorboard") is None:
                continue
            name = "tensorboard"
        if name not in names():
            raise UnknownNameError("tracker", name, [*names(), AUTOMATIC])
        if name not in chosen:
            chosen.append(name)
    opened = {
        name: importlib.import_module(f"{__name__}.{name}").open_tracker(run, config=config, step=step)
        for name in chosen
    }
    return Trackers(opened, warn)


class Trackers:
    """Several of them as one. One that fails is left out from then on: it must not end a training."""

    def __init__(self, opened: Mapping[str, Tracker], warn: Callable[[str], None]) -> None:
        self._opened, self._warn = dict(opened), warn

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        for name in list(self._opened):
            self._guarded(name, lambda tracker: tracker.log(step, values))

    def close(self) -> None:
        """See ``Tracker.close``."""
        for name in list(self._opened):
            self._guarded(name, lambda tracker: tracker.close())
        self._opened.clear()

    def _guarded(self, name: str, work: Callable[[Tracker], None]) -> None:
        try:
            work(self._opened[name])
        except Exception as error:  # a service that is down raises whatever its client likes
            del self._opened[name]
            self._warn(f"{name} failed and gets no more metrics: {error}")
