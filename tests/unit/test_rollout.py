"""Rollouts do not depend on how many environments run at once, and report what happened."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from walking import SPECS, Walk

from robopolicy.core.errors import ConfigError, ShapeError, SpecError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import draw_noise, keyed_rng
from robopolicy.core.specs import ArraySpec, PolicySpecs
from robopolicy.evaluation.environments import make_env, named_observation
from robopolicy.evaluation.rollout import evaluate
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.policy_module import TorchPolicy
from robopolicy.policies.diffusion_unet import Config, build


@pytest.fixture(scope="module")
def policy() -> TorchPolicy:
    torch.manual_seed(0)
    module = build(
        Config(
            channels=(8, 16), step_embedding=8, schedule=ScheduleConfig(training_steps=20, denoising_steps=3)
        ),
        SPECS,
    )
    affine = Affine((0.0, 0.0), (1.0, 1.0))
    return TorchPolicy(module, Normalisers({"place": affine}, affine))


def test_results_are_the_same_with_1_4_and_16_environments(policy):
    seeds = [7, 3, 100, 4, 12, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31]
    alone, four, many = (evaluate(policy, Walk, seeds, num_envs=n) for n in (1, 4, 16))
    assert [r.seed for r in alone] == seeds
    assert alone == four == many
    assert len({r.action_hash for r in alone}) == len(seeds)
    assert {r.success for r in alone} == {True, False}  # both ends of an episode are exercised


def test_an_episode_does_not_depend_on_which_others_run(policy):
    whole = evaluate(policy, Walk, [7, 3, 100, 4])
    assert evaluate(policy, Walk, [4, 7]) == [whole[3], whole[0]]


def test_the_noise_seed_changes_the_actions(policy):
    first, second = (evaluate(policy, Walk, [1, 2], noise_seed=n) for n in (0, 1))
    assert all(a.action_hash != b.action_hash for a, b in zip(first, second))
    assert [a.start for a in first] == [b.start for b in second]


def test_a_result_is_what_one_plain_loop_gives(policy):
    """The obvious receding-horizon loop, one environment, no batching but the padded inference."""
    (found,) = evaluate(policy, Walk, [5], noise_seed=3)
    env = Walk()
    raw, _ = env.reset(seed=5)
    frames = [raw["place"].astype(np.float32)] * 2
    rewards, fars, digest, step, over = [], [], hashlib.sha256(), 0, False
    while not over:
        if step % 3 == 0:
            noise = draw_noise(policy.policy_specs, 1, keyed_rng(3, 5, step))
            window = {"place": np.stack([np.stack(frames)] * 16)}
            chunk = policy.sample(window, np.stack([noise] * 16))[0, 0]
        action = chunk[1 + step % 3]  # action 0 of the chunk belongs to the older observation
        digest.update(action.tobytes())
        raw, reward, terminated, truncated, info = env.step(action)
        frames = [frames[1], raw["place"].astype(np.float32)]
        rewards.append(reward)
        fars.append(info["far"])
        step, over = step + 1, terminated or truncated
    assert (found.steps, found.success, found.action_hash) == (step, terminated, digest.hexdigest())
    assert found.total_reward == pytest.approx(sum(rewards)) and found.max_reward == max(rewards)
    assert found.seconds == pytest.approx(step / 10)
    assert found.maxima == {"far": max(fars)}  # measures only: no counters, clocks, flags or text


def test_films_change_nothing_and_are_named_in_the_result(policy, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="reading videos needs opencv")
    plain = evaluate(policy, Walk, [9, 8], num_envs=2)
    filmed = evaluate(policy, Walk, [9, 8], num_envs=2, films=tmp_path)
    assert [r.video for r in filmed] == ["seed_9.mp4", "seed_8.mp4"]
    assert [replace(r, video="") for r in filmed] == plain
    for result in filmed:
        film, frames = cv2.VideoCapture(str(tmp_path / result.video)), 0
        while film.read()[0]:
            frames += 1
        assert frames == result.steps + 1


def test_every_environment_is_closed_even_after_an_error(policy):
    Walk.made = Walk.closed = 0
    evaluate(policy, Walk, [1, 2, 3], num_envs=2)
    with pytest.raises(SpecError):
        evaluate(policy, lambda: Walk("other"), [1, 2, 3], num_envs=2)
    assert Walk.made == Walk.closed == 3  # the second was never made


def test_a_mismatch_shows_both_sides(policy):
    with pytest.raises(SpecError, match=r"gives \['other', 'unused'\], the policy wants \['place'\]"):
        evaluate(policy, lambda: Walk("other"), [1])
    with pytest.raises(ShapeError, match=r"'place' must end in shape \(2,\), got \(3,\)"):
        evaluate(
            policy,
            lambda: gym.wrappers.TransformObservation(Walk(), lambda o: {"place": np.zeros(3)}, None),
            [1],
        )


def test_a_bare_array_is_the_only_observation():
    assert named_observation(np.zeros(2), SPECS)["place"].dtype == np.float32
    two = PolicySpecs(
        SPECS.specs.__class__({"a": ArraySpec((2,)), "b": ArraySpec((2,))}, SPECS.specs.action, 10.0)
    )
    with pytest.raises(SpecError, match=r"gives one array, the policy wants \['a', 'b'\]"):
        named_observation(np.zeros(2), two)


def test_nothing_to_evaluate_is_an_error(policy):
    with pytest.raises(ConfigError, match="at least one episode"):
        evaluate(policy, Walk, [])
    with pytest.raises(ConfigError, match="num_envs must be >= 1, got 0"):
        evaluate(policy, Walk, [1], num_envs=0)


def test_an_unknown_environment_lists_the_known_ones():
    from robopolicy.core.errors import MissingDependencyError, UnknownNameError

    with pytest.raises(UnknownNameError, match=r"'nope'; known: .*lift"):
        make_env("nope")
    with pytest.raises(MissingDependencyError, match="no package 'nope_env'"):
        make_env("nope_env/Nope-v0")
