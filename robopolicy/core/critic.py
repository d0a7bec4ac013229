"""What a critic is: expected returns of candidate action chunks, for choosing among them."""

from __future__ import annotations

from typing import Protocol

from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.core.specs import PolicySpecs


class Critic(Protocol):
    """Scores action chunks of whatever policy; torch critics and those of bundles satisfy this.

    It works in physical units and normalises by its own statistics, as Nakamoto et al. 2024 do, so that it
    may have been trained on other episodes than the policy.
    """

    @property
    def critic_specs(self) -> PolicySpecs:
        """Observations it looks at, the action, and the horizons of the chunks it scores."""
        ...

    @property
    def critic_normalisers(self) -> Normalisers:
        """Of its training data."""
        ...

    def values(self, observation: Arrays, candidates: Float32, context: Context = NO_CONTEXT) -> Float32:
        """Expected discounted return of each candidate [-], higher is better, by each member of the ensemble.

        Args:
            observation: each (batch, observation_horizon, *shape), in physical units.
            candidates: (batch, n, prediction_horizon, action_dim) in the action spec's units.
            context: the instruction, for a critic that heeds it.
        Returns:
            (batch, n, members); may be NaN, which whoever chooses must expect.
        Raises:
            SpecError, ShapeError, NonFiniteValueError: an input breaks the specs.
        """
        ...
