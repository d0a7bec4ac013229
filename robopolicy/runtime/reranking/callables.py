"""Somebody else's policy, known only as a function, as one whose candidates can be chosen among."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from robopolicy.core.errors import ShapeError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, check_inputs
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.noise_key import keyed_by

#: One observation window, each (observation_horizon, *shape), to one chunk (prediction_horizon, action_dim).
Act = Callable[[Arrays, np.random.Generator], Float32]
_KEY_SIZE = 8  # normal numbers, 190 random bits and more


class CallablePolicy:
    """Satisfies ``core.policy.Policy``: calls the function once for each candidate.

    Args:
        function: (observation, rng) -> chunk in the action spec's units; all its chance must come from
            ``rng``, or candidates cannot be drawn again.
        specs: what it is given and what it gives; its noise is a key here, whatever they say.
    """

    def __init__(self, function: Act, specs: PolicySpecs) -> None:
        self._function = function
        self._specs = dataclasses.replace(specs, noise_shape=(_KEY_SIZE,), takes_prefix=False)

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._specs

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """See ``Policy.sample``; ShapeError when the function gives no chunk."""
        batch, n = check_inputs(self._specs, observation, noise)
        chunks = np.empty((batch, n, *self._specs.chunk_shape), np.float32)
        for row in range(batch):
            window = {name: observation[name][row] for name in self._specs.specs.observation}
            for place in range(n):
                chunk = np.asarray(self._function(window, keyed_by(noise[row, place])))
                if chunk.shape != self._specs.chunk_shape:
                    raise ShapeError(f"the function gave {chunk.shape}, a chunk is {self._specs.chunk_shape}")
                chunks[row, place] = chunk
        return chunks
