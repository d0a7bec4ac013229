"""Success labels that tell nothing: none given, or all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robopolicy.core.specs import Specs
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.summaries import Summary


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """At most one finding, from two episodes on."""
    count = len(summaries)
    if count < 2:
        return
    judged = {s.success for s in summaries}
    unknown = sum(s.success is None for s in summaries)
    if judged == {None}:
        message = (
            f"nobody judged any of the {count} episodes; filters and critics that need success cannot run"
        )
        yield Finding("note", "success", "", "", message)
    elif judged == {True}:
        message = f"all {count} episodes succeeded: fine to imitate, too little for a critic to learn failure"
        yield Finding("note", "success", "", "", message)
    elif judged == {False}:
        message = f"all {count} episodes failed: nothing to imitate, or success was never set"
        yield Finding("warning", "success", "", "", message)
    elif unknown:
        message = f"{unknown} of {count} episodes are not judged, the others are"
        yield Finding("note", "success", "", "", message)
