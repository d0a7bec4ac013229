"""Chunks relative to where the arm is: the same numbers as in physical units, and blind to where that is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_specs

from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.models.critics import CriticConfig, EnsembleCritic
from robopolicy.models.relative_actions import Match, RelativeActions, matches

SPECS = make_policy_specs()
POSE = tuple("xyz") + tuple(f"r{i}" for i in range(6))
METRES = ("m",) * 3 + ("1",) * 6
JOINTS = ArraySpec((2,), units=("rad", "rad"), names=("a", "b"))


def specs_of(action: ActionPart, **observation: ArraySpec) -> Specs:
    return Specs(observation, ActionSpec((action,)), policy_rate=10.0)


def test_joints_match_by_name_and_the_gripper_stays():
    assert matches(make_specs()) == [Match(0, "joints", 0), Match(1, "joints", 1)]
    turned = specs_of(ActionPart("joint_position", ("b", "a")), joints=JOINTS)
    assert matches(turned) == [Match(0, "joints", 1), Match(1, "joints", 0)]


def test_of_a_pose_the_position_matches_the_observed_tool():
    pose = ArraySpec((9,), units=METRES, names=POSE)
    specs = specs_of(ActionPart("ee_pose", POSE), cube_pose=pose, ee_pose=pose)
    assert matches(specs) == [Match(i, "ee_pose", i) for i in range(3)]
    assert matches(specs_of(ActionPart("ee_pose", POSE), cube_pose=pose)) == []


@pytest.mark.parametrize(
    ("action", "observation"),
    [
        (ActionPart("joint_delta", ("a", "b"), "relative"), {"joints": JOINTS}),
        (ActionPart("joint_position", ("a", "c")), {"joints": JOINTS}),
        (
            ActionPart("joint_position", ("a", "b")),
            {"joints": dataclasses.replace(JOINTS, units=("rad/s",) * 2)},
        ),
        (ActionPart("joint_position", ("a", "b")), {"joints": dataclasses.replace(JOINTS, angles=(1,))}),
        (ActionPart("joint_position", ("a", "b")), {"goal.joints": JOINTS, "points": ArraySpec((1,))}),
        (ActionPart("joint_position", ("a", "b")), {"joints": JOINTS, "commanded": JOINTS}),
    ],
)
def test_what_does_not_tell_where_the_arm_is_does_not_match(action, observation):
    assert matches(specs_of(action, **observation)) == []


def test_of_several_the_one_named_as_the_space_is_taken():
    specs = specs_of(ActionPart("joint_position", ("a", "b")), joint_position=JOINTS, commanded=JOINTS)
    assert {match.key for match in matches(specs)} == {"joint_position"}


def physical(episodes=(9, 6)):
    rng = keyed_rng(0)
    observation = {"joints": rng.normal(size=(sum(episodes), 2)).astype(np.float32)}
    return observation, rng.normal(size=(sum(episodes), 3)), np.repeat(np.arange(len(episodes)), episodes)


def test_differences_of_the_data_are_standardised():
    """Over an independent count: every window with every step of its chunk that lies in its episode."""
    observation, action, episode = physical()
    normalisers, steps = make_normalisers(SPECS), 4
    relative = RelativeActions(SPECS.specs)
    relative.fit(normalisers, observation, action, episode, steps=steps)
    seen, away = [], []
    for t in range(len(episode)):
        for k in range(steps):
            if t + k < len(episode) and episode[t + k] == episode[t]:
                seen.append((t, t + k))
                away.append(action[t + k, :2] - observation["joints"][t])
    expected = (np.array(away) - np.mean(away, 0)) / np.std(away, 0)
    windows = normalisers.observation["joints"].forward(observation["joints"])[:, None]
    here = relative.of_observation({"joints": torch.from_numpy(windows)})
    there = relative.of_chunk(torch.from_numpy(normalisers.action.forward(action)))
    rows = np.array(seen)
    found = (there[rows[:, 1]] + here[rows[:, 0]]).numpy()
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-4)
    np.testing.assert_allclose(found[:, 2], normalisers.action.forward(action)[rows[:, 1], 2], atol=1e-6)


def test_moving_arm_and_chunk_together_changes_what_the_action_layer_sees_by_nothing():
    observation, action, episode = physical()
    normalisers = make_normalisers(SPECS)
    torch.manual_seed(0)
    critic = EnsembleCritic(CriticConfig(members=2, hidden=(8,)), SPECS)
    critic.relative.fit(normalisers, observation, action, episode, steps=critic.scored_steps)
    torch.nn.init.zeros_(critic.observe.weight)  # all that is left is what the chunk's layer is given
    window = {n: torch.zeros(1, 2, s.num_features) for n, s in SPECS.specs.observation.items()}
    moved = {**window, "joints": window["joints"] + 0.3}
    by = 0.3 * np.array(normalisers.observation["joints"].scale) / np.array(normalisers.action.scale[:2])
    chunk = torch.rand(1, *SPECS.chunk_shape)
    shifted = chunk + torch.tensor([*by, 0.0], dtype=torch.float32)
    with torch.no_grad():
        value = critic.value(critic.encode(window), chunk)
        torch.testing.assert_close(critic.value(critic.encode(moved), shifted), value, atol=1e-4, rtol=1e-4)
        assert (critic.value(critic.encode(moved), chunk) - value).abs().max() > 1e-3


def test_without_a_match_or_when_told_so_chunks_are_seen_as_they_are():
    assert EnsembleCritic(CriticConfig(relative=False), SPECS).relative is None
    blind = dataclasses.replace(SPECS, specs=SPECS.specs.select(("points",)))
    assert EnsembleCritic(CriticConfig(), blind).relative is None
