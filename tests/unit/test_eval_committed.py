"""What evaluation tells of the plan in force: to what chooses, never to the policy."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from walking import SPECS, Still, Walk

from robopolicy.core.policy import Context, Prefix
from robopolicy.core.specs import ActionPart, ActionSpec
from robopolicy.evaluation.committed import committed
from robopolicy.evaluation.compensation import DelayCompensated
from robopolicy.evaluation.goals import GoalPolicy
from robopolicy.evaluation.instructed import InstructedPolicy
from robopolicy.evaluation.rollout import evaluate
from robopolicy.runtime.reranking.config import RerankConfig
from robopolicy.runtime.reranking.policy import RerankedPolicy
from robopolicy.runtime.reranking.reranker import Reranker

H = SPECS.horizons
LEFT = H.prediction - H.action


class Noisy(Still):
    """A policy of noise, which remembers whether it was told what is committed."""

    def __init__(self) -> None:
        self.told: list = []

    def sample(self, observation, noise, context=None):
        self.told.append(context.prefix)
        return noise.reshape(*noise.shape[:2], *SPECS.chunk_shape) * 0.1


class Remembers:
    """A score that keeps what is committed in the first row, and likes the second candidate."""

    name, unit = "remembers", "1"

    def __init__(self) -> None:
        self.seen: list = []

    def __call__(self, candidates, situation):
        prefix = situation.context.prefix
        self.seen.append((prefix.action[0], prefix.weight[0], candidates[0, 1]))
        return np.broadcast_to([0.0, 1.0], candidates.shape[:2])


def test_what_is_left_of_the_chunk_before_is_committed_and_the_policy_is_not_told() -> None:
    policy, score = Noisy(), Remembers()
    reranker = Reranker(policy, [(score, 1.0)], RerankConfig(num_candidates=2))
    evaluate(RerankedPolicy(reranker, binds=False), Walk, [6, 8], num_envs=1)
    assert all(prefix is None for prefix in policy.told) and len(score.seen) > 3
    begins = [i for i, (_, weight, _) in enumerate(score.seen) if not weight.any()]
    assert len(begins) == 2 and begins[0] == 0  # an episode does not go on with the plan of another
    for i, (action, weight, _) in enumerate(score.seen):
        if i not in begins:
            np.testing.assert_array_equal(action[:LEFT], score.seen[i - 1][2][H.action :])
            assert (weight[: min(H.action_start, LEFT)] == 1).all() and not weight[LEFT:].any()


def test_a_chunk_that_is_not_finite_commits_to_nothing() -> None:
    broken = np.full(SPECS.chunk_shape, np.nan, np.float32)
    prefix = committed([None, broken, np.ones(SPECS.chunk_shape, np.float32)], SPECS)
    prefix.check(SPECS, 3)
    assert not prefix.weight[:2].any() and (prefix.weight[2].any() == (LEFT > 0))


def test_what_wraps_a_choice_tells_it_what_is_committed() -> None:
    score = Remembers()
    chooser = RerankedPolicy(Reranker(Noisy(), [(score, 1.0)], RerankConfig(num_candidates=2)), binds=False)
    wrapped = GoalPolicy(InstructedPolicy(chooser, "walk"), {})
    evaluate(wrapped, Walk, [6], num_envs=1)
    assert [bool(weight.any()) for _, weight, _ in score.seen] == [False] + [True] * (len(score.seen) - 1)
    assert len(score.seen) > 2 and not InstructedPolicy(Still(), "walk").sees_committed


class Told(Still):
    """Keeps the prefix; its actions are absolute, so that some can be skipped."""

    sees_committed = True
    policy_specs = dataclasses.replace(
        Still.policy_specs,
        specs=dataclasses.replace(
            SPECS.specs, action=ActionSpec((ActionPart("planar_position", ("x", "y")),))
        ),
    )

    def sample(self, observation, noise, context=None):
        self.prefix = context.prefix
        return super().sample(observation, noise, context)


def test_what_is_committed_lies_as_far_ahead_as_the_commands_of_a_delayed_policy() -> None:
    policy = Told()
    delayed = DelayCompensated(policy, 0.2)  # two steps
    assert delayed.sees_committed
    action = np.arange(8, dtype=np.float32)[None, :, None] * np.ones((1, 1, 2), np.float32)
    weight = np.linspace(1, 0, 8, dtype=np.float32)[None]
    window = {"place": np.zeros((1, 2, 2), np.float32)}
    noise = np.zeros((1, 1, 8, 2), np.float32)
    delayed.sample(window, noise, Context(("",), prefix=Prefix(action, weight)))
    np.testing.assert_array_equal(policy.prefix.action[0, 2:, 0], np.arange(6))
    np.testing.assert_allclose(policy.prefix.weight[0], [0, 0, *weight[0, :6]])
    policy.prefix.check(policy.policy_specs, 1)


@pytest.mark.parametrize(("reached", "begun"), [("end", H.action_start), ("start", H.action_start + 1)])
def test_the_steps_that_have_begun_are_bound(reached: str, begun: int) -> None:
    action = dataclasses.replace(SPECS.specs.action, reached=reached)
    specs = dataclasses.replace(SPECS, specs=dataclasses.replace(SPECS.specs, action=action))
    (weight,) = committed([np.ones(SPECS.chunk_shape, np.float32)], specs).weight
    assert (weight == 1).sum() == begun < LEFT and (weight > 0).sum() == LEFT
