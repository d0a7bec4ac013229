"""``robopolicy record``: kinds of experts, failures, robots and options, and experts that fail."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.cli import record as command
from robopolicy.cli.main import main
from robopolicy.datasets.store import EpisodeStore

REACH = ("--task", "two_goal_reach", "--episodes")


def ask(capsys, path, *words):
    status = main(["record", "--output", str(path), *map(str, words)])
    said = capsys.readouterr()
    return status, re.sub(r"\s+", " ", said.out + said.err)


def episodes(path):
    return list(EpisodeStore.open(path).episodes(keys=()))


class Idler:
    """An expert that does nothing."""

    def __init__(self, *, noise=0.0):
        pass

    def reset(self, env, seed):
        self._env = env

    def act(self):
        return self._env.action_from_command(self._env.simulation.last_command)

    def perturb(self, action):
        return action


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(command, "load_entry", lambda *names: Idler)


def test_a_scripted_demonstration_says_who_made_it(capsys, tmp_path):
    status, _ = ask(capsys, tmp_path / "s", *REACH, 2)
    assert status == 0
    for seed, episode in enumerate(episodes(tmp_path / "s")):
        facts = episode.metadata
        assert episode.success and episode.seed == seed
        assert facts["demonstrator"] == "TwoGoalReachExpert" and facts["expert"] == "scripted"
        assert facts["mistakes"] is None and facts["side"] in ("left", "right")
        assert isinstance(facts["conditions"], dict)


def test_noisy_demonstrations_keep_failures_and_what_went_wrong(capsys, tmp_path):
    status, _ = ask(capsys, tmp_path / "s", *REACH, 6, "--expert", "noisy", "--noise-level", 0.9)
    assert status == 0
    kept = episodes(tmp_path / "s")
    assert len(kept) == 6 and not all(episode.success for episode in kept)
    for episode in kept:
        assert episode.metadata["expert"] == "noisy"
        assert 0.8 <= episode.metadata["mistakes"]["severity"] <= 1.0
    status, _ = ask(
        capsys, tmp_path / "w", *REACH, 6, "--expert", "noisy", "--noise-level", 0.9, "--no-keep-failures"
    )
    assert status == 0
    assert [e.seed for e in episodes(tmp_path / "w")] == [e.seed for e in kept if e.success]


def test_level_0_records_what_the_scripted_expert_does(capsys, tmp_path):
    assert ask(capsys, tmp_path / "a", *REACH, 1)[0] == 0
    assert ask(capsys, tmp_path / "b", *REACH, 1, "--expert", "noisy", "--noise-level", 0)[0] == 0
    first, second = (next(EpisodeStore.open(tmp_path / name).episodes()) for name in "ab")
    assert np.array_equal(first.action.value, second.action.value)


def test_options_and_robots_reach_the_environment(capsys, tmp_path):
    assert ask(capsys, tmp_path / "s", *REACH, 1, "--robot", "ur5e", "--option", "goal=left")[0] == 0
    store = EpisodeStore.open(tmp_path / "s")
    assert store.specs.robot == "ur5e" and store.specs.action.dim == 7
    (episode,) = episodes(tmp_path / "s")
    assert "left" in episode.instruction and episode.metadata["side"] == "left"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--expert", "lazy"), "unknown kind of expert 'lazy'; known: noisy, scripted"),
        (("--expert", "noisy", "--noise-level", "2"), "level must be in 0..1, got 2.0"),
        (("--robot", "kuka"), "kuka"),
        (("--option", "goal"), "--option takes NAME=VALUE, got 'goal'"),
        (("--policy-rate", "0"), "policy_rate must divide"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(capsys, tmp_path, given, message):
    status, said = ask(capsys, tmp_path / "s", *REACH, 1, *given)
    assert status == 2 and message in said
    assert not (tmp_path / "s").exists()


def test_noise_that_the_actions_cannot_take_is_refused(capsys, tmp_path):
    space = ("--action-space", "ee_pose")
    assert ask(capsys, tmp_path / "s", *REACH, 1, *space)[0] == 0
    status, said = ask(capsys, tmp_path / "t", *REACH, 1, *space, "--noise", "0.01")
    assert status == 2 and "joint_position" in said
    assert not (tmp_path / "t").exists()


def test_an_expert_that_fails_is_reported_by_its_task(capsys, tmp_path, idle):
    status, said = ask(capsys, tmp_path / "s", *REACH, 2, "--seed", 5)
    assert status == 2
    assert "the scripted expert of task 'two_goal_reach' solved none of 2 episodes (seeds 5..6)" in said
    kept = episodes(tmp_path / "s")  # whole, and marked
    assert [(e.seed, e.success, len(e)) for e in kept] == [(5, False, 60), (6, False, 60)]


def test_nothing_is_left_of_a_recording_without_a_success_to_keep(capsys, tmp_path, idle):
    status, said = ask(capsys, tmp_path / "s", *REACH, 1, "--no-keep-failures")
    assert status == 2 and "'two_goal_reach'" in said and "nothing was kept" in said
    assert not (tmp_path / "s").exists()


def test_an_expert_without_mistakes_to_make_is_named(capsys, tmp_path, idle):
    status, said = ask(capsys, tmp_path / "s", *REACH, 1, "--expert", "noisy")
    assert status == 2 and "task 'two_goal_reach' has no noisy expert" in said
    assert not (tmp_path / "s").exists()
