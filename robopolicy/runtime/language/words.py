"""The built-in text encoder: a weighted mean of word vectors beside the identity of each word.

Half of an embedding is meaning: vectors made from WordNet (``data/make_word_vectors.py``), so that "lift the
cube" lies near "pick up the block". The other half is a hash of the words themselves, so that words that mean
nearly the same, as colours do, and words that are in no dictionary still differ; and of neighbouring words in
their order, so that "red on green" is not "green on red". Source of the weights: smooth inverse frequency
(Arora et al. 2017), section 3.
"""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.runtime.language.files import digest_of

FILE = "words.npz"
#: Of file and arithmetic together: policies have learned from the exact numbers.
VERSION = 1
IDENTITY_DIM = 64
#: The share of the identity half in the squared length of an embedding.
IDENTITY = 0.3
SMOOTHING = 1e-3  # a of the paper
UNKNOWN_FREQUENCY = 1e-6
#: Neighbours are counted among words of at least this weight: not "the", "to", "on".
NOTABLE = 0.2
#: Slips of the keyboard are looked for in words of at most so many letters; there are more of them, and each
#: is longer, the longer a word is.
LONGEST_WORD = 24
_WORD = re.compile(r"[^\W_]+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
#: Endings of inflected forms and what they stand for.
_SUFFIXES = (
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("s", ""),
    ("ing", "e"),
    ("ing", ""),
    ("ed", "e"),
    ("ed", ""),
)
#: A verb's particle may stand behind its object: "pick the cube up".
_REACH = 5
_NEW_PHRASE = ("and", "until", "by", "from")
Float32 = NDArray[np.float32]


class WordVectors:
    """A ``core.language.TextEncoder`` of numpy alone.

    Args:
        data: the content of ``words.npz``.
        name: what it is called.
    Raises:
        ConfigError: no such content.
    """

    def __init__(self, data: bytes, name: str = "words") -> None:
        self.name = name
        self.files: Mapping[str, bytes] = {FILE: data}
        self.digest = digest_of(self.files)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                version = int(found["version"])
                words: list[str] = found["words"].tobytes().decode().split("\n")
                forms: list[str] = found["forms"].tobytes().decode().split("\n")
                self._rows = _numbered(forms, found["form_rows"].tolist()) | _numbered(
                    words, range(len(words))
                )
                self._vectors: NDArray[np.int8] = found["vectors"]
                self._frequency: Float32 = found["frequency"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"text encoder {name!r}: {FILE} is damaged: {error}") from error
        if version != VERSION:
            raise ConfigError(
                f"text encoder {name!r}: {FILE} has version {version}; this code reads {VERSION}"
            )
        if len(words) != len(self._vectors) or len(words) != len(self._frequency):
            raise ConfigError(f"text encoder {name!r}: {len(words)} words for {len(self._vectors)} rows")
        self._words = words

    @classmethod
    def built_in(cls) -> WordVectors:
        """As it ships with the package."""
        return cls((Path(__file__).parent / FILE).read_bytes())

    @property
    def dim(self) -> int:
        return int(self._vectors.shape[1]) + IDENTITY_DIM

    def encode(self, texts: Sequence[str]) -> Float32:
        """See ``core.language.TextEncoder.encode``."""
        rows = [self._encode(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)

    def words(self, text: str) -> list[str]:
        """What a text is made of: base forms, verbs with their particles, unknown words as they are."""
        found = [self._entry(word) for word in _WORD.findall(unicodedata.normalize("NFC", text).lower())]
        for at, verb in enumerate(found):
            for behind in range(at + 1, min(at + 1 + _REACH, len(found))):
                # A particle follows its verb or ends the phrase: "pick the cube up and hold it".
                near = behind == at + 1 or (*found[behind + 1 : behind + 2], "and")[0] in _NEW_PHRASE
                if near and f"{verb}_{found[behind]}" in self._rows:
                    found[at], found[behind] = f"{verb}_{found[behind]}", ""
                    break
        return [word for word in found if word]

    def _encode(self, text: str) -> Float32:
        meaning = np.zeros(self._vectors.shape[1])
        identity = np.zeros(IDENTITY_DIM)
        before, its_weight = "", 0.0
        for word in self.words(text):
            row = self._rows.get(word)
            frequency = UNKNOWN_FREQUENCY if row is None else float(self._frequency[row])
            weight = SMOOTHING / (SMOOTHING + frequency)
            identity += weight * _identity(word)
            if row is not None:
                meaning += weight * self._vectors[row]
            if weight > NOTABLE:
                identity += np.sqrt(weight * its_weight) * _identity(f"{before} {word}")
                before, its_weight = word, weight
        share = IDENTITY if meaning.any() else 1.0
        whole = np.concatenate([np.sqrt(1 - share) * _unit(meaning), np.sqrt(share) * _unit(identity)])
        scaled: Float32 = (whole * np.sqrt(self.dim)).astype(np.float32)
        return scaled

    def _entry(self, word: str) -> str:
        """A word's base form; where it is unknown, the commonest word one slip of the keyboard away."""
        rows = [self._rows[form] for form in (word, *_base_forms(word)) if form in self._rows]
        if rows:  # rows are sorted by use; "opened" is an adjective too, and means what "open" means
            return self._words[min(rows) if word.endswith(("ed", "s")) else rows[0]]
        if not 3 < len(word) <= LONGEST_WORD:
            return word
        near = [self._rows[slip] for slip in _slips(word) if slip in self._rows]
        return self._words[min(near)] if near else word


def _numbered(words: Sequence[str], rows: Sequence[int]) -> dict[str, int]:
    return dict(zip(words, rows))


def _base_forms(word: str) -> Iterator[str]:
    for suffix, ending in _SUFFIXES:
        stem = word[: -len(suffix)]
        if word.endswith(suffix) and len(stem) > 1:
            yield stem + ending
            if not ending and len(stem) > 2 and stem[-1] == stem[-2]:  # "grabbing"
                yield stem[:-1]


def _slips(word: str) -> Iterator[str]:
    """Every word that one letter dropped, doubled, changed or swapped with the next makes of this one."""
    for at in range(len(word) + 1):
        head, tail = word[:at], word[at:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in _LETTERS:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]


def _identity(word: str) -> NDArray[np.float64]:
    """A unit vector of signs from the word's hash; different words are nearly orthogonal."""
    bits = np.frombuffer(hashlib.sha256(word.encode()).digest()[: IDENTITY_DIM // 8], np.uint8)
    signs: NDArray[np.float64] = (2.0 * np.unpackbits(bits) - 1.0) / np.sqrt(IDENTITY_DIM)
    return signs


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    size = float(np.linalg.norm(vector))
    result: NDArray[np.float64] = vector / size if size > 0 else vector
    return result
