"""The instructions of demonstrations as network inputs, each said in one of several ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.core.language import TextEncoder

Float32 = NDArray[np.float32]
Phrasings = Mapping[str, Sequence[str]]
#: Training noise on embeddings, whose elements have a root mean square of 1. Without it a policy fits the few
#: texts that it is told, and texts near them move it half way only (docs/experiments.md).
NOISE = 0.7


def read_phrasings(path: Path) -> dict[str, tuple[str, ...]]:
    """A YAML mapping from instructions to other ways to say them, as in ``data/phrasings``.

    Raises:
        ConfigError: no such file or mapping; names what is wrong.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read phrasings from {path}: {error}") from error
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(f"{path} must map instructions to lists of phrasings, got {type(tree).__name__}")
    for instruction, phrasings in tree.items():
        told = isinstance(phrasings, list) and all(isinstance(p, str) and p.strip() for p in phrasings)
        if not isinstance(instruction, str) or not told:
            raise ConfigError(f"{path}: {instruction!r} must map to a list of texts, got {phrasings!r}")
    return {instruction: tuple(phrasings) for instruction, phrasings in tree.items()}


class InstructionTable:
    """Embeddings of every instruction and phrasing, computed once.

    Args:
        instructions: of the windows, ``windows.instructions``; an empty one has zeros for an embedding.
        phrasings: instruction to other ways to say it; more instructions than there are is fine.
        noise: standard deviation of what training adds to every number of an embedding.
    Raises:
        ConfigError: a negative noise, no instruction at all, texts without words, or phrasings that leave
            an instruction out, which a misspelling does.
    """

    def __init__(
        self,
        instructions: Sequence[str],
        encoder: TextEncoder,
        phrasings: Phrasings | None = None,
        *,
        noise: float = NOISE,
    ) -> None:
        if not 0 <= noise < np.inf:
            raise ConfigError(f"noise on instructions must be >= 0 and finite, got {noise}")
        self._noise = noise
        if not any(text.strip() for text in instructions):
            raise ConfigError(
                "the demonstrations have no instructions to learn from; "
                "'robopolicy dataset relabel --instruction TEXT' gives them one"
            )
        known = phrasings or {}
        missing = [text for text in instructions if text.strip() and known and text not in known]
        if missing:
            raise ConfigError(f"no phrasings for {missing}; there are some for {sorted(known)}")
        self.texts = [list(dict.fromkeys((text, *known.get(text, ())))) for text in instructions]
        said = [text for ways in self.texts for text in ways]
        self._embeddings = encoder.encode(said)
        if empty := [t for t, row in zip(said, self._embeddings) if t.strip() and not row.any()]:
            raise ConfigError(f"text encoder {encoder.name!r} finds no words in the instructions {empty}")
        self._counts = np.array([len(ways) for ways in self.texts])
        self._starts = np.cumsum(self._counts) - self._counts

    @property
    def dim(self) -> int:
        """Of one embedding."""
        return int(self._embeddings.shape[1])

    def rows(self, index: NDArray[np.int64], rng: np.random.Generator | None = None) -> Float32:
        """The first of ``noisy_and_clean``."""
        return self.noisy_and_clean(index, rng)[0]

    def noisy_and_clean(
        self, index: NDArray[np.int64], rng: np.random.Generator | None = None
    ) -> tuple[Float32, Float32]:
        """Embeddings for one batch.

        Args:
            index: (batch,) of the instructions.
            rng: of training: draws one way to say it for each window, the instruction itself being one of
                them, and the noise; a generator keyed by seed and step makes a resumed training draw the
                same. None takes the instruction as it is.
        Returns:
            (batch, dim) with noise, and the same texts without.
        """
        index = np.asarray(index, np.int64)
        first: NDArray[np.int64] = self._starts[index]
        if rng is None:
            return self._embeddings[first], self._embeddings[first]
        # one number per row, however many ways there are: processes that share a batch draw alike
        ways = (rng.random(len(index)) * self._counts[index]).astype(np.int64)
        rows = self._embeddings[first + ways]
        noise = self._noise * rng.standard_normal(rows.shape, dtype=np.float32)
        noisy: Float32 = rows + noise * rows.any(axis=1, keepdims=True)  # no text stays no text
        return noisy.astype(np.float32), rows
