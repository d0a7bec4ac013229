"""Episodes far shorter or longer than the others: stopped by mistake, or never stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.summaries import Summary

#: Below this many episodes of a task there is no "usual".
FEWEST = 8
#: Both must hold: this many robust standard deviations of the logarithm, and this factor from the median.
DEVIATIONS, FACTOR = 5.0, 3.0
MAD_TO_STD = 1.4826  # of a normal distribution


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """Compares durations among episodes of one instruction, since tasks differ in how long they take."""
    groups: dict[str, list[Summary]] = {}
    for summary in summaries:
        groups.setdefault(summary.instruction, []).append(summary)
    for group in groups.values():
        if len(group) < FEWEST:
            continue
        logs = np.log([max(s.length, 1) for s in group])
        usual = float(np.median(logs))
        spread = MAD_TO_STD * float(np.median(np.abs(logs - usual)))
        bound = max(DEVIATIONS * spread, np.log(FACTOR))
        for summary, value in zip(group, logs):
            if abs(value - usual) > bound:
                which = "long" if value > usual else "short"
                message = (
                    f"very {which}: {summary.length} steps ({summary.duration:.1f} s); "
                    f"the median is {np.exp(usual):.0f}"
                )
                yield Finding("warning", "lengths", summary.name, "", message)
