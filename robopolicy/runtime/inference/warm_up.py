"""The first inferences of an engine are slow; none of them should be a robot's."""

from __future__ import annotations

import time

import numpy as np

from robopolicy.core.errors import WorkerError
from robopolicy.core.policy import Policy, draw_candidates, keyed_rng


def warm_up(policy: Policy, repeats: int, candidates: tuple[int, ...]) -> int:
    """Run on zeros, for each number of candidates; a policy that follows instructions gets one.

    Returns:
        the slowest, each number's first left out [ns]; 0 where there was none.
    Raises:
        WorkerError: an inference failed; whoever asked next would only learn the same.
    """
    specs = policy.policy_specs
    zeros = {
        name: np.zeros((specs.horizons.observation, *spec.shape), dtype=spec.dtype)
        for name, spec in specs.specs.observation.items()
    }
    instruction = "warm up" if specs.instruction_dim else ""
    slowest_ns = 0
    for repeat in range(repeats):
        for count in sorted(set(candidates)):
            started_ns = time.monotonic_ns()
            try:
                draw_candidates(policy, zeros, count, rng=keyed_rng(0), instruction=instruction)
            except Exception as error:  # an engine's own errors too
                raise WorkerError(f"the first inference failed: {type(error).__name__}: {error}") from error
            slowest_ns = max(slowest_ns, time.monotonic_ns() - started_ns) if repeat else 0
    return slowest_ns
