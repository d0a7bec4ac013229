"""The same episode twice: it leaks from training into validation, and counts double."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.signals import states
from robopolicy.datasets.quality.summaries import Summary, listed, measured


def measure(name: str, episode: Episode, specs: Specs) -> str:
    """SHA-256 (hex) over the values of the action and of all states; times and facts are left out."""
    digest = hashlib.sha256()
    signals = {"action": episode.action, **{key: signal for key, signal, _ in states(episode, specs)}}
    for key in sorted(signals):
        value = np.ascontiguousarray(signals[key].value)
        digest.update(f"{key} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """One warning per group of equals."""
    groups: dict[str, list[str]] = {}
    for name, digest in measured(summaries, "duplicates"):
        groups.setdefault(digest, []).append(name)
    has_state = any(spec.kind == "state" for spec in specs.observation.values())
    what = "actions and states" if has_state else "actions (the only thing compared: there are no states)"
    for group in groups.values():
        if len(group) > 1:
            message = f"bit-equal to {listed(group[:-1])} in all {what}"
            yield Finding("warning", "duplicates", group[-1], "", message)
