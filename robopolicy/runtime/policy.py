"""A bundle as a policy: normalise, encode, sample, un-normalise."""

from __future__ import annotations

import numpy as np

from robopolicy.core.errors import NonFiniteValueError, ShapeError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, check_inputs
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.backends.onnxruntime import OnnxRuntimeBackend
from robopolicy.runtime.bundle import Bundle
from robopolicy.runtime.contract import CHUNK, CONDITIONING, NOISE


class BundlePolicy:
    """Satisfies ``robopolicy.core.policy.Policy`` without torch.

    Args:
        bundle: from ``load_bundle``.
        threads: of the inference engine, per graph.
        provider: "cpu", "cuda" or "auto".
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1, provider: str = "auto") -> None:
        self._bundle = bundle
        self._encoder = OnnxRuntimeBackend(bundle.graphs["encoder"], threads=threads, provider=provider)
        self._sampler = OnnxRuntimeBackend(bundle.graphs["sampler"], threads=threads, provider=provider)

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._bundle.policy_specs

    @property
    def provider(self) -> str:
        """What executes the sampler, as the engine names it."""
        return self._sampler.provider

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """Candidates (batch, n, prediction_horizon, action_dim); see ``Policy.sample``.

        The observation is encoded once, however many candidates there are. No graph takes the context.

        Raises:
            NonFiniteValueError: the network gave NaN or infinity.
        """
        specs = self.policy_specs
        batch, n = check_inputs(specs, observation, noise)
        names = specs.specs.observation
        inputs = self._bundle.normalisers.observations(specs.specs, {k: observation[k] for k in names})
        feeds = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        conditioning = self._encoder.run(feeds)[CONDITIONING]
        rows = {
            CONDITIONING: np.repeat(conditioning, n, axis=0),
            NOISE: np.ascontiguousarray(noise.reshape(batch * n, *specs.noise_shape), dtype=np.float32),
        }
        chunk = self._sampler.run(rows)[CHUNK]
        if chunk.shape != (batch * n, *specs.chunk_shape):
            raise ShapeError(f"the sampler gave {chunk.shape} instead of {(batch * n, *specs.chunk_shape)}")
        if not np.isfinite(chunk).all():
            bad = int(np.size(chunk) - np.isfinite(chunk).sum())
            raise NonFiniteValueError(f"the sampler gave {bad} non-finite values of {chunk.size}")
        return self._bundle.normalisers.action.inverse(chunk).reshape(batch, n, *specs.chunk_shape)
