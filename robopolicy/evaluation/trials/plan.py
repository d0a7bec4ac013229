"""Which policy runs when: blocks of one start each, every policy once in a block, in random order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import keyed_rng


@dataclass(frozen=True)
class Trial:
    """One run of one policy.

    Args:
        number: from 1, as the person sees it.
        block: from 0; all trials of a block share the start, and differ in the policy.
        condition: index of the start.
        policy: index of the policy; hidden until the end.
        seed: shared within a block, so that results pair up by it.
    """

    number: int
    block: int
    condition: int
    policy: int
    seed: int


def draw_plan(
    *, policies: int, conditions: int, repeats: int = 1, seed: int = 0, first_seed: int = 0
) -> tuple[Trial, ...]:
    """A blocked random order.

    Starts come in a new random order in every repeat, so that light, wear and the person's mood fall on all
    policies alike; within a block the order of the policies is random.

    Args:
        policies: how many are compared.
        conditions: how many starts there are.
        repeats: how often each policy runs from each start.
        seed: the order depends on it alone.
        first_seed: of the trials; block b of the design has first_seed + b.
    Raises:
        ConfigError: a count below 1.
    """
    for name, count in (("policies", policies), ("conditions", conditions), ("repeats", repeats)):
        if count < 1:
            raise ConfigError(f"a plan needs at least one of {name}, got {count}")
    rng = keyed_rng(seed)
    trials: list[Trial] = []
    for repeat in range(repeats):
        for condition in rng.permutation(conditions):
            trial_seed = first_seed + repeat * conditions + int(condition)
            for policy in rng.permutation(policies):
                number, block = len(trials) + 1, len(trials) // policies
                trials.append(Trial(number, block, int(condition), int(policy), trial_seed))
    return tuple(trials)


def plan_digest(plan: Sequence[Trial]) -> str:
    """SHA-256 that is published before the first trial: nobody can change the order afterwards unseen."""
    return hashlib.sha256(json.dumps([asdict(trial) for trial in plan]).encode()).hexdigest()
