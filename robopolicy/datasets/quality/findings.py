"""What a check reports, and how many alike become one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from robopolicy.core.errors import ConfigError
from robopolicy.core.serial import from_tree, to_tree

#: "error": training on it gives wrong results; "warning": look at it; "note": good to know before training.
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check noticed.

    Args:
        severity: one of ``SEVERITIES``.
        check: the check's file name in this package.
        episode: its name, empty when the finding is about the whole dataset.
        key: an observation's name, "action" or "extra/NAME"; empty when it is about no single signal.
        message: one sentence with numbers and units.
        frames: first and last sample of ``key`` that it is about, both included; None for all of them.
    Raises:
        ConfigError: the severity is unknown; lists the known ones.
    """

    severity: str
    check: str
    episode: str
    key: str
    message: str
    frames: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ConfigError(f"severity {self.severity!r} is not one of {SEVERITIES}")

    @property
    def tree(self) -> dict[str, Any]:
        """The same as plain JSON."""
        tree: dict[str, Any] = to_tree(self)
        return tree

    @classmethod
    def from_tree(cls, tree: Any) -> Finding:
        """Back from ``tree``; SpecError names a field that is unknown, missing or of another type."""
        return from_tree(cls, tree)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, the dataset before its episodes."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.check, f.key, f.episode))


def fold(findings: Iterable[Finding], at_most: int = 3) -> list[Finding]:
    """For people: findings of one severity, check and key in more than ``at_most`` episodes become one."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in ranked(findings):
        groups.setdefault((finding.severity, finding.check, finding.key), []).append(finding)
    folded: list[Finding] = []
    for group in groups.values():
        names = sorted({f.episode for f in group if f.episode})
        if len(names) <= at_most:
            folded += group
            continue
        folded += [f for f in group if not f.episode]
        first = next(f for f in group if f.episode)
        message = f"in {len(names)} episodes; episode {first.episode}: {first.message}"
        folded.append(dataclasses.replace(first, episode="", message=message, frames=None))
    return folded
