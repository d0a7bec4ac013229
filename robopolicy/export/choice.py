"""The form of the denoising loop, by measurement on this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Policy, draw_noise, keyed_rng

#: The unrolled form must be this much faster to be chosen: every start of it takes far longer.
MARGIN = 0.03
ROUNDS = 15
WARM_UP = 2
#: A large network is measured in fewer rounds [s].
BUDGET_S = 30.0


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Args:
        latency_ms: form to number of candidates to the median of the calls.
        fastest_ms: the same of the fastest call, which decides.
    """

    form: str
    latency_ms: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    fastest_ms: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


def choose_form(
    policies: Mapping[str, Policy],
    observation: Arrays,
    candidates: Sequence[int],
    *,
    context: Context = NO_CONTEXT,
    clock: Callable[[], int] = time.perf_counter_ns,
    rounds: int = ROUNDS,
) -> Choice:
    """Time each form and take the faster.

    The forms take turns, so that a busy moment of the machine hits all of them, and the fastest call of each
    counts, since other processes only ever add. Compared is the geometric mean over the numbers of
    candidates. "step" wins unless "unrolled" is more than 3 % faster: a graph that holds every iteration
    takes an engine seconds to load, and a worker must be restarted in less.

    Args:
        policies: form to the exported policy.
        observation: one window, each (observation_horizon, *shape).
        candidates: how many at once.
        context: an instruction, for a policy that follows one.
        clock: monotonic [ns].
    Raises:
        ConfigError: no policies.
    """
    if not policies:
        raise ConfigError("there is no form to choose from")
    batch = {name: value[None] for name, value in observation.items()}
    medians: dict[str, dict[int, float]] = {form: {} for form in policies}
    fastest: dict[str, dict[int, float]] = {form: {} for form in policies}
    for count in candidates:
        noise = draw_noise(next(iter(policies.values())).policy_specs, count, keyed_rng(0, count))[None]
        for _ in range(WARM_UP):
            for policy in policies.values():
                policy.sample(batch, noise, context)
        times: dict[str, list[int]] = {form: [] for form in policies}
        begin = clock()
        for done in range(rounds):
            if done >= 3 and clock() - begin > BUDGET_S / len(candidates) * 1e9:
                break
            for form, policy in policies.items():
                started = clock()
                policy.sample(batch, noise, context)
                times[form].append(clock() - started)
        for form, taken in times.items():
            medians[form][count] = statistics.median(taken) / 1e6
            fastest[form][count] = min(taken) / 1e6
    scores = {form: math.prod(found.values()) ** (1 / len(found)) for form, found in fastest.items()}
    if "step" in scores:
        scores["step"] *= 1 - MARGIN
    return Choice(min(scores, key=scores.__getitem__), medians, fastest)
