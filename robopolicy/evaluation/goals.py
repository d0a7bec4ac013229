"""Goals from outside: what a goal-conditioned policy is to reach, for a whole evaluation or run.

An environment or plant that gives "goal.KEY" itself, another one each episode, say, needs nothing of this.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.goals import goal_keys, without
from robopolicy.core.horizons import Horizons
from robopolicy.core.plant import Plant, Stamped
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Policy
from robopolicy.core.specs import PolicySpecs, Specs
from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows

Goals = Mapping[str, NDArray[Any]]


def load_goals(text: str, specs: PolicySpecs) -> dict[str, NDArray[Any]]:
    """What the last step of a recorded episode saw, for every goal of a policy.

    Args:
        text: STORE#EPISODE, the store by path or URL and the episode by number.
    Returns:
        "goal.KEY" to (*shape).
    Raises:
        ConfigError: the text is not of this form; StoreError: no such store or episode; SpecError: the
        policy has no goals, or the store lacks one or has it in another shape.
    """
    where, mark, episode = text.rpartition("#")
    if not (mark and where and episode.isdigit()):
        raise ConfigError(f"a goal is STORE#EPISODE, as in demos.zarr#12, got {text!r}")
    keys = tuple(goal_keys(specs.specs.observation))
    if not keys:
        raise SpecError(f"the policy takes no goals; it sees {sorted(specs.specs.observation)}")
    store = EpisodeStore.open(where)
    (name,) = editing.resolve(store, [episode])
    windows = Windows(store, Horizons(1, 1, 1), keys, [name])
    last = windows.batch(np.array([len(windows) - 1])).observation
    return check_goals({key: last[key][0, 0] for key in keys}, specs)


def check_goals(goals: Goals, specs: PolicySpecs) -> dict[str, NDArray[Any]]:
    """The goals in the types of their specs.

    Raises:
        SpecError: one that the policy does not take, or an image of another dtype; ShapeError.
    """
    known = goal_keys(specs.specs.observation)
    if unknown := sorted(set(goals) - set(known)):
        raise SpecError(f"the policy takes no {unknown}; its goals are {known}")
    found = {}
    for key, value in goals.items():
        spec = specs.specs.observation[key]
        spec.check(key, value)
        found[key] = np.asarray(value, spec.dtype).reshape(spec.shape)
    return found


class GoalPolicy:
    """Another policy under fixed goals: it asks for the rest of what that one observes.

    Args:
        policy: whose observations include the goals.
        goals: "goal.KEY" to (*shape).
    Raises:
        SpecError, ShapeError: a goal does not fit the policy.
    """

    def __init__(self, policy: Policy, goals: Goals) -> None:
        self._policy = policy
        self.sees_committed = bool(getattr(policy, "sees_committed", False))
        self.needs_instruction = bool(getattr(policy, "needs_instruction", False))
        self._goals = check_goals(goals, policy.policy_specs)
        self.policy_specs: PolicySpecs = without(policy.policy_specs, goals)
        digest = hashlib.sha256(str(getattr(policy, "digest", "")).encode())
        for key, value in sorted(self._goals.items()):
            digest.update(key.encode() + value.tobytes())
        self.digest = digest.hexdigest() if getattr(policy, "digest", "") else ""

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """As the policy's with these goals throughout every window: see ``core.policy.Policy.sample``."""
        times = (len(noise), self.policy_specs.horizons.observation)
        constant = {k: np.tile(v, (*times, *(1 for _ in v.shape))) for k, v in self._goals.items()}
        return self._policy.sample({**observation, **constant}, noise, context)


class GoalPlant:
    """A plant whose observations hold fixed goals besides, as old as the newest of them.

    Args:
        plant: a robot or a simulator.
        goals: "goal.KEY" to (*shape); specs: of the policy that takes them.
    """

    def __init__(self, plant: Plant, goals: Goals, specs: PolicySpecs) -> None:
        self._plant = plant
        self._goals = check_goals(goals, specs)
        self._described = {key: specs.specs.observation[key] for key in goals}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plant, name)

    @property
    def specs(self) -> Specs:
        sensed = self._plant.specs
        return dataclasses.replace(sensed, observation={**sensed.observation, **self._described})

    def observe(self) -> dict[str, Stamped]:
        """What the plant observes, and the goals."""
        sensed = self._plant.observe()
        newest = max(stamped.time_ns for stamped in sensed.values())
        return {**sensed, **{key: Stamped(value, newest) for key, value in self._goals.items()}}
