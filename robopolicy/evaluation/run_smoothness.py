"""How smooth a real-time run was, beside the demonstrations it was learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import SpecError
from robopolicy.evaluation.run_files import RunEpisode, StoredRun
from robopolicy.runtime.scheduling.smoothness import Smoothness, smoothness

MOST_DEMONSTRATIONS = 50
#: Field, label and power of time in the unit, for the table.
ROWS = (
    ("rms_acceleration", "acceleration, root mean square", 2),
    ("rms_jerk", "jerk, root mean square", 3),
    ("peak_jerk", "jerk, largest", 3),
    ("log_dimensionless_jerk", "log dimensionless jerk", None),
    ("spectral_arc_length", "spectral arc length (SPARC)", None),
    ("splice_velocity", "step of velocity where chunks join, largest", 1),
    ("splice_acceleration", "step of acceleration where chunks join, largest", 2),
)
_POWERS = {1: "/s", 2: "/s²", 3: "/s³"}


def compare(run: StoredRun, store: Path | None = None) -> dict[str, Any] | None:
    """Medians over episodes, for the template; None where no episode is long enough.

    Args:
        store: demonstrations with the same action names.
    Raises:
        SpecError: the store's actions are others, or relative.
    """
    unit, columns = _main_unit(run.summary["action_units"])
    rate = float(run.summary["control_rate_asked_hz"])
    long = [e for e in run.episodes if len(e.arrays["time_ns"]) > 3]
    if not long:
        return None
    found = {
        f"sent, {rate:g} Hz": [_metrics(e, "commands", columns, rate) for e in long],
        f"asked for, {rate:g} Hz": [_metrics(e, "references", columns, rate) for e in long],
    }
    text = "Medians over episodes; finite differences of what was sent, braking at the end included."
    if store is not None:
        actions, slow = _demonstrations(store, run.summary["action_names"], columns)
        every = max(round(rate / slow), 1)
        found[f"sent, {slow:g} Hz"] = [_bare(e.arrays["commands"][::every, columns], slow) for e in long]
        found[f"{len(actions)} demonstrations, {slow:g} Hz"] = [_bare(values, slow) for values in actions]
        text += (
            f" Demonstrations have {slow:g} commands a second; one in {every} of those sent is comparable "
            "with them. Nothing joins in a demonstration."
        )
    rows = [
        (label + (f" [{unit}{_POWERS[power]}]" if power else ""), [_median(m, name) for m in found.values()])
        for name, label, power in ROWS
    ]
    return {"columns": list(found), "rows": rows, "text": f"{text} Dimensions in {unit}."}


def _main_unit(units: Sequence[str]) -> tuple[str, list[int]]:
    """The commonest unit and its columns: metrics of different units do not add up."""
    unit = max(dict.fromkeys(units), key=list(units).count)
    return unit, [i for i, other in enumerate(units) if other == unit]


def _metrics(episode: RunEpisode, name: str, columns: list[int], rate: float) -> Smoothness:
    arrays = episode.arrays
    return smoothness(arrays[name][:, columns], rate, arrays["time_ns"], arrays["joins_ns"].tolist())


def _bare(values: NDArray[Any], rate: float) -> Smoothness:
    """Without knowledge of splices."""
    return smoothness(values, rate, np.arange(len(values), dtype=np.int64))


def _demonstrations(path: Path, names: Sequence[str], columns: list[int]) -> tuple[list[NDArray[Any]], float]:
    from robopolicy.datasets.store import EpisodeStore

    store = EpisodeStore.open(path)
    action = store.specs.action
    wanted = [names[i] for i in columns]
    absolute = {n for part in action.parts if part.reference == "absolute" for n in part.names}
    if not set(wanted) <= absolute:
        raise SpecError(
            f"{path} has the absolute actions {sorted(absolute)}, the run has {wanted}: not comparable"
        )
    places = [action.names.index(name) for name in wanted]
    episodes = (store.read(name, keys=()).action.value for name in store.names[:MOST_DEMONSTRATIONS])
    return [values[:, places] for values in episodes if len(values) > 3], store.specs.policy_rate


def _median(metrics: Iterable[Smoothness], name: str) -> str:
    assert name in {field.name for field in fields(Smoothness)}
    values = np.array([getattr(m, name) for m in metrics], dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values) or (name.startswith("splice") and not values.any()):
        return "–"
    median = float(np.median(values))
    return f"{median:,.0f}" if abs(median) >= 1000 else f"{median:.3g}"
