"""A reranked policy is a policy: evaluation, servers and exports need not know."""

from __future__ import annotations

import dataclasses

import numpy as np

from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, check_inputs
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.choice import Choice, Counters
from robopolicy.runtime.reranking.noise_key import keyed_by
from robopolicy.runtime.reranking.reranker import Reranker


class RerankedPolicy:
    """Satisfies ``core.policy.Policy``; one of its candidates is the choice among K of the policy within.

    One noise is (K, *noise_shape), drawn in that order: on the same key the first candidate is the same for
    every K. Chance, in a selector or a score, is keyed by each row's noise, so that a row does not depend on
    its neighbours.

    Args:
        binds: whether the policy within heeds the committed prefix; else scores alone see it.
    Attributes:
        sees_committed: it makes use of the committed prefix, whatever its specs say of ``takes_prefix``; what
            wraps a policy passes this on.
        last: the newest decision, with a row for each of the batch.
    """

    sees_committed = True

    def __init__(self, reranker: Reranker, *, binds: bool = True) -> None:
        self._reranker, self._binds = reranker, binds
        specs = reranker.policy_specs
        shape = (reranker.config.num_candidates, *specs.noise_shape)
        self._specs = dataclasses.replace(specs, noise_shape=shape)
        self.last: Choice | None = None

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._specs

    @property
    def counters(self) -> Counters:
        """Over all decisions."""
        return self._reranker.counters

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """See ``Policy.sample``; ``noise`` is (batch, n, K, *noise_shape)."""
        _, n = check_inputs(self._specs, observation, noise)
        chosen = []
        for part in range(n):
            rows = np.ascontiguousarray(noise[:, part])
            rng = [keyed_by(row) for row in rows] if rows.size else []
            self.last = self._reranker.choose(observation, rows, context, rng, binds=self._binds)
            chosen.append(self.last.chosen)
        return np.stack(chosen, axis=1)
