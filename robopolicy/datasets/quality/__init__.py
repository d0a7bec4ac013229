"""What is wrong with demonstrations: one file = one check of their content.

A check offers one or both of

- ``check(name, episode, specs) -> Iterable[Finding]``, for what one episode shows by itself, and
- ``check_all(summaries, specs) -> Iterable[Finding]``, for what only many show. It sees summaries, not
  episodes; ``measure(name, episode, specs)`` in the same file says which few numbers a summary keeps for it.

Checks see finite signals on a clock that runs forward: a signal that ``finite`` or ``clock`` reports is
hidden from the others, and so are all signals when it is the action.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from robopolicy.core.errors import UnknownNameError
from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.quality.findings import Finding, fold, ranked
from robopolicy.datasets.quality.summaries import Summary
from robopolicy.datasets.store import EpisodeStore

__all__ = ["Finding", "check_episode", "check_store", "fold", "load", "names", "ranked"]

#: Modules of this package that are no checks.
PARTS = ("findings", "summaries", "signals", "matching")
#: Checks of what the others take for granted; they see every signal.
BASIC = ("clock", "finite")


def names() -> list[str]:
    """The checks: the file names in this package, its shared parts aside."""
    return sorted(
        m.name for m in pkgutil.iter_modules(__path__) if m.name not in PARTS and not m.name.startswith("_")
    )


def load(name: str) -> Any:
    """The check in ``quality/NAME.py``; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("check", name, names())
    return importlib.import_module(f"{__name__}.{name}")


def check_episode(name: str, episode: Episode, specs: Specs) -> list[Finding]:
    """Every check on one episode in memory, such as the one just recorded.

    Args:
        name: how findings call it.
        episode: may lack some of the specs' observations; those are not looked at.
    """
    findings, sound = _check_one(name, episode, specs)
    of_all = _check_all([_summarise(name, episode, sound, specs)], specs)
    return ranked([*findings, *(dataclasses.replace(f, episode=f.episode or name) for f in of_all)])


def check_store(
    store: EpisodeStore,
    names: Iterable[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    images: bool = False,
) -> list[Finding]:
    """Every check on a store, one episode in memory at a time, worst findings first.

    Args:
        names: the episodes to look at; all by default.
        on_progress: called with (episodes done, episodes in all) after each.
        images: look at pictures too, one camera at a time. Without, cameras are held to their times alone.
    Raises:
        StoreError: an episode is missing or damaged.
    """
    chosen = store.names if names is None else list(names)
    kinds = {key: spec.kind for key, spec in store.specs.observation.items()}
    states = tuple(key for key, kind in kinds.items() if kind == "state")
    cameras = [key for key, kind in kinds.items() if kind != "state"]
    findings: list[Finding] = []
    summaries: list[Summary] = []
    for done, name in enumerate(chosen, start=1):
        episode = store.read(name, states)
        found, sound = _check_one(name, episode, store.specs)
        findings += found
        summaries.append(_summarise(name, episode, sound, store.specs))
        for key in cameras:
            if images:
                findings += _check_camera(store, name, key, episode)
            else:
                findings += _check_times(store, name, key, episode)
        if on_progress is not None:
            on_progress(done, len(chosen))
    return ranked([*findings, *_check_all(summaries, store.specs)])


def _check_one(name: str, episode: Episode, specs: Specs) -> tuple[list[Finding], Episode | None]:
    """Findings of one episode, and the episode without the signals that others cannot use, if any is left."""
    findings = [finding for basic in BASIC for finding in load(basic).check(name, episode, specs)]
    broken = {finding.key for finding in findings if finding.severity == "error"}
    if "action" in broken or not len(episode):
        return findings, None
    sound = dataclasses.replace(
        episode,
        observation={key: signal for key, signal in episode.observation.items() if key not in broken},
        extra={key: signal for key, signal in episode.extra.items() if f"extra/{key}" not in broken},
    )
    for _, module in _offering("check"):
        findings += module.check(name, sound, specs)
    return findings, sound


def _check_camera(store: EpisodeStore, name: str, key: str, states: Episode) -> list[Finding]:
    camera = store.read(name, (key,)).observation[key]
    episode = dataclasses.replace(states, observation={**states.observation, key: camera}, extra={})
    return [finding for finding in _check_one(name, episode, store.specs)[0] if finding.key == key]


def _check_times(store: EpisodeStore, name: str, key: str, states: Episode) -> list[Finding]:
    """Dropped frames and a camera's clock, without opening a picture."""
    times = store.reader(name).times(f"observation/{key}")
    stand_in = Signal(np.arange(len(times), dtype=np.float32)[:, None], times)
    episode = dataclasses.replace(states, observation={key: stand_in}, extra={})
    checks = [load(check) for check in (*BASIC, "gaps")]
    return [f for module in checks for f in module.check(name, episode, store.specs) if f.key == key]


def _summarise(name: str, episode: Episode, sound: Episode | None, specs: Specs) -> Summary:
    measures = {}
    if sound is not None:
        measures = {check: m.measure(name, sound, specs) for check, m in _offering("measure")}
    times = episode.action.time_ns
    seconds = float(times[-1] - times[0]) / 1e9 if len(times) else 0.0
    return Summary(name, len(episode), seconds, episode.instruction, episode.success, measures)


def _check_all(summaries: list[Summary], specs: Specs) -> list[Finding]:
    return [finding for _, m in _offering("check_all") for finding in m.check_all(summaries, specs)]


def _offering(function: str) -> Iterator[tuple[str, Any]]:
    """Names and modules of the checks that have ``function``."""
    for name in names():
        module = importlib.import_module(f"{__name__}.{name}")
        if name not in BASIC and hasattr(module, function):
            yield name, module
