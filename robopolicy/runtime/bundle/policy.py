"""A bundle as a policy: normalise, encode, sample, un-normalise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.language import INSTRUCTION, InstructionInput
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
)
from robopolicy.runtime.bundle.directory import Bundle
from robopolicy.runtime.language.choose import from_files


class BundlePolicy:
    """Satisfies ``robopolicy.core.policy.Policy`` without torch. Buffers are reused: one call at a time.

    Args:
        bundle: from ``load_bundle``.
        threads: of the inference engine, per graph.
        provider: see ``backends.choose.load_backend``.
        max_rows: most candidates times batch rows that TensorRT's engines are built for.
        cache: folder of TensorRT's engines; None is the user's cache folder.
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
    ) -> None:
        self._bundle = bundle
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
        }
        texts = from_files(bundle.text_files, bundle.manifest.text_encoder) if bundle.text_files else None
        self._instruction = InstructionInput(bundle.policy_specs.instruction_dim, texts)
        self._sampler = self._backends["step" if "step" in self._backends else "sampler"]

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._bundle.policy_specs

    @property
    def provider(self) -> str:
        """What executes the sampler, as the engine names it."""
        return self._sampler.provider

    @property
    def digest(self) -> str:
        """Of the bundle."""
        return self._bundle.digest

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """Candidates (batch, n, prediction_horizon, action_dim); see ``Policy.sample``.

        The observation is encoded once, however many candidates there are, and each text once in the life of
        the policy. Of the context a policy whose specs say ``takes_prefix`` heeds the prefix, and one with an
        ``instruction_dim`` the instruction.

        Raises:
            SpecError: the policy follows instructions and got none.
            NonFiniteValueError: the network gave NaN or infinity.
        """
        specs = self.policy_specs
        batch, n = check_inputs(specs, observation, noise)
        rows = np.ascontiguousarray(noise.reshape(batch * n, *specs.noise_shape), dtype=np.float32)
        feeds = {CONDITIONING: self._encode("encoder", CONDITIONING, observation, n, context)}
        if specs.takes_prefix:
            feeds.update(self._prefix(context.prefix, batch, n))
        if "step" in self._backends:
            chunk: Float32 = self._sampler.iterate({STEP_CHUNK: rows, **feeds})
        else:
            chunk = self._sampler.run({NOISE: rows, **feeds})[CHUNK]
        _check_result("sampler", chunk, (batch * n, *specs.chunk_shape))
        return self._bundle.normalisers.action.inverse(chunk).reshape(batch, n, *specs.chunk_shape)

    def values(self, observation: Arrays, candidates: Float32, context: Context = NO_CONTEXT) -> Float32:
        """The critic's score of each candidate, higher is better.

        Args:
            observation: each (batch, observation_horizon, *shape), in physical units.
            candidates: (batch, n, prediction_horizon, action_dim) in the action spec's units.
            context: the instruction, for a policy that follows one.
        Returns:
            (batch, n).
        Raises:
            SpecError: the bundle has no critic; plus what ``sample`` raises.
        """
        specs = self.policy_specs
        if "critic" not in self._backends:
            raise SpecError(f"the bundle in {self._bundle.directory} has no critic to give values")
        if candidates.ndim != 4 or candidates.shape[2:] != specs.chunk_shape:
            raise ShapeError(f"candidates must be (batch, n, {specs.chunk_shape}), got {candidates.shape}")
        batch, n = candidates.shape[:2]
        check_inputs(specs, observation, np.zeros((batch, n, *specs.noise_shape), np.float32))
        chunk = self._bundle.normalisers.action.forward(candidates).reshape(batch * n, *specs.chunk_shape)
        seen = self._encode("critic_encoder", CRITIC_CONDITIONING, observation, n, context)
        value: Float32 = self._backends["critic"].run({CRITIC_CONDITIONING: seen, CHUNK: chunk})[VALUE]
        _check_result("critic", value, (batch * n,))
        return value.reshape(batch, n)

    def _encode(self, role: str, output: str, observation: Arrays, n: int, context: Context) -> Float32:
        """(batch * n, ...): what the encoder gives, repeated for each candidate."""
        names = self.policy_specs.specs.observation
        inputs = self._bundle.normalisers.observations(
            self.policy_specs.specs, {k: observation[k] for k in names}
        )
        if self.policy_specs.instruction_dim:
            batch = len(next(iter(observation.values())))
            inputs = {**inputs, INSTRUCTION: self._instruction.rows(context.instruction, batch)}
        encoded: Float32 = self._backends[role].run(
            {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        )[output]
        return encoded if n == 1 else np.repeat(encoded, n, axis=0)

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


def _check_result(what: str, result: Float32, shape: tuple[int, ...]) -> None:
    if result.shape != shape:
        raise ShapeError(f"the {what} gave {result.shape} instead of {shape}")
    if not np.isfinite(result).all():
        bad = int(np.size(result) - np.isfinite(result).sum())
        raise NonFiniteValueError(f"the {what} gave {bad} non-finite values of {result.size}")
