"""Evaluation over processes: the same results, and what happens when a process or an environment breaks."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from walking import Still, Walk

from robopolicy.core.errors import ConfigError, UnknownNameError, WorkerError
from robopolicy.evaluation.profile import Profile
from robopolicy.evaluation.rollout import MAX_RESTARTS, evaluate

SEEDS = [7, 3, 100, 4, 12, 5, 6, 20, 21]


class Deadly(Walk):
    """Kills its process at step 2 of one seed's episode, as often as there are files to delete."""

    def __init__(self, lives: Path) -> None:
        super().__init__()
        self._lives = lives

    def step(self, action):
        if self.seed == 12 and self.steps == 2:
            for life in self._lives.iterdir():
                life.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Broken(Walk):
    """Raises, or gives NaN, at step 2 of one seed's episode."""

    instruction = "walk away"

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def step(self, action):
        result = super().step(action)
        if self.seed == 12 and self.steps == 2:
            if self._how == "raise":
                raise RuntimeError("a wheel came off")
            result[0]["place"][:] = np.nan
            result = (result[0], np.nan, *result[2:4], {**result[4], "far": np.inf})
        return result


def lives(folder: Path, number: int) -> Path:
    folder.mkdir()
    for life in range(number):
        (folder / str(life)).touch()
    return folder


@pytest.fixture(scope="module")
def alone():
    return evaluate(Still(), Walk, SEEDS, num_envs=1)


@pytest.mark.parametrize(("num_envs", "workers"), [(1, 1), (4, 2), (16, 3)])
def test_processes_give_the_same_results(alone, num_envs, workers):
    found = evaluate(Still(), Walk, SEEDS, num_envs=num_envs, executor="processes", workers=workers)
    assert found == alone


def test_a_killed_worker_costs_its_episodes_a_restart_and_changes_no_result(alone, tmp_path):
    make = partial(Deadly, lives(tmp_path / "lives", 2))
    found = evaluate(Still(), make, SEEDS, num_envs=4, executor="processes", workers=2)
    restarts = {r.seed: r.restarts for r in found}
    assert restarts[12] == 2
    assert sum(restarts.values()) >= 2 and min(restarts.values()) == 0
    assert [replace(r, restarts=0) for r in found] == alone


def test_an_episode_that_always_kills_its_process_ends_the_evaluation(tmp_path):
    make, done = partial(Deadly, lives(tmp_path / "lives", MAX_RESTARTS + 1)), []
    with pytest.raises(WorkerError, match=r"code -9; the episode of seed 12 has lost its process 4 times"):
        evaluate(
            Still(), make, [3, 12, 5], num_envs=1, executor="processes", on_episode=lambda r: done.append(r)
        )
    assert [r.seed for r in done] == [3]  # what was finished had been handed over


def test_an_error_in_an_environment_comes_back_with_its_traceback():
    with pytest.raises(WorkerError, match=r"(?s)RuntimeError: a wheel came off.*in step"):
        evaluate(Still(), partial(Broken, "raise"), SEEDS, executor="processes", workers=2)
    with pytest.raises(RuntimeError, match="a wheel came off"):
        evaluate(Still(), partial(Broken, "raise"), SEEDS)


def test_nan_from_a_simulator_marks_the_episode(alone):
    found = {r.seed: r for r in evaluate(Still(), partial(Broken, "nan"), SEEDS)}
    assert [seed for seed, r in found.items() if r.unstable] == [12]
    assert found[12].steps == 2 and not found[12].success
    assert np.isfinite([found[12].total_reward, found[12].max_reward, found[12].maxima["far"]]).all()
    assert [r for seed, r in found.items() if seed != 12] == [r for r in alone if r.seed != 12]


def test_the_instruction_reaches_the_policy():
    policy = Still()
    evaluate(policy, partial(Broken, ""), [1])
    assert policy.instructions == ("walk away",) * 16
    evaluate(policy, Walk, [1])
    assert policy.instructions == ()


def test_the_profile_adds_up(alone):
    profile = Profile()
    evaluate(Still(), Walk, SEEDS, num_envs=4, profile=profile)
    assert profile.steps == sum(r.steps for r in alone)
    assert sum(profile.shares().values()) == pytest.approx(1.0)
    assert len(profile.inferences) >= 4 and profile.policy == pytest.approx(sum(profile.inferences))
    assert "steps/s" in profile.describe()


def test_bad_arguments_are_refused():
    with pytest.raises(UnknownNameError, match="known: inline, processes"):
        evaluate(Still(), Walk, [1], executor="cloud")
    with pytest.raises(ConfigError, match="workers must be >= 1, got 0"):
        evaluate(Still(), Walk, [1], workers=0)
    with pytest.raises(ConfigError, match="occurs twice"):
        evaluate(Still(), Walk, [1, 1])
