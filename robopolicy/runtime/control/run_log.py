"""What a real-time run leaves behind: every tick and every chunk, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.runtime.control.decisions import Decisions
from robopolicy.runtime.inference.client import Response

Int = NDArray[np.int64]


@dataclass(frozen=True)
class RunResult:
    """One real-time episode.

    Args:
        reason: why it ended: what ``on_tick`` said, "duration", a signal, or the fault.
        fault: whether that was a fault.
        ticks: control ticks until the end; braking ticks come after these.
        missed_ticks: control instants that were skipped because the loop was a period or more late.
        time_ns: (n,) deadline of each tick, braking included.
        lateness_ns: (n,) start of the tick minus its deadline.
        busy_ns: (n,) from its start to its end.
        references, commands: (n, action_dim) before and after the safety filter.
        inference_ns: (chunks,) time spent computing, in the worker.
        delay_ns: (chunks,) from observation to use.
        observation_age_ns: (requests,) age of the oldest observation when it was requested.
        interventions: reason to number of ticks, see ``safety.REASONS``.
        failed_inferences: texts of the errors that came instead of chunks.
        stale_responses: answers that were dropped, since another request was awaited.
        scheduler: ``SchedulerCounters`` as a mapping.
        joins_ns: (chunks,) deadlines of the ticks at which a chunk was taken up.
        reasons: why each tick's command differs from its reference; mostly empty.
        faults: kind, see ``faults.FAULTS``, to how often; those the run went on after, too.
        restarts: of the inference worker.
        decisions: each answer that was taken up, with all its candidates.
        realtime: what the system granted the loop, see ``realtime.applied``.
        signal: the wish to stop that came at any time, while braking too: a value of
            ``stop_signals.REASONS``, or empty.
    """

    reason: str
    fault: bool
    ticks: int
    missed_ticks: int
    time_ns: Int
    lateness_ns: Int
    busy_ns: Int
    references: Float
    commands: Float
    inference_ns: Int
    delay_ns: Int
    observation_age_ns: Int
    interventions: Mapping[str, int]
    failed_inferences: tuple[str, ...]
    stale_responses: int
    scheduler: Mapping[str, int]
    joins_ns: Int
    reasons: tuple[tuple[str, ...], ...]
    faults: Mapping[str, int]
    restarts: int = 0
    decisions: Decisions = field(default_factory=Decisions)
    realtime: tuple[str, ...] = ()
    signal: str = ""

    def intervention_bits(self, names: Sequence[str]) -> NDArray[np.uint32]:
        """(n,) per tick: bit i says that ``names[i]`` is among its reasons."""
        bit = {name: 1 << i for i, name in enumerate(names)}
        return np.array([sum(bit[name] for name in tick) for tick in self.reasons], dtype=np.uint32)

    def lateness_ms(self, percentile: float) -> float:
        """Of the control ticks; NaN when there were none."""
        return percentile_ms(self.lateness_ns, percentile)

    def inference_ms(self, percentile: float) -> float:
        """Of the chunks; NaN when there were none."""
        return percentile_ms(self.inference_ns, percentile)


def percentile_ms(values_ns: NDArray[Any], percentile: float) -> float:
    """(n,) [ns] to one percentile [ms]; pool several runs by concatenating their arrays."""
    return float(np.percentile(values_ns, percentile)) * 1e-6 if len(values_ns) else float("nan")


@dataclass
class RunLog:
    """Rows collected while running; lists, since appending to one allocates least."""

    missed_ticks: int = 0
    stale_responses: int = 0
    restarts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    time_ns: list[int] = field(default_factory=list)
    lateness_ns: list[int] = field(default_factory=list)
    busy_ns: list[int] = field(default_factory=list)
    references: list[Float] = field(default_factory=list)
    commands: list[Float] = field(default_factory=list)
    inference_ns: list[int] = field(default_factory=list)
    delay_ns: list[int] = field(default_factory=list)
    observation_age_ns: list[int] = field(default_factory=list)
    joins_ns: list[int] = field(default_factory=list)
    reasons: list[tuple[str, ...]] = field(default_factory=list)
    failed_inferences: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    def result(
        self,
        *,
        reason: str,
        fault: bool,
        ticks: int,
        interventions: Mapping[str, int],
        scheduler: Mapping[str, int],
        action_dim: int,
        realtime: tuple[str, ...] = (),
        signal: str = "",
    ) -> RunResult:
        def rows(values: list[Float]) -> Float:
            return np.array(values, dtype=np.float64).reshape(-1, action_dim)

        return RunResult(
            reason=reason,
            fault=fault,
            ticks=ticks,
            missed_ticks=self.missed_ticks,
            time_ns=np.array(self.time_ns, dtype=np.int64),
            lateness_ns=np.array(self.lateness_ns, dtype=np.int64),
            busy_ns=np.array(self.busy_ns, dtype=np.int64),
            references=rows(self.references),
            commands=rows(self.commands),
            inference_ns=np.array(self.inference_ns, dtype=np.int64),
            delay_ns=np.array(self.delay_ns, dtype=np.int64),
            observation_age_ns=np.array(self.observation_age_ns, dtype=np.int64),
            interventions=interventions,
            failed_inferences=tuple(self.failed_inferences),
            stale_responses=self.stale_responses,
            scheduler=scheduler,
            joins_ns=np.array(self.joins_ns, dtype=np.int64),
            reasons=tuple(self.reasons),
            faults=dict(self.faults),
            restarts=self.restarts,
            decisions=Decisions.of(self.responses),
            realtime=realtime,
            signal=signal,
        )
