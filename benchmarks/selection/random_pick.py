"""Random pick at the price of one candidate: which one it takes is known before any is drawn."""

from __future__ import annotations

import dataclasses

import numpy as np

from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Policy
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.reranked import EvaluatedSelection
from robopolicy.runtime.reranking.config import RerankConfig, ScoreConfig


class _Blank:
    """Candidates that cost nothing: chance does not look at them."""

    def __init__(self, specs: PolicySpecs) -> None:
        self.policy_specs = specs

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        return np.zeros((*noise.shape[:2], *self.policy_specs.chunk_shape), np.float32)


class LazyRandomPick:
    """Acts as the reranked policy with the score "random_pick" does, up to rounding: rows of a batch are not
    bit-equal across batch sizes. The control is then as cheap for 100 candidates as for one.
    """

    def __init__(self, policy: Policy, candidates: int) -> None:
        self._policy = policy
        config = RerankConfig(candidates, (ScoreConfig("random_pick"),))
        self._choice = EvaluatedSelection(_Blank(policy.policy_specs), config)
        self.policy_specs = dataclasses.replace(
            policy.policy_specs, noise_shape=self._choice.policy_specs.noise_shape
        )

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """See ``Policy.sample``; one choice for each row."""
        self._choice.sample(observation, noise, context)
        assert self._choice.last is not None and noise.shape[1] == 1
        picked = noise[np.arange(len(noise)), 0, self._choice.last.index]
        return self._policy.sample(observation, picked[:, None], context)

    def counts(self) -> dict[str, int]:
        record = self._choice.record()
        return {"decisions": record.decisions, "other_than_first": record.other_than_first}
