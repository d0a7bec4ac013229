"""Strips of small pictures: how an episode begins, goes on and ends."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from robopolicy.datasets.show import facts, frames
from robopolicy.datasets.store import EpisodeStore

HEIGHT = 112  # [px]
MOMENTS = (0.0, 0.5, 1.0)
MAX_STRIPS = 36  # about 10 kB each


@dataclass(frozen=True)
class Strip:
    """First, middle and last frame of one camera in one episode, side by side; ``data`` is a base64 JPEG."""

    name: str
    success: bool | None
    data: str


def strips(store: EpisodeStore, names: list[str]) -> dict[str, list[Strip]]:
    """Camera to the strips of a few of the named episodes."""
    keys = frames.cameras(store.specs)
    chosen = facts.spread(names, min(max(MAX_STRIPS // max(len(keys), 1), 3), 12))
    return {key: [_strip(store, name, key) for name in chosen] for key in keys}


def _strip(store: EpisodeStore, name: str, key: str) -> Strip:
    pictures = frames.frames_at(store.reader(name), key, MOMENTS)
    if store.specs.observation[key].kind == "depth":
        pictures = frames.grey_depth(pictures)
    gap = np.full_like(pictures[0][:, : -(-pictures.shape[2] // 40)], 128)  # else the three read as one
    row = np.concatenate([pictures[0], gap, pictures[1], gap, pictures[2]], axis=1)
    data = base64.b64encode(frames.jpeg(row, 72, HEIGHT)).decode()
    return Strip(name, store.facts(name)["success"], data)
