"""Goals by name: the observation "goal.KEY" is what the observation KEY is to look like.

Training takes it from later in the same episode (``datasets.goals``), inference from outside
(``evaluation.goals``). To normalisers and networks it is an observation like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from robopolicy.core.errors import SpecError
from robopolicy.core.specs import PolicySpecs, Specs

PREFIX = "goal."


def goal_keys(keys: Iterable[str]) -> list[str]:
    """Those of the names that are goals."""
    return [key for key in keys if key.startswith(PREFIX)]


def source_of(goal: str) -> str:
    """KEY of "goal.KEY"."""
    return goal[len(PREFIX) :]


def sources(specs: Specs, keys: Iterable[str]) -> dict[str, str]:
    """Every goal among ``keys`` that the data do not hold themselves, to the observation it is made of.

    Raises:
        SpecError: there is no such observation; lists those there are.
    """
    derived = {key: source_of(key) for key in goal_keys(keys) if key not in specs.observation}
    missing = [key for key, source in derived.items() if source not in specs.observation]
    if missing:
        raise SpecError(f"no observation to make {missing} of; there are {sorted(specs.observation)}")
    return derived


def select(specs: Specs, keys: tuple[str, ...]) -> Specs:
    """``Specs.select`` where "goal.KEY" may stand for any KEY; its spec is KEY's."""
    derived = {key: specs.observation[source] for key, source in sources(specs, keys).items()}
    return dataclasses.replace(specs, observation={**specs.observation, **derived}).select(keys)


def without(specs: PolicySpecs, keys: Iterable[str]) -> PolicySpecs:
    """What remains to be sensed when ``keys`` come from outside; SpecError when nothing does."""
    outside = set(keys)
    kept = {k: spec for k, spec in specs.specs.observation.items() if k not in outside}
    return dataclasses.replace(specs, specs=dataclasses.replace(specs.specs, observation=kept))
