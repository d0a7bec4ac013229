"""How often a phrasing lies nearest to its own task's instruction."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
Phrasings = Mapping[str, Sequence[str]]
BAG_DIM = 128  # as many as the built-in encoder has


def bag_of_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """The baseline: (texts, BAG_DIM) sums of a random sign vector for each word, keyed by its hash."""
    return np.stack([np.sum([_signs(word) for word in re.findall(r"\w+", t.lower())], axis=0) for t in texts])


def _signs(word: str) -> NDArray[np.float32]:
    key = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(key).choice(np.array([-1, 1], np.float32), BAG_DIM)


def misspelt(text: str) -> str:
    """Two inner letters of the longest word swapped."""
    word = max(text.split(), key=len)
    at = len(word) // 2
    return text.replace(word, word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :], 1)


def nearest(encode: Encode, known: Phrasings, asked: Phrasings) -> list[tuple[str, str, str]]:
    """For every phrasing asked: itself, its task, and the task whose known texts are nearest by cosine."""
    tasks = list(known)
    banks = [_unit(encode([task, *known[task]])) for task in tasks]
    found = []
    for task, phrasings in asked.items():
        rows = _unit(encode(phrasings))
        scores = np.stack([(rows @ bank.T).max(axis=1) for bank in banks])
        found += [(text, task, tasks[i]) for text, i in zip(phrasings, scores.argmax(axis=0))]
    return found


def right(found: Sequence[tuple[str, str, str]]) -> int:
    return sum(task == nearest_task for _, task, nearest_task in found)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
