"""Which films of episodes go into the page: failures first, as many as fit."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.varied import shown

if TYPE_CHECKING:
    from robopolicy.evaluation.eval_sections import Entry

MEGABYTES = 24.0
MOST_FILMS = 16


@dataclass(frozen=True)
class Film:
    """One film inside the page."""

    anchor: str
    caption: str
    success: bool
    data: str


@dataclass(frozen=True)
class Films:
    """What is shown, in order, and a sentence about what is not."""

    shown: list[Film] = field(default_factory=list)
    left_out: str = ""

    @property
    def anchors(self) -> set[str]:
        return {film.anchor for film in self.shown}


def film_file(folder: Path, episode: EpisodeResult) -> Path | None:
    """The film beside ``eval.json``; None where there is none any more."""
    if not episode.video:
        return None
    file = folder / episode.video
    return file if file.is_file() else None


def anchor(policy: int, seed: int) -> str:
    """Name of a film's place in the page."""
    return f"film-{policy}-{seed}"


def choose_films(entries: Sequence[Entry], megabytes: float) -> Films:
    """Failures before successes, policies taking turns, until ``MOST_FILMS`` or the budget [MB]."""
    turns: list[list[tuple[int, Entry, EpisodeResult, Path]]] = []
    for place, entry in enumerate(entries):
        mine = [(place, entry, e, f) for e in entry.episodes if (f := film_file(entry.folder, e)) is not None]
        turns.append(sorted(mine, key=lambda item: (item[2].success, not item[2].unstable, item[2].seed)))
    rounds = [item for turn in itertools.zip_longest(*turns) for item in turn if item is not None]
    queue = sorted(rounds, key=lambda item: item[2].success)  # stable: the turns stay
    chosen: list[Film] = []
    size, left = 0, 0
    for place, entry, episode, file in queue:
        bytes_here = file.stat().st_size
        if len(chosen) >= MOST_FILMS or size + bytes_here > megabytes * 1e6:
            left += 1
            continue
        size += bytes_here
        who = f"{entry.label}, " if len(entries) > 1 else ""
        caption = f"{who}seed {episode.seed}, {episode.seconds:.1f} s"
        caption += f"; {shown(episode.conditions, 2)}" if episode.conditions else ""
        data = base64.b64encode(file.read_bytes()).decode()
        chosen.append(Film(anchor(place, episode.seed), caption, episode.success, data))
    text = f"{left} more film{'s' if left != 1 else ''} beside eval.json." if left else ""
    return Films(chosen, text)
