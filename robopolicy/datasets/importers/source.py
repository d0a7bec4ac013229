"""What an importer offers: a foreign dataset as specs, a report, and episodes in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Signal


@dataclass(frozen=True)
class ImportOptions:
    """What the user asked for beyond the mapping.

    Args:
        mapping: a shipped mapping's name or a YAML file; None lets the importer derive one and say what it
            guessed.
        skip_missing: leave out the episodes that lack a file (a camera's video, say) instead of refusing.
        without: source names that shall not be imported, for example a camera whose videos are gone.
        episodes: source episodes to import, by their index in the source; empty for all.
    """

    mapping: str | None = None
    skip_missing: bool = False
    without: tuple[str, ...] = ()
    episodes: tuple[int, ...] = ()


@dataclass
class Report:
    """What became of the source. Shown to the user and kept in the store's metadata.

    Args:
        mapped: our signal name to the source's.
        ignored: what the source holds and the store will not.
        guessed: what the source does not say and the importer assumed (units, times, action meaning).
        missing: what the source promises and lacks, with the episode.
        converted: how values changed, if they did.
    """

    mapped: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SourceEpisode:
    """One episode, its signals in blocks of bounded size.

    Args:
        name: what the source calls it; messages and the store's metadata repeat it.
        signals: "observation/KEY", "action", "extra/KEY" to blocks in time order. Large ones (video)
            should be generators; each is read once, and before the next episode is asked for.
        facts: ``instruction``, ``success``, ``seed``, ``clock``, ``wall_minus_clock_ns``, ``metadata``; those
            left out take the store's defaults.
    """

    name: str
    signals: Mapping[str, Iterable[Signal]]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """An opened foreign dataset."""

    specs: Specs
    report: Report

    def __len__(self) -> int:
        """How many episodes ``episodes`` will yield."""
        ...

    def episodes(self) -> Iterator[SourceEpisode]: ...
