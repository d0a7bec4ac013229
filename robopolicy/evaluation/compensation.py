"""A policy that knows how late its commands take effect, and skips what is past by then."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Policy, Prefix
from robopolicy.core.specs import DELTAS, PolicySpecs


class DelayCompensated:
    """Shifts every action chunk forward by a known delay.

    Action k of a chunk is meant for k steps after the observation. When the observation is old, or the
    command takes a while, the first actions come too late to be of use: here the chunk begins with what is
    meant for the instant at which it takes effect. Between two actions commands are interpolated; behind
    the last one it is held.

    Args:
        policy: of absolute actions.
        delay: from an observation's instant to its commands' effect, apart from what the policy already
            expects [s].
    Raises:
        ConfigError: a negative delay, one longer than the chunk has actions to spare, or actions that count
            from the previous command, which cannot be left out.
    """

    def __init__(self, policy: Policy, delay: float) -> None:
        specs = policy.policy_specs
        horizons = specs.horizons
        spare = (horizons.prediction - horizons.action_start - horizons.action) / specs.specs.policy_rate
        if not 0 <= delay <= spare + 1e-9:
            raise ConfigError(
                f"a delay of {delay:g} s cannot be compensated: chunks of {horizons.prediction} actions, of "
                f"which {horizons.action} are executed, have {spare:g} s to spare"
            )
        relative = [part.space for part in specs.specs.action.parts if part.space in DELTAS]
        if relative:
            raise ConfigError(f"{relative} actions count from the one before, so none can be skipped")
        self._policy = policy
        self.sees_committed = bool(getattr(policy, "sees_committed", False))
        self._steps = delay * specs.specs.policy_rate
        digest = str(getattr(policy, "digest", ""))
        self.digest = hashlib.sha256(f"{digest} {delay}".encode()).hexdigest() if digest else ""

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._policy.policy_specs

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """As the policy's, shifted: (batch, n, prediction_horizon, action_dim)."""
        if context.prefix is not None:  # of commands, which the policy's own chunks are ahead of
            context = replace(context, prefix=self._ahead(context.prefix))
        return shift(self._policy.sample(observation, noise, context), self._steps)

    def _ahead(self, prefix: Prefix) -> Prefix:
        weight = shift(prefix.weight[..., None], -self._steps)[..., 0]
        weight[:, np.arange(weight.shape[1]) < self._steps] = 0  # what was meant then is not known
        return Prefix(shift(prefix.action, -self._steps), weight)


def shift(chunks: np.ndarray[Any, np.dtype[np.float32]], steps: float) -> Float32:
    """(..., prediction_horizon, action_dim) chunks that begin ``steps`` later, interpolated linearly."""
    last = chunks.shape[-2] - 1
    places = np.clip(np.arange(last + 1) + steps, 0, last)
    lower = places.astype(np.int64)
    upper = np.minimum(lower + 1, last)
    weight = (places - lower).astype(np.float32)[:, np.newaxis]
    shifted: Float32 = chunks[..., lower, :] * (1 - weight) + chunks[..., upper, :] * weight
    return shifted
