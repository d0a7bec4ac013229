"""Make the word vectors of the built-in text encoder from WordNet's synonyms, links and definitions.

apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet
python data/make_word_vectors.py wordnet/usr/share/wordnet robopolicy/runtime/language/words.npz

Needs scipy. Rows are words (and verbs with a particle, "pick_up"), columns are synsets and the words of
definitions; entries are weighted by how often a sense is used and by whether it concerns things one can
touch. A truncated SVD of the reweighted matrix gives the vectors (Levy and Goldberg 2014; Bullinaria and Levy
2012). Words that mean one thing on a table in front of an arm (``THESAURUS``, ours) are drawn together
(retrofitting, Faruqui et al. 2015, eq. 1), then antonyms are pushed apart (counter-fitting, Mrksic et al.
2016, eq. 1). The same input gives the same file.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

VERSION = 1  # of ``runtime.language.words``
SIZE = 14_000  # words kept
DIM = 64
POS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
#: Lexicographer files whose senses are those of instructions to an arm: artifacts, places, objects, shapes,
#: substances; change, contact, creation, motion, perception, possession; adjectives and adverbs.
TANGIBLE = frozenset({6, 15, 17, 25, 27, 30, 35, 36, 38, 39, 40, 0, 2})
INTANGIBLE = 0.1  # weight of the other senses
#: How much of a related synset's meaning a word shares, by WordNet's pointer symbol.
LINKS = {"@": 0.5, "$": 0.8, "&": 0.5, "+": 0.5, "~": 0.15, "=": 0.3, "*": 0.3, "\\": 0.6, "<": 0.6, "^": 0.2}
GLOSS = 0.25  # of a word of the definition, against 1 for the synset itself
ANTONYM_ROUNDS, ANTONYM_STEP, ANTONYM_COSINE = 20, 0.1, 0.0
#: What a dictionary keeps apart and instructions to an arm do not.
THESAURUS = (
    "cube block box brick",
    "ball sphere",
    "cylinder can tube",
    "peg pin rod stick dowel",
    "cup mug glass",
    "plate dish saucer",
    "bin container basket bucket tray crate",
    "goal target mark marker spot destination",
    "hole opening slot socket",
    "table desk bench tabletop",
    "gripper hand finger claw",
    "knob handle lever grip",
    "lamp light",
    "cloth towel napkin rag",
    "lift raise pick_up elevate hoist",
    "grasp grab grip seize hold take",
    "put place set lay put_down",
    "push shove nudge slide",
    "press push depress",
    "pull drag tug draw",
    "reach touch approach",
    "go move head",
    "open pull_out",
    "close shut",
    "insert plug thread put_in stick_in push_in",
    "stack pile",
    "turn rotate twist",
    "wipe clean",
    "pour empty",
)
THESAURUS_PULL = 1.0  # towards the mean of the group's others, against 1 for staying
PARTICLES = frozenset(
    ("up", "down", "in", "out", "on", "off", "over", "away", "back", "into", "onto", "apart", "together")
)
#: Endings of inflected forms and what they stand for, as in ``runtime.language.words``.
SUFFIXES = (
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("s", ""),
    ("ing", "e"),
    ("ing", ""),
    ("ed", "e"),
    ("ed", ""),
)
_WORD = re.compile(r"[a-z]+")


@dataclass
class Synset:
    file: int
    lemmas: list[tuple[str, float]]  # and how often each is used in this sense
    links: list[tuple[str, str]]  # pointer symbol, key of the other synset
    antonyms: list[tuple[str, str, int]]  # lemma here, key of the other synset, its lemma's number
    gloss: list[str] = field(default_factory=list)


def read_counts(folder: Path) -> dict[tuple[str, int, int, int], int]:
    """(lemma, part of speech, file, id in it) to occurrences in the sense-tagged corpus."""
    counts: Counter[tuple[str, int, int, int]] = Counter()
    for line in (folder / "cntlist.rev").read_text().splitlines():
        key, _, count = line.split()
        lemma, _, rest = key.partition("%")
        pos, file, number = (int(part) for part in rest.split(":")[:3])
        counts[lemma, 3 if pos == 5 else pos, file, number] += int(count)
    return counts


def read_synsets(folder: Path) -> dict[str, Synset]:
    counts = read_counts(folder)
    found = {}
    for name, pos in POS.items():
        for line in (folder / f"data.{name}").read_text().splitlines():
            if line.startswith("  "):
                continue  # the licence
            head, _, gloss = line.partition("|")
            parts = head.split()
            file, size = int(parts[1]), int(parts[3], 16)
            lemmas = []
            for i in range(size):
                word = re.sub(r"\(.*\)$", "", parts[4 + 2 * i]).lower()
                used = counts.get((word, pos, file, int(parts[5 + 2 * i], 16)), 0)
                lemmas.append((word, used + 0.5))
            at = 4 + 2 * size
            links, antonyms = [], []
            for i in range(int(parts[at])):
                symbol, offset, kind, ends = parts[at + 1 + 4 * i : at + 5 + 4 * i]
                other = {"s": "a"}.get(kind, kind) + offset
                if symbol == "!":
                    antonyms.append((lemmas[int(ends[:2], 16) - 1][0], other, int(ends[2:], 16)))
                elif symbol[0] in LINKS:
                    links.append((symbol[0], other))
            key = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[name] + parts[0]
            found[key] = Synset(file, lemmas, links, antonyms, _WORD.findall(gloss.lower()))
    return found


def read_irregular(folder: Path) -> dict[str, str]:
    """Irregular form to lemma: "took" to "take"."""
    forms = {}
    for name in POS:
        for line in (folder / f"{name}.exc").read_text().splitlines():
            form, lemma = line.split()[:2]
            if form.isalpha() and lemma.isalpha():
                forms.setdefault(form, lemma)
    return forms


def base_form(word: str, known: set[str], irregular: dict[str, str]) -> str:
    if word in known:
        return word
    if word in irregular:
        return irregular[word]
    for suffix, ending in SUFFIXES:
        if word.endswith(suffix) and word[: -len(suffix)] + ending in known:
            return word[: -len(suffix)] + ending
    return word


def usable(lemma: str) -> bool:
    first, _, second = lemma.partition("_")
    return lemma.isalpha() or (first.isalpha() and second in PARTICLES)


def vocabulary(synsets: dict[str, Synset]) -> tuple[list[str], dict[str, float]]:
    """Words most used first, and the frequency of each; what one can touch counts more."""
    known = {lemma for s in synsets.values() for lemma, _ in s.lemmas}
    used: Counter[str] = Counter()
    rank: Counter[str] = Counter()
    for synset in synsets.values():
        weight = 1.0 if synset.file in TANGIBLE else INTANGIBLE
        for lemma, count in synset.lemmas:
            if usable(lemma):
                rank[lemma] += count * weight * (2.0 if "_" in lemma else 1.0)
                used[lemma] += count
        for word in synset.gloss:
            word = base_form(word, known, {})
            rank[word] += 0.3
            used[word] += 1
    words = sorted((w for w in rank if len(w) > 1 or w == "a"), key=lambda w: (-rank[w], w))[:SIZE]
    total = sum(used.values())
    return words, {word: max(used[word], 1.0) / total for word in words}


def entries(
    synsets: dict[str, Synset], index: dict[str, int], irregular: dict[str, str]
) -> Iterator[tuple[int, str, float]]:
    """(word's row, column, weight)."""
    known = set(index)
    totals: Counter[str] = Counter()
    for synset in synsets.values():
        for lemma, count in synset.lemmas:
            totals[lemma] += count * (1.0 if synset.file in TANGIBLE else INTANGIBLE)
    glosses = {k: {base_form(w, known, irregular) for w in s.gloss} & known for k, s in synsets.items()}
    for key, synset in synsets.items():
        prior = 1.0 if synset.file in TANGIBLE else INTANGIBLE
        for lemma, count in synset.lemmas:
            if lemma not in index:
                continue
            share, row = count * prior / totals[lemma], index[lemma]
            yield row, key, share
            for symbol, other in synset.links:
                yield row, other, share * LINKS[symbol]
            for word in glosses[key]:
                yield row, "=" + word, share * GLOSS
                yield index[word], key, share * GLOSS * prior
        for word in glosses[key]:  # a word of definitions is about what they define
            yield index[word], "=" + word, 0.02 * prior


def factorise(rows: Iterator[tuple[int, str, float]], size: int) -> NDArray[np.float64]:
    columns: dict[str, int] = {}
    summed: dict[tuple[int, int], float] = defaultdict(float)
    for row, column, weight in rows:
        summed[row, columns.setdefault(column, len(columns))] += weight
    at = np.array(list(summed), dtype=np.int64)
    matrix = sparse.csr_matrix((list(summed.values()), (at[:, 0], at[:, 1])), shape=(size, len(columns)))
    matrix.data = np.sqrt(matrix.data)
    documents = np.asarray((matrix > 0).sum(0)).ravel()
    matrix = matrix @ sparse.diags(np.log(1 + size / np.maximum(documents, 1)) * (documents > 1))
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    matrix = sparse.diags(1 / np.maximum(norms, 1e-9)) @ matrix
    u, s, _ = svds(matrix, k=DIM + 1, random_state=0, v0=np.ones(min(matrix.shape)))
    order = np.argsort(-s)[1:]  # the first is how common a word is
    vectors = u[:, order] * np.sqrt(s[order])
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(DIM)])
    return unit(vectors)


