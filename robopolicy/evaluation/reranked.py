"""A reranked policy under evaluation: which policy it was, and what came of choosing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from robopolicy.core.critic import Critic
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Policy
from robopolicy.core.serial import to_tree
from robopolicy.runtime.reranking.build import build_reranker
from robopolicy.runtime.reranking.choice import Counters
from robopolicy.runtime.reranking.config import RerankConfig
from robopolicy.runtime.reranking.policy import RerankedPolicy

_COUNTED = ("decisions", "other_than_first", "nan_candidates", "nan_rows")  # of ``Counters``


@dataclass(frozen=True)
class SelectionRecord:
    """How chunks were chosen among candidates.

    Args:
        config: number of candidates, scores and weights, temperature.
        critic: label for people, empty without one; critic_digest: SHA-256 of its files.
        decisions: counted; of an evaluation that was resumed only those of the last part.
        other_than_first: decisions for another than the policy's first sample.
        nan_candidates: candidates without a value, which are never chosen; nan_rows: decisions in which no
            candidate had one, so that the first was taken.
    """

    config: RerankConfig = field(default_factory=RerankConfig)
    critic: str = ""
    critic_digest: str = ""
    decisions: int = 0
    other_than_first: int = 0
    nan_candidates: int = 0
    nan_rows: int = 0

    def in_words(self) -> str:
        """One line for people."""
        names = (s.name if s.weight == 1 else f"{s.weight:g} x {s.name}" for s in self.config.scores)
        words = [f"{self.config.num_candidates} candidates chosen by {' + '.join(names)}"]
        if self.config.temperature:
            words.append(f"at temperature {self.config.temperature:g}")
        if self.critic:
            words.append(f"with the critic {self.critic}")
        if self.decisions:
            share = self.other_than_first / self.decisions
            words.append(f"({share:.1%} of {self.decisions} decisions for another than the first sample)")
        if self.nan_rows:
            words.append(f"({self.nan_rows} without any value: the first sample was taken)")
        return " ".join(words)


class EvaluatedSelection(RerankedPolicy):
    """Counts every decision once, and has a digest of all that decides.

    Args:
        policy: to draw from; critic: where one is asked.
        critic_label: what people know the critic by.
    Attributes:
        needs_instruction: the critic follows instructions.
        digest: empty where the policy or the critic has none.
    Raises:
        SpecError, UnknownNameError, ConfigError: as ``build_reranker`` says.
    """

    def __init__(
        self, policy: Policy, config: RerankConfig, *, critic: Critic | None = None, critic_label: str = ""
    ) -> None:
        # The policy is evaluated as it is without a choice: what is committed only serves to choose.
        super().__init__(build_reranker(policy, config, critic=critic), binds=False)
        used = critic if config.needs_critic else None
        self._config = config
        self.needs_instruction = used is not None and used.critic_specs.instruction_dim > 0
        self._critic = ("", "") if used is None else (critic_label, str(getattr(used, "digest", "")))
        parts = [str(getattr(policy, "digest", "")), self._critic[1], json.dumps(to_tree(config))]
        known = parts[0] and (used is None or parts[1])
        self.digest = hashlib.sha256("\n".join(parts).encode()).hexdigest() if known else ""
        self._counts = Counters()

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """See ``RerankedPolicy.sample``; one choice for each row, n = 1, is counted."""
        chunks = super().sample(observation, noise, context)
        assert self.last is not None
        # A batch is padded with copies of a row: what has the same noise is the same decision, and where
        # there is no noise what has the same observation.
        told = [noise[:, -1, 0]] if noise.size else list(observation.values())
        rows = list({b"".join(part[i].tobytes() for part in told): i for i in range(len(noise))}.values())
        self._counts += self.last.counted(rows)
        return chunks

    def record(self) -> SelectionRecord:
        """What it was and what was counted so far."""
        label, digest = self._critic
        counts = {name: getattr(self._counts, name) for name in _COUNTED}
        return SelectionRecord(self._config, critic=label, critic_digest=digest, **counts)
