"""A bundle as a policy: normalise, encode, sample, un-normalise."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.language import INSTRUCTION, InstructionInput
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Prefix, check_inputs
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.backends.choose import load_backend
from robopolicy.runtime.backends.protocol import Loop
from robopolicy.runtime.bundle.contract import (
    CHUNK,
    CONDITIONING,
    CRITIC_CONDITIONING,
    NOISE,
    PREFIX,
    PREFIX_WEIGHT,
    STEP_CHUNK,
    STEP_OUTPUT,
    STEP_PARAMETERS,
    VALUE,
    CriticPart,
)
from robopolicy.runtime.bundle.directory import Bundle
from robopolicy.runtime.language.choose import from_files

_CRITIC = ("critic_encoder", "critic")  # graphs


class BundlePolicy:
    """Satisfies ``core.policy.Policy`` without torch, and ``core.critic.Critic`` where the bundle has one
    (``has_critic``). Buffers are reused: one call at a time.

    Args:
        bundle: from ``load_bundle``.
        threads: of the inference engine, per graph.
        provider: see ``backends.choose.load_backend``.
        max_rows: most candidates times batch rows that TensorRT's engines are built for.
        cache: folder of TensorRT's engines; None is the user's cache folder.
        only: "policy" or "critic", to load no more than the graphs of that; empty for all.
    Raises:
        ConfigError, SpecError: its text encoder is damaged, or does not fit the policy.
        MissingDependencyError: its text encoder needs a package that is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        provider: str = "auto",
        max_rows: int = 16,
        cache: Path | None = None,
        only: Literal["", "policy", "critic"] = "",
    ) -> None:
        self._bundle, self._only = bundle, only
        rows = np.asarray(bundle.manifest.steps, dtype=np.float32)
        loop = Loop(STEP_CHUNK, STEP_PARAMETERS, STEP_OUTPUT, rows)
        self._backends = {
            role: load_backend(
                bundle.manifest.graphs[role].file,
                model,
                precision=bundle.manifest.graphs[role].precision,
                threads=threads,
                provider=provider,
                loop=loop if role == "step" else None,
                max_rows=max_rows,
                cache=cache,
            )
            for role, model in bundle.graphs.items()
            if not only or (only == "critic") == (role in _CRITIC)
        }
        texts = from_files(bundle.text_files, bundle.manifest.text_encoder) if bundle.text_files else None
        self._instruction = InstructionInput(bundle.policy_specs.instruction_dim, texts)

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._bundle.policy_specs

    @property
    def normalisers(self) -> Normalisers:
        """Of the policy's training data."""
        return self._bundle.normalisers

    @property
    def provider(self) -> str:
        """What executes the sampler, or the critic where that is all there is, as the engine names it."""
        named = [role for role in ("step", "sampler", "critic") if role in self._backends]
        return self._backends[named[0]].provider if named else ""

    @property
    def digest(self) -> str:
        """Of the bundle."""
        return self._bundle.digest

    @property
    def has_critic(self) -> bool:
        """Whether ``values`` and what belongs to it can be asked for."""
        return self._bundle.critic is not None and self._only != "policy"

    @property
    def critic_specs(self) -> PolicySpecs:
        """What the critic looks at; SpecError without one."""
        return self._critic.specs

    @property
    def critic_normalisers(self) -> Normalisers:
        """Of the critic's training data; SpecError without one."""
        return self._critic.normalisers

    @property
    def _critic(self) -> CriticPart:
        if self._bundle.critic is None or not self.has_critic:
            raise SpecError(f"the bundle in {self._bundle.directory} has no critic to give values")
        return self._bundle.critic

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """Candidates (batch, n, prediction_horizon, action_dim); see ``Policy.sample``.

        The observation is encoded once, however many candidates there are, and each text once in the life of
        the policy. Of the context a policy whose specs say ``takes_prefix`` heeds the prefix, and one with an
        ``instruction_dim`` the instruction.

        Raises:
            SpecError: the policy follows instructions and got none, or the critic alone was loaded.
            NonFiniteValueError: the network gave NaN or infinity.
        """
        if self._only == "critic":
            raise SpecError(f"of the bundle in {self._bundle.directory} the critic alone was loaded")
        specs = self.policy_specs
        batch, n = check_inputs(specs, observation, noise)
        rows = np.ascontiguousarray(noise.reshape(batch * n, *specs.noise_shape), dtype=np.float32)
        normalisers = self._bundle.normalisers
        encoded = self._encode("encoder", specs, normalisers, observation, context)[CONDITIONING]
        feeds = {CONDITIONING: _repeated(encoded, n)}
        if specs.takes_prefix:
            feeds.update(self._prefix(context.prefix, batch, n))
        if "step" in self._backends:
            chunk: Float32 = self._backends["step"].iterate({STEP_CHUNK: rows, **feeds})
        else:
            chunk = self._backends["sampler"].run({NOISE: rows, **feeds})[CHUNK]
        _check_shape("sampler", chunk, (batch * n, *specs.chunk_shape))
        if not (good := np.isfinite(chunk)).all():
            raise NonFiniteValueError(f"the sampler gave {(~good).sum()} non-finite values of {chunk.size}")
        return normalisers.action.inverse(chunk).reshape(batch, n, *specs.chunk_shape)

    def values(self, observation: Arrays, candidates: Float32, context: Context = NO_CONTEXT) -> Float32:
        """What each member of the critic expects of each candidate; see ``core.critic.Critic``.

        The observation is encoded once, and all candidates are judged in one call. NaN passes through.

        Returns:
            (batch, n, members).
        Raises:
            SpecError: the bundle has no critic, or it heeds an instruction and got none; ShapeError.
        """
        specs, normalisers = self.critic_specs, self.critic_normalisers
        if candidates.ndim != 4 or candidates.shape[2:] != specs.chunk_shape:
            raise ShapeError(f"candidates must be (batch, n, {specs.chunk_shape}), got {candidates.shape}")
        batch, n = candidates.shape[:2]
        check_inputs(specs, observation, np.zeros((batch, n), np.float32))  # a critic takes no noise
        chunk = normalisers.action.forward(candidates).reshape(batch * n, *specs.chunk_shape)
        seen = self._encode("critic_encoder", specs, normalisers, observation, context)[CRITIC_CONDITIONING]
        feeds = {CRITIC_CONDITIONING: _repeated(seen, n), CHUNK: chunk}
        value: Float32 = self._backends["critic"].run(feeds)[VALUE]
        _check_shape("critic", value, (batch * n, value.shape[-1]))
        return value.reshape(batch, n, -1)

    def _encode(
        self, role: str, specs: PolicySpecs, normalisers: Normalisers, observation: Arrays, context: Context
    ) -> dict[str, Float32]:
        """What an encoder gives, (batch, ...)."""
        inputs = normalisers.observations(specs.specs, observation)
        if specs.instruction_dim:
            batch = len(next(iter(observation.values())))
            inputs = {**inputs, INSTRUCTION: self._instruction.rows(context.instruction, batch)}
        return self._backends[role].run({name: np.ascontiguousarray(value) for name, value in inputs.items()})

    def _prefix(self, prefix: Prefix | None, batch: int, n: int) -> dict[str, Float32]:
        horizon, dim = self.policy_specs.chunk_shape
        if prefix is None:  # a weight of zero leaves every action free
            return {
                PREFIX: np.zeros((batch * n, horizon, dim), np.float32),
                PREFIX_WEIGHT: np.zeros((batch * n, horizon), np.float32),
            }
        prefix.check(self.policy_specs, batch)
        action = self._bundle.normalisers.action.forward(prefix.action)
        weight = prefix.weight.astype(np.float32)
        return {PREFIX: np.repeat(action, n, axis=0), PREFIX_WEIGHT: np.repeat(weight, n, axis=0)}


def _repeated(encoded: Float32, n: int) -> Float32:
    """(batch * n, ...): one row for each candidate."""
    return encoded if n == 1 else np.repeat(encoded, n, axis=0)


def _check_shape(what: str, result: Float32, shape: tuple[int, ...]) -> None:
    if result.shape != shape:
        raise ShapeError(f"the {what} gave {result.shape} instead of {shape}")
