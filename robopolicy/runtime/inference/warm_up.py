"""The first inferences of an engine are slow; none of them should be a robot's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robopolicy.core.errors import WorkerError
from robopolicy.core.policy import Arrays, Context, Policy, Prefix, draw_candidates, draw_noise, keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.clock import monotonic_ns
from robopolicy.runtime.reranking.deadline import rungs
from robopolicy.runtime.reranking.reranker import Reranker

_INSTRUCTION = "warm up"
_BEYOND = 2.0  # deadlines


def warm_up(policy: Policy, repeats: int, candidates: tuple[int, ...]) -> int:
    """Run on zeros, for each number of candidates; a policy that follows instructions gets one.

    Returns:
        the slowest, each number's first left out [ns]; 0 where there was none.
    Raises:
        WorkerError: an inference failed; whoever asked next would only learn the same.
    """
    specs = policy.policy_specs
    zeros, instruction = _zeros(specs), _INSTRUCTION if specs.instruction_dim else ""

    def once(count: int, measure: bool) -> None:
        draw_candidates(policy, zeros, count, rng=keyed_rng(0), instruction=instruction)

    return _repeat(repeats, candidates, once)


def warm_up_reranker(
    reranker: Reranker, repeats: int, num_candidates: int, *, clock: Callable[[], int] = monotonic_ns
) -> int:
    """The whole way to a choice, for every count that the deadline may fall back on: it learns their costs.
    Without a deadline that is the full count alone.

    Counts beyond one that takes twice the deadline are left out: they are predicted from the others, and a
    slow machine would not be ready in time. Returns and raises as ``warm_up``.

    Args:
        clock: monotonic [ns].
    """
    specs = reranker.policy_specs
    window = {name: value[None] for name, value in _zeros(specs).items()}
    prediction, dim = specs.chunk_shape
    nothing = Prefix(np.zeros((1, prediction, dim), np.float32), np.zeros((1, prediction), np.float32))
    past = np.zeros((1, specs.horizons.action_start, dim), np.float32)
    context = Context((_INSTRUCTION,), nothing, past)

    def once(count: int, measure: bool) -> None:
        noise = draw_noise(specs, count, keyed_rng(0))[None]
        reranker.rehearse(window, noise, context, measure=measure)

    deadline_s = reranker.config.deadline_s
    counts = rungs(num_candidates) if deadline_s else (num_candidates,)
    return _repeat(repeats, counts, once, enough_s=_BEYOND * deadline_s, clock=clock)


def _zeros(specs: PolicySpecs) -> Arrays:
    return {
        name: np.zeros((specs.horizons.observation, *spec.shape), dtype=spec.dtype)
        for name, spec in specs.specs.observation.items()
    }


def _repeat(
    repeats: int,
    counts: tuple[int, ...],
    once: Callable[[int, bool], None],
    *,
    enough_s: float = 0.0,
    clock: Callable[[], int] = monotonic_ns,
) -> int:
    """The fewest first, up to a count whose fastest takes longer than ``enough_s``; 0 for all of them."""
    slowest_ns = 0
    for count in sorted(set(counts)):
        taken = []
        for repeat in range(repeats):
            started_ns = clock()
            try:
                once(count, repeat > 0)
            except Exception as error:  # an engine's own errors too
                raise WorkerError(f"the first inference failed: {type(error).__name__}: {error}") from error
            taken.append(clock() - started_ns)
        slowest_ns = max([slowest_ns, *taken[1:]])
        if taken and 0 < enough_s < min(taken) * 1e-9:
            break
    return slowest_ns