def retrofit(vectors: NDArray[np.float64], groups: list[list[int]]) -> NDArray[np.float64]:
    """Draw the words of each group together."""
    fitted = vectors.copy()
    near = defaultdict(set)
    for group in groups:
        for row in group:
            near[row] |= set(group) - {row}
    for _ in range(10):
        for row, others in near.items():
            fitted[row] = vectors[row] + THESAURUS_PULL * fitted[sorted(others)].mean(0)
            fitted[row] /= np.linalg.norm(fitted[row])
    return fitted


def counter_fit(vectors: NDArray[np.float64], pairs: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Push antonyms apart until their cosine is at most ``ANTONYM_COSINE``; everything else stays near."""
    fitted = vectors.copy()
    for _ in range(ANTONYM_ROUNDS):
        moved = fitted.copy()
        for one, other in pairs:
            if fitted[one] @ fitted[other] > ANTONYM_COSINE:
                away = fitted[one] - fitted[other]
                size = np.linalg.norm(away)
                # Antonyms in WordNet can have all but equal definitions, hence equal vectors.
                away = away / size if size > 1e-3 else np.roll(fitted[one], 1)
                moved[one] += ANTONYM_STEP * away
                moved[other] -= ANTONYM_STEP * away
        fitted = unit(moved)
    return fitted


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wordnet", type=Path, help="folder with data.noun")
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    synsets, irregular = read_synsets(given.wordnet), read_irregular(given.wordnet)
    words, frequency = vocabulary(synsets)
    index = {word: i for i, word in enumerate(words)}
    vectors = factorise(entries(synsets, index, irregular), len(words))
    groups = [[index[word] for word in group.split() if word in index] for group in THESAURUS]
    vectors = retrofit(vectors, groups)
    pairs = {
        (index[lemma], index[opposite])
        for synset in synsets.values()
        for lemma, other, number in synset.antonyms
        if lemma in index and (opposite := synsets[other].lemmas[number - 1][0]) in index
    }
    vectors = counter_fit(vectors, sorted(pairs))
    forms = sorted(
        (f, index[b]) for f, b in irregular.items() if index.get(b, SIZE) < 5000 and f not in index
    )
    with given.output.open("wb") as file:
        np.savez_compressed(
            file,
            version=np.array(VERSION),
            words=np.frombuffer("\n".join(words).encode(), np.uint8),
            forms=np.frombuffer("\n".join(form for form, _ in forms).encode(), np.uint8),
            form_rows=np.array([row for _, row in forms], np.int32),
            vectors=np.rint(vectors / np.abs(vectors).max() * 127).astype(np.int8),
            frequency=np.array([frequency[word] for word in words], np.float32),
        )
    print(f"{len(words)} words, {len(forms)} forms, {given.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
