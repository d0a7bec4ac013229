"""A policy that is always asked the same, whatever an environment says."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Policy
from robopolicy.core.specs import PolicySpecs


class InstructedPolicy:
    """Another policy under one instruction; also where nothing gives one, as in ``evaluation.ood``. It has
    ``features`` (``evaluation.ood.FeaturePolicy``) where the other has them.

    Args:
        policy: which may ignore instructions.
        instruction: in words.
    Raises:
        ConfigError: an empty instruction.
    """

    def __init__(self, policy: Policy, instruction: str) -> None:
        if not instruction.strip():
            raise ConfigError("an instruction needs words")
        self._policy, self._instruction = policy, instruction
        self.sees_committed = bool(getattr(policy, "sees_committed", False))
        digest = str(getattr(policy, "digest", ""))
        if hasattr(policy, "features"):
            self.features = self._features
        self.digest = hashlib.sha256(f"{digest} {instruction}".encode()).hexdigest() if digest else ""

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._policy.policy_specs

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """As the policy's under this instruction, a text for each row: see ``core.policy.Policy.sample``."""
        told = dataclasses.replace(context, instruction=(self._instruction,) * len(noise))
        return self._policy.sample(observation, noise, told)

    def _features(self, observation: Arrays) -> Float32:
        inner: Any = self._policy
        told = (Context(instruction=(self._instruction,)),) if self.policy_specs.instruction_dim else ()
        features: Float32 = inner.features(observation, *told)
        return features
