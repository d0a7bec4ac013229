"""Instructions: the same one spelled differently, some missing, some with few episodes."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from robopolicy.core.specs import Specs
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.summaries import Summary, listed

#: An instruction with fewer episodes than this share of an even split is badly covered.
SHARE = 0.1
#: Words shorter than this differ on purpose when they differ ("cup", "cap"; "left", "lift").
SHORTEST_WORD = 5


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """Spellings that a language encoder or a lookup would take for different tasks, gaps, imbalance."""
    counts = Counter(s.instruction for s in summaries)
    if len(counts) < 2:
        return
    blank = sum(count for text, count in counts.items() if not text.strip())
    if blank:
        message = f"{blank} of {len(summaries)} episodes have no instruction, the others have one"
        yield Finding("warning", "instructions", "", "", message)
    texts = sorted((text for text in counts if text.strip()), key=lambda text: (-counts[text], text))
    for first, second in itertools.combinations(texts, 2):
        reason = _alike(first, second)
        if reason:
            message = f"{first!r} ({counts[first]}) and {second!r} ({counts[second]}) differ in {reason} only"
            yield Finding("warning", "instructions", "", "", message)
    even = sum(counts[text] for text in texts) / max(len(texts), 1)
    rare = [text for text in texts if counts[text] < SHARE * even]
    if rare:
        shown = listed([f"{text!r} ({counts[text]})" for text in rare])
        message = f"few episodes, where an even split would give {even:.0f}: {shown}"
        yield Finding("note", "instructions", "", "", message)


def _alike(first: str, second: str) -> str:
    """What two texts differ in when they probably mean the same; empty when they do not."""
    words, others = _words(first), _words(second)
    if words == others:
        return "case, spaces or punctuation"
    if len(words) != len(others):
        return ""
    changed = [(a, b) for a, b in zip(words, others) if a != b]
    (a, b) = changed[0]
    if len(changed) == 1 and min(len(a), len(b)) >= SHORTEST_WORD and a.isalpha() and b.isalpha():
        return f"one letter of {a!r}" if _one_edit(a, b) else ""
    return ""


def _words(text: str) -> list[str]:
    return re.sub(r"[^\w\s]", " ", text.casefold()).split()


def _one_edit(a: str, b: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours turns ``a`` into ``b``."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    x, y = a[start:], b[start:]
    swapped = len(x) > 1 and x[1::-1] == y[:2] and x[2:] == y[2:]
    return swapped or x[1:] == y[1:] or x[1:] == y or x == y[1:]
