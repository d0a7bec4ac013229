"""A critic judges only candidates that it understands as the policy means them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from reranked import ACTION, FakeCritic, FakePolicy, rerank_normalisers, rerank_specs

from robopolicy.core.errors import SpecError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec
from robopolicy.runtime import RerankConfig, ScoreConfig, build_reranker
from robopolicy.runtime.reranking.pairing import check_pairing


def paired(specs, critic: FakeCritic, *, normalisers=None) -> None:
    check_pairing(
        specs, critic.critic_specs, normalisers=normalisers, critic_normalisers=critic.critic_normalisers
    )


def critic_with(**changes) -> FakeCritic:
    critic = FakeCritic()
    specs = critic.critic_specs
    inner = {k: v for k, v in changes.items() if k != "horizons"}
    critic.critic_specs = dataclasses.replace(
        specs,
        specs=dataclasses.replace(specs.specs, **inner),
        horizons=changes.get("horizons", specs.horizons),
    )
    return critic


def test_a_critic_that_looks_at_less_is_fine() -> None:
    paired(rerank_specs(), FakeCritic(), normalisers=rerank_normalisers())


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"policy_rate": 20.0}, "policy has 10.0, the critic 20.0"),
        ({"horizons": Horizons(1, 6, 3)}, r"observation=2.*critic Horizons\(observation=1"),
        ({"action": dataclasses.replace(ACTION, reached="start")}, r"reached='end'.*reached='start'"),
        ({"action": ActionSpec((ActionPart("joint_position", ("b", "a")),))}, r"\('a', 'b'\).*\('b', 'a'\)"),
        ({"observation": {"goal": ArraySpec((3,))}}, r"'goal' as .*\(3,\).*policy is given .*\(1,\)"),
        ({"observation": {"lid": ArraySpec((1,))}}, r"'lid'.*only \['goal', 'joints'\]"),
    ],
)
def test_what_means_something_else_is_refused_with_both_sides(changes: dict, both: str) -> None:
    with pytest.raises(SpecError, match=both):
        paired(rerank_specs(), critic_with(**changes))


@pytest.mark.parametrize(
    ("offset", "scale", "fits"),
    [
        (0.0, 2.0, True),
        (0.9, 2.0, True),
        (2.1, 2.0, False),
        (0.0, 1.1, True),
        (0.0, 0.9, False),
        (9, 2, False),
    ],
)
def test_normalisers_are_two_fits_to_episodes_of_one_kind(offset: float, scale: float, fits: bool) -> None:
    normalisers = rerank_normalisers(offset=offset, scale=scale)
    if fits:
        paired(rerank_specs(), FakeCritic(), normalisers=normalisers)
        return
    with pytest.raises(
        SpecError, match=rf"'a' ranges over {offset - scale:.4g}\.\..*, -2\.\.2 in the critic"
    ):
        paired(rerank_specs(), FakeCritic(), normalisers=normalisers)


def test_the_states_a_critic_looks_at_are_held_against_one_another_too() -> None:
    normalisers = rerank_normalisers()
    for name, refused in (("goal", True), ("joints", False)):
        moved = {
            **normalisers.observation,
            name: Affine((7.0,) * (1 + (name == "joints")), (2.0, 2.0)[: 1 + (name == "joints")]),
        }
        changed = dataclasses.replace(normalisers, observation=moved)
        if refused:
            with pytest.raises(SpecError, match=r"goal '0' ranges over 5\.\.9 in the policy's"):
                paired(rerank_specs(), FakeCritic(), normalisers=changed)
        else:
            paired(rerank_specs(), FakeCritic(), normalisers=changed)


def test_a_state_that_ranged_further_in_some_episodes_is_no_reason_to_refuse() -> None:
    """An object that was toppled in one half of the episodes alone; twice the actions are another kind."""
    wide, normalisers = Affine((0.3,), (0.2,)), rerank_normalisers()
    toppled = dataclasses.replace(normalisers, observation={**normalisers.observation, "goal": wide})
    paired(rerank_specs(), FakeCritic(), normalisers=toppled)
    elsewhere = dataclasses.replace(
        normalisers, observation={**toppled.observation, "goal": Affine((2.1,), (0.2,))}
    )
    with pytest.raises(SpecError, match=r"goal '0' ranges over 1\.9\.\.2\.3"):
        paired(rerank_specs(), FakeCritic(), normalisers=elsewhere)


def test_what_hardly_moves_or_never_is_no_reason_to_refuse() -> None:
    for policy, its, fits in (
        (Affine((0.0,) * 2, (1e-4,) * 2), Affine((5e-4,) * 2, (1e-5,) * 2), True),  # both narrow
        (Affine((0.5,) * 2, (1.0,) * 2), Affine((0.0,) * 2, (2.0,) * 2), True),  # never moves, within
        (Affine((3.0,) * 2, (1.0,) * 2), Affine((0.0,) * 2, (2.0,) * 2), False),  # never moves, elsewhere
    ):
        critic, normalisers = FakeCritic(), rerank_normalisers()
        critic.critic_normalisers = dataclasses.replace(critic.critic_normalisers, action=its)
        normalisers = dataclasses.replace(normalisers, action=policy)
        if fits:
            paired(rerank_specs(), critic, normalisers=normalisers)
        else:
            with pytest.raises(SpecError, match="different kinds"):
                paired(rerank_specs(), critic, normalisers=normalisers)


def test_building_a_reranker_checks_and_scores_that_need_no_critic_do_not() -> None:
    policy = FakePolicy()
    policy.normalisers = rerank_normalisers(offset=9.0)
    with pytest.raises(SpecError, match="different kinds"):
        build_reranker(policy, RerankConfig(), critic=FakeCritic())
    build_reranker(policy, RerankConfig(scores=(ScoreConfig("random_pick"),)), critic=FakeCritic())
    del policy.normalisers
    build_reranker(policy, RerankConfig(), critic=FakeCritic())


def test_a_critic_of_another_robot_is_refused() -> None:
    """The same names may be another arm's joints."""
    specs = rerank_specs(specs=dataclasses.replace(rerank_specs().specs, robot="fr3"))
    with pytest.raises(SpecError, match="differ in the robot: the policy has fr3, the critic none"):
        paired(specs, FakeCritic())
    paired(specs, critic_with(robot="fr3"))
