"""NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding


def check(name: str, episode: Episode, specs: Specs) -> Iterator[Finding]:
    """One error per signal that has them, with how many samples and the first."""
    signals = {**episode.observation, "action": episode.action}
    signals.update({f"extra/{key}": signal for key, signal in episode.extra.items()})
    for key, signal in signals.items():
        if not np.issubdtype(signal.value.dtype, np.inexact) or not len(signal.value):
            continue
        good = np.isfinite(signal.value).reshape(len(signal.value), -1)
        bad = np.flatnonzero(~good.all(axis=1))
        if bad.size:
            of = np.flatnonzero(~good.all(axis=0)).tolist()
            message = (
                f"{bad.size} of {len(good)} samples have NaN or infinity, the first at frame {bad[0]}; "
                f"columns {of[:10]}{' ...' if len(of) > 10 else ''}"
            )
            yield Finding("error", "finite", name, key, message, (int(bad[0]), int(bad[-1])))
