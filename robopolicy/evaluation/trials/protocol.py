"""What was decided before the first trial, and what a trial leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from robopolicy.core.errors import ConfigError
from robopolicy.core.serial import from_tree
from robopolicy.evaluation.stored import PolicyRecord
from robopolicy.evaluation.trials.log import SUCCESS, Line, TrialLog
from robopolicy.evaluation.trials.plan import Trial, draw_plan, plan_digest
from robopolicy.evaluation.trials.sealing import unseal
from robopolicy.evaluation.trials.starts import Start

LOG_NAME = "trials.jsonl"


@dataclass(frozen=True)
class Measured:
    """What a run gave besides the person's judgement.

    Args:
        steps: of the policy; seconds: until it ended.
        reason: why it ended; fault: whether that was one.
        inference_ms: of every chunk.
        action_hash: SHA-256 of the commands sent.
    """

    steps: int = 0
    seconds: float = 0.0
    reason: str = ""
    fault: bool = False
    inference_ms: tuple[float, ...] = ()
    action_hash: str = ""


@dataclass(frozen=True)
class Protocol:
    """Everything that was decided before the first trial.

    Args:
        robot: its name.
        success_predicate: in words, for the person and the report.
        policies: their order is hidden from the person, not secret; see ``sealing``.
        starts: each is run ``repeats`` times by every policy.
        seed: of the order; first_seed: of the trials.
    """

    robot: str
    success_predicate: str
    policies: tuple[PolicyRecord, ...]
    starts: tuple[Start, ...]
    repeats: int = 1
    seed: int = 0
    first_seed: int = 0
    plan: tuple[Trial, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.success_predicate.strip():
            raise ConfigError("say what success is before the first trial: it is empty")
        counts = {"policies": len(self.policies), "conditions": len(self.starts), "repeats": self.repeats}
        plan = draw_plan(**counts, seed=self.seed, first_seed=self.first_seed)
        object.__setattr__(self, "plan", plan)

    @property
    def header(self) -> dict[str, object]:
        """First line of the log: enough to notice that something else is being continued."""
        return {
            "robot": self.robot,
            "success_predicate": self.success_predicate,
            "policies": [{"label": p.label, "digest": p.digest} for p in self.policies],
            "starts": [{"name": s.name, "digest": s.digest} for s in self.starts],
            "repeats": self.repeats,
            "seed": self.seed,
            "first_seed": self.first_seed,
            "order_sha256": plan_digest(self.plan),
        }

    def key(self, number: int) -> str:
        """Seals what trial ``number`` measured."""
        return f"robopolicy trial {self.seed} {number}"

    def measured(self, line: Line) -> Measured:
        """Opens a sealed record."""
        return from_tree(Measured, unseal(line.sealed, self.key(line.number)))

    def blocks(self, judged: Mapping[int, Line]) -> list[tuple[bool, ...]]:
        """Successes of the finished blocks in their order, one column per policy."""
        found: dict[int, dict[int, bool]] = {}
        for trial in self.plan:
            if trial.number in judged:
                found.setdefault(trial.block, {})[trial.policy] = judged[trial.number].outcome == SUCCESS
        count = len(self.policies)
        return [
            tuple(won[policy] for policy in range(count))
            for _, won in sorted(found.items())
            if len(won) == count
        ]


def open_log(folder: Path, protocol: Protocol) -> TrialLog:
    """The log of these trials in a folder, empty before the first."""
    return TrialLog(folder / LOG_NAME, protocol.header)
