"""Rewards of stored episodes: what each step is worth, and what is said where it cannot be told."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types

import numpy as np
import pytest
from power import UnsyncedFiles
from synthetic import make_episode, make_specs

from robopolicy.core.errors import (
    ConfigError,
    NonFiniteValueError,
    RobopolicyError,
    ShapeError,
    StoreError,
    UnknownNameError,
)
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.steering import rewards
from robopolicy.steering._labels import label_episodes
from robopolicy.steering.rewards import needs

SPECS = make_specs(image=True)
LENGTH = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> EpisodeStore:
    """A success, a failure and one that nobody judged; only the last has no recorded reward."""
    store = EpisodeStore.create(tmp_path_factory.mktemp("store") / "s.zarr", SPECS, files=UnsyncedFiles())
    for seed, success in enumerate((True, False, None)):
        episode = make_episode(SPECS, LENGTH, seed, success=success)
        if success is not None:
            recorded = Signal(np.linspace(0, 1, LENGTH), episode.action.time_ns)
            episode = dataclasses.replace(episode, extra={**episode.extra, "reward": recorded})
        store.append(episode)
    return store


@pytest.fixture
def own(monkeypatch):
    """A user's module of rewards."""
    module = types.ModuleType("my_labels")
    monkeypatch.setitem(sys.modules, "my_labels", module)
    return module


def test_a_step_costs_one_until_success(store):
    success, failure, unjudged = label_episodes(store, store.names, rewards.reward("sparse"))
    assert success.reward.tolist() == [-1.0] * 5 + [0.0] * 3 and success.success
    for label in (failure, unjudged):
        assert label.reward.tolist() == [-1.0] * 8 and not label.success


def test_success_alone_is_worth_one(store):
    success, failure, _ = label_episodes(store, store.names, rewards.reward("success"))
    assert success.reward.tolist() == [0.0] * 7 + [1.0] and not failure.reward.any()


def test_a_recorded_reward_is_a_cost(store):
    labels = label_episodes(store, store.names[:2], rewards.reward("dense"))
    np.testing.assert_allclose(labels[0].reward, np.linspace(-1, 0, LENGTH))


def test_an_episode_without_a_recorded_reward_is_named(store):
    with pytest.raises(
        StoreError, match=r"episode 000002: reward 'dense' needs \['extra/reward'\]; there are"
    ):
        label_episodes(store, store.names, rewards.reward("dense"))


def test_a_recorded_reward_in_another_scale_is_refused(store):
    episode = store.read("000000")
    far = dataclasses.replace(episode, extra={"reward": Signal(np.full(LENGTH, 7.0), episode.action.time_ns)})
    with pytest.raises(ConfigError, match="must not exceed 1, which stands for success, got 7"):
        rewards.reward("dense")(far, {})
    late = dataclasses.replace(episode, extra={"reward": Signal(np.zeros(3), episode.action.time_ns[:3])})
    with pytest.raises(ShapeError, match="8 steps need as many recorded rewards"):
        rewards.reward("dense")(late, {})


def test_a_users_labeller_sees_the_signals_it_asks_for(store, own):
    seen = []

    @needs(observations=("scene",), extras=("force",))
    def brightness(episode, facts):
        seen.append((set(episode.observation), set(episode.extra), facts))
        return [float(frame.mean()) for frame in episode.observation["scene"].value]

    own.brightness = brightness
    labels = label_episodes(store, ["000001"], rewards.reward("my_labels:brightness"))
    frames = store.read("000001", ("scene",)).observation["scene"].value
    np.testing.assert_allclose(labels[0].reward, frames.reshape(LENGTH, -1).mean(1))
    ((observations, extras, facts),) = seen
    assert observations == {"scene"} and extras == {"force"}
    assert facts["name"] == "000001" and facts["store"] == store.where and facts["policy_rate"] == 10.0
    assert facts["success"] is False and facts["instruction"] == "do it"


@pytest.mark.parametrize(
    ("gives", "error", "message"),
    [
        (lambda e, f: np.zeros(3), ShapeError, r"episode 000000: reward 'my_labels' gave \(3,\) for 8 steps"),
        (
            lambda e, f: np.r_[0.0, np.nan, np.zeros(6)],
            NonFiniteValueError,
            "episode 000000: .* step 1 is nan",
        ),
    ],
)
def test_a_labeller_that_goes_wrong_is_told_with_the_episode(store, own, gives, error, message):
    gives.__module__ = "my_labels"
    own.gives = gives
    with pytest.raises(error, match=message):
        label_episodes(store, store.names, rewards.reward("my_labels:gives"))


def test_a_labeller_that_raises_is_told_with_the_episode(store, own):
    def unknown(episode, facts):
        raise UnknownNameError("camera", "wrist", ["scene"])

    def broken(episode, facts):
        return {}["score"]

    own.unknown, own.broken = unknown, broken
    unknown.__module__ = broken.__module__ = "my_labels"
    with pytest.raises(
        UnknownNameError, match="episode 000000: unknown camera 'wrist'; known: scene"
    ) as told:
        label_episodes(store, store.names, rewards.reward("my_labels:unknown"))
    assert told.value.known == ["scene"]
    with pytest.raises(RobopolicyError, match="episode 000000: reward 'my_labels' raised KeyError: 'score'"):
        label_episodes(store, store.names, rewards.reward("my_labels:broken"))


def test_a_module_in_the_current_folder_is_found(tmp_path):
    (tmp_path / "in_this_folder.py").write_text("def score(episode, facts): ...\n")
    code = "from robopolicy.steering.rewards import reward; print(reward('in_this_folder:score').__name__)"
    script = (
        tmp_path / "bin" / "command.py"
    )  # as an installed command: its own folder is looked into, not this
    script.parent.mkdir()
    script.write_text(code)
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "score"


def test_unknown_rewards_list_the_known(own):
    with pytest.raises(UnknownNameError, match="'speed'; known: dense, package"):
        rewards.reward("speed")
    with pytest.raises(ConfigError, match="'no_such_module:f' cannot be imported"):
        rewards.reward("no_such_module:f")
    with pytest.raises(ConfigError, match="'my_labels:missing' cannot be imported"):
        rewards.reward("my_labels:missing")
    own.number = 3
    with pytest.raises(ConfigError, match="'my_labels:number' is int, not a function"):
        rewards.reward("my_labels:number")
