"""A small environment and a policy of numpy alone, so that processes that host them start quickly."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np

from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs

SPECS = PolicySpecs(
    Specs(
        {"place": ArraySpec((2,), units=("m", "m"))},
        ActionSpec((ActionPart("joint_delta", ("x", "y"), "relative"),)),
        10.0,
    ),
    Horizons(2, 8, 3),
)


class Walk(gym.Env):
    """A point that moves by its actions; over when it is far out (success) or out of time.

    The time limit differs from seed to seed, so that lockstep rows come and go.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    made = closed = 0

    def __init__(self, name: str = "place") -> None:
        self.name = name
        type(self).made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        self.place = self.np_random.uniform(-1, 1, 2)
        self.limit = 5 + seed % 7
        return {self.name: self.place.copy(), "unused": np.zeros(3)}, {}

    def step(self, action):
        assert action.dtype == np.float32 and action.shape == (2,)
        self.steps += 1
        self.place = self.place + 0.1 * action
        far = float(np.linalg.norm(self.place))
        over = self.steps >= self.limit
        info = {"far": far, "flag": True, "text": "x", "steps": self.steps, "time": 0.1}
        return {self.name: self.place.copy(), "unused": np.zeros(3)}, -far, far > 1.2, over, info

    def render(self):
        return np.full((2, 2, 3), self.steps, np.uint8)

    def close(self):
        type(self).closed += 1


class Still:
    """A policy of numpy alone, so that no test here waits for torch; moves by its noise."""

    policy_specs = replace(SPECS, noise_shape=(8, 2))

    def sample(self, observation, noise, context=None):
        self.instructions = context.instruction
        return np.tanh(noise) + 0.1 * observation["place"][:, None, -1:]
