"""Which of the two goals a policy goes to: in episodes, and in the chunks it draws from one state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from robopolicy import robots
from robopolicy.core.geometry import Float
from robopolicy.core.history import History
from robopolicy.core.kinematics import Kinematics
from robopolicy.core.policy import Policy, draw_candidates, keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import make_env_for, named_observation
from robopolicy.evaluation.rollout import evaluate
from robopolicy_sim.tasks.two_goal_reach import SIDES

TASK = "two_goal_reach"
OUTCOMES = (*SIDES, "none")


class Sided(gym.Wrapper):
    """Says in ``info`` at which goal an episode succeeded."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        nearest = min(SIDES, key=lambda side: np.linalg.norm(observation[f"{side}_goal_in_tool"]))
        at = {f"reached_{side}": float(info["is_success"] and side == nearest) for side in SIDES}
        return observation, reward, terminated, truncated, {**info, **at}


def make_sided(specs: PolicySpecs) -> Sided:
    """The task as this policy observes it."""
    return Sided(make_env_for(TASK, specs))


def outcomes(policy: Policy, seeds: Sequence[int], repeats: int, console: Console) -> list[Counter[str]]:
    """For each initial state, how often ``repeats`` episodes with different noise reached which goal."""
    counts: list[Counter[str]] = [Counter() for _ in seeds]
    make = partial(make_sided, policy.policy_specs)
    for noise_seed in range(repeats):
        results = evaluate(policy, make, seeds, noise_seed=noise_seed, console=console)
        for count, result in zip(counts, results):
            at = [side for side in SIDES if result.maxima[f"reached_{side}"] > 0]
            count[at[0] if at else "none"] += 1
    return counts


@dataclass(frozen=True)
class Drawn:
    """Chunks from one initial state, as the way of the tool.

    Args:
        paths: (n, steps, 3) tool positions that the commands ask for, from the present on [m].
        goals: position of each side's goal [m].
        wall: (4, 2) corners in the plane [m].
    """

    paths: Float
    goals: dict[str, Float]
    wall: Float

    @property
    def lateral(self) -> Float:
        """(n,) where each path ends, from right goal to left: -1 to 1 [-]."""
        middle = (self.goals["left"] + self.goals["right"]) / 2
        across = self.goals["left"] - middle
        ends: Float = (self.paths[:, -1] - middle) @ across / (across @ across)
        return ends

    def sides(self) -> Counter[str]:
        """Paths that end in the outer half towards a goal, or between the two ("none")."""
        return Counter("left" if x > 0.5 else "right" if x < -0.5 else "none" for x in self.lateral)


def draw(policy: Policy, seed: int, count: int) -> Drawn:
    """Candidate chunks from the initial state of ``seed``."""
    specs = policy.policy_specs
    env = make_sided(specs)
    raw, _ = env.reset(seed=seed)
    history = History(specs)
    history.push(named_observation(raw, specs))
    chunks = draw_candidates(policy, history.window(), count, rng=keyed_rng(0, seed))
    joints = chunks[:, specs.horizons.action_start :, :-1]  # the last number is the gripper
    kinematics = Kinematics(robots.load(specs.specs.robot))
    tool = kinematics.tool(kinematics.frames(joints.reshape(-1, joints.shape[-1])))
    goals = {side: np.asarray(raw[f"{side}_goal"], np.float64) for side in SIDES}
    found = Drawn(tool.reshape(*joints.shape[:2], 3), goals, _corners(env.unwrapped, "wall"))
    env.close()
    return found


def _corners(env: Any, geom: str) -> NDArray[np.float64]:
    """(4, 2) of a box seen from above [m]."""
    data, size = env.simulation.data.geom(geom), env.simulation.model.geom(geom).size
    local = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * size[:2]
    turned: NDArray[np.float64] = data.xpos[:2] + local @ data.xmat.reshape(3, 3)[:2, :2].T
    return turned
