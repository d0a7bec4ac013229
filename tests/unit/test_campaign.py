"""An evaluation into a folder: it resumes after an interrupt, and films what was counted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from walking import Still, Walk

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation import campaign as campaigns
from robopolicy.evaluation.campaign import JOURNAL, Campaign, check_environment, run_campaign
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.journal import EpisodeJournal
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.stored import read_evaluation

PLAN = Campaign(env="walk", seeds=(5, 3, 12, 7, 20), executor="inline", num_envs=2)


class Interrupted(Still):
    """Stops as Ctrl-C would, at its n-th inference."""

    def __init__(self, after: int) -> None:
        self._left = after

    def sample(self, observation, noise, context=None):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return super().sample(observation, noise, context)


class Forgetful(Walk):
    """Goes another way every time, which no seeded environment may."""

    visits = 0

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        type(self).visits += 1
        observation["place"] = observation["place"] + 0.01 * self.visits
        return observation, info


@pytest.fixture(autouse=True)
def walk(monkeypatch):
    """ "walk" is an environment while these tests run."""
    monkeypatch.setattr(EnvRecipe, "bind", lambda self, specs: Walk)


def run(output, policy=None, plan=PLAN):
    output.mkdir(exist_ok=True)
    return run_campaign(plan, policy or Still(), output, label="still", command=["robopolicy", "eval"])


def test_an_interrupted_evaluation_goes_on_and_ends_the_same(tmp_path):
    whole = run(tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(cut, Interrupted(6))
    kept = (cut / JOURNAL).read_text().splitlines()
    assert 2 <= len(kept) < 6 and not (cut / "eval.json").exists()
    ran = []
    counting = type(
        "Counting", (Still,), {"sample": lambda s, o, n, c=None: ran.append(1) or Still.sample(s, o, n, c)}
    )
    resumed = run(cut, counting())
    assert resumed.episodes == whole.episodes
    assert (cut / JOURNAL).read_text().splitlines()[: len(kept)] == kept
    assert ran
    ran.clear()
    assert run(cut, counting()).episodes == whole.episodes and not ran  # nothing is left to do
    assert read_evaluation(cut / "eval.json").episodes == whole.episodes


def test_a_line_cut_off_by_a_crash_costs_that_episode_only(tmp_path):
    whole = run(tmp_path)
    file = tmp_path / JOURNAL
    file.write_bytes(file.read_bytes()[:-20])
    journal = EpisodeJournal(file, campaigns._key(PLAN, Still()))
    assert len(journal.episodes) == 4
    assert run(tmp_path).episodes == whole.episodes


def test_a_damaged_or_foreign_journal_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ConfigError, match=r"another evaluation \(noise_seed: 0, now 1\)"):
        run(tmp_path, plan=replace(PLAN, noise_seed=1))
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    tree = json.loads(lines[2])
    del tree["success"]
    (tmp_path / JOURNAL).write_text("\n".join([*lines[:2], json.dumps(tree), *lines[3:]]) + "\n")
    with pytest.raises(ConfigError, match=r"line 3 is damaged: .*success"):
        run(tmp_path)
    (tmp_path / JOURNAL).write_text("\n".join([lines[0], "{", *lines[3:]]) + "\n")
    with pytest.raises(ConfigError, match="line 2 is damaged"):
        run(tmp_path)


def test_what_is_on_disk_reads_back_equal(tmp_path):
    episode = EpisodeResult(
        3, True, 1.5, 0.1 + 0.2, 7, 0.7, {"a": 1e-17}, {"p": [1.0, 2.0]}, conditions={"m": 1}
    )
    journal = EpisodeJournal(tmp_path / "j.jsonl", {"k": 1})
    journal.append(episode)
    assert EpisodeJournal(tmp_path / "j.jsonl", {"k": 1}).episodes == {3: episode}


def test_failures_are_filmed_first_and_results_stay(tmp_path):
    pytest.importorskip("imageio", reason="videos need the viz extra")
    plain = run(tmp_path / "plain")
    assert {e.success for e in plain.episodes} == {True, False}
    filmed = run(tmp_path / "filmed", plan=replace(PLAN, videos=3))
    assert tuple(replace(e, video="") for e in filmed.episodes) == plain.episodes
    failures = [e for e in filmed.episodes if not e.success]
    assert all(e.video for e in failures[:3])
    films = sorted(path.name for path in (tmp_path / "filmed").glob("*.mp4"))
    assert films == sorted(e.video for e in filmed.episodes if e.video) and len(films) == 3


def test_a_film_that_shows_something_else_is_not_kept(tmp_path, monkeypatch, caplog):
    pytest.importorskip("imageio", reason="videos need the viz extra")
    monkeypatch.setattr(EnvRecipe, "bind", lambda self, specs: Forgetful)
    result = run(tmp_path, plan=replace(PLAN, videos=1))
    assert not any(e.video for e in result.episodes) and not list(tmp_path.glob("*.mp4"))
    assert "does not repeat" in caplog.text


def test_no_episodes_is_an_error():
    with pytest.raises(ConfigError, match="at least one episode"):
        check_environment(replace(PLAN, seeds=()), Still())
