"""Times that stand still or run backwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding


def check(name: str, episode: Episode, specs: Specs) -> Iterator[Finding]:
    """One error per signal whose stamps do not strictly increase, or that has not one stamp per sample."""
    signals = {**episode.observation, "action": episode.action}
    signals.update({f"extra/{key}": signal for key, signal in episode.extra.items()})
    for key, signal in signals.items():
        if signal.time_ns.shape != (len(signal.value),):
            message = f"{len(signal.value)} samples but times of shape {signal.time_ns.shape}"
            yield Finding("error", "clock", name, key, message)
            continue
        steps = np.diff(signal.time_ns)
        wrong = np.flatnonzero(steps <= 0)
        if not wrong.size:
            continue
        back = int((steps < 0).sum())
        what = f"{back} of {len(steps)} steps go back in time, by up to {-steps.min() / 1e6:.3g} ms"
        equal = f"{wrong.size - back} of {len(steps)} stamps equal the one before"
        message = ("; ".join([what, equal]) if wrong.size > back else what) if back else equal
        yield Finding("error", "clock", name, key, message, (int(wrong[0]) + 1, int(wrong[-1]) + 1))
