"""Reranked evaluation: the same first candidates for every K, each decision counted once, the past told."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from stepping import write_step_bundle
from test_rollout import policy  # noqa: F401
from walking import SPECS, Still, Walk

from robopolicy.cli import eval as command
from robopolicy.cli._reranked import load_any_critic, reranked
from robopolicy.cli._selection import Asked
from robopolicy.core.errors import ConfigError, RobopolicyError, SpecError, UnknownNameError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import draw_noise, keyed_rng
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.reranked import EvaluatedSelection
from robopolicy.evaluation.rollout import evaluate
from robopolicy.evaluation.stored import read_evaluation
from robopolicy.runtime import BundlePolicy, load_bundle
from robopolicy.runtime.reranking.config import RerankConfig, ScoreConfig

SEEDS = [7, 3, 100, 4, 12, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]
RANDOM = (ScoreConfig("random_pick"),)
CRITIC = (ScoreConfig("critic"),)
PAST = SPECS.horizons.action_start


class Far:
    """A critic that likes to go far, or one that knows nothing."""

    critic_specs = dataclasses.replace(SPECS, noise_shape=())
    critic_normalisers = Normalisers(
        {"place": Affine((0.0, 0.0), (1.0, 1.0))}, Affine((0.0, 0.0), (1.0, 1.0))
    )
    digest = "ab" * 32

    def __init__(self, value: float = 1.0) -> None:
        self._value = value

    def values(self, observation, candidates, context=None):
        end = observation["place"][:, None, -1] + candidates[:, :, SPECS.horizons.executed].sum(2)
        return self._value * np.linalg.norm(end, axis=-1)[..., None].astype(np.float32)


class Remembers(Still):
    """Keeps what it was told about the past, and what it asked for."""

    def __init__(self) -> None:
        self.past: list[np.ndarray] = []
        self.chunks: list[np.ndarray] = []

    def sample(self, observation, noise, context=None):
        chunks = super().sample(observation, noise, context)
        self.past.append(context.past[0])
        self.chunks.append(chunks[0, 0])
        return chunks


def test_a_policy_is_told_what_was_executed():
    told = Remembers()
    evaluate(told, Walk, [6])  # the longest episode: 11 steps
    assert len(told.past) > 2
    assert told.past[0].shape == (PAST, 2) and np.isnan(told.past[0]).all()
    for past, before in zip(told.past[1:], told.chunks):
        stop = SPECS.horizons.action_stop
        np.testing.assert_array_equal(past, before[stop - PAST : stop].astype(np.float32))


def test_the_past_is_not_that_of_the_episode_before():
    told = Remembers()
    evaluate(told, Walk, [1, 2], num_envs=1)
    assert sum(np.isnan(past).any() for past in told.past) == 2


@pytest.mark.parametrize("k", [1, 2, 8])
def test_the_first_candidate_is_the_plain_sample_for_every_k(k):
    plain = draw_noise(Still.policy_specs, 1, keyed_rng(0, 7, 3))
    specs = EvaluatedSelection(Still(), RerankConfig(k, RANDOM)).policy_specs
    np.testing.assert_array_equal(draw_noise(specs, 1, keyed_rng(0, 7, 3))[0, :1], plain)


def test_one_candidate_is_plain_evaluation_bit_for_bit(policy):  # noqa: F811
    for drawn in (Still(), policy):
        chooser = EvaluatedSelection(drawn, RerankConfig(1), critic=Far())
        assert evaluate(chooser, Walk, SEEDS) == evaluate(drawn, Walk, SEEDS)
        assert chooser.record().other_than_first == chooser.record().nan_rows == 0


def test_a_critic_without_values_leaves_the_policy_as_it_is(policy):  # noqa: F811
    nothing = EvaluatedSelection(Still(), RerankConfig(8), critic=Far(math.nan))
    plain = evaluate(Still(), Walk, SEEDS)
    assert evaluate(nothing, Walk, SEEDS) == plain
    found = nothing.record()
    assert found.nan_rows == found.decisions == sum(math.ceil(e.steps / 3) for e in plain)
    assert found.nan_candidates == 8 * found.decisions and found.other_than_first == 0
    assert "without any value" in found.in_words()
    # A network rounds another way when it is asked for eight at once.
    nothing = EvaluatedSelection(policy, RerankConfig(8), critic=Far(math.nan))
    for a, b in zip(evaluate(nothing, Walk, SEEDS), evaluate(policy, Walk, SEEDS)):
        assert (a.steps, a.success) == (b.steps, b.success)
        assert a.total_reward == pytest.approx(b.total_reward, abs=1e-4)


def test_choosing_goes_further_and_counts_each_decision_once():
    chooser = EvaluatedSelection(Still(), RerankConfig(8), critic=Far(), critic_label="far")
    found = evaluate(chooser, Walk, SEEDS)
    plain = evaluate(Still(), Walk, SEEDS)
    assert np.mean([e.maxima["far"] for e in found]) > 0.1 + np.mean([e.maxima["far"] for e in plain])
    record = chooser.record()
    assert record.decisions == sum(math.ceil(e.steps / 3) for e in found)
    assert 0.7 < record.other_than_first / record.decisions <= 1
    assert (record.nan_rows, record.critic, record.critic_digest) == (0, "far", Far.digest)
    again = [EvaluatedSelection(Still(), RerankConfig(8), critic=Far()) for _ in range(2)]
    assert evaluate(again[0], Walk, SEEDS, num_envs=2) == evaluate(again[1], Walk, SEEDS[:]) == found


def test_what_decides_is_in_the_digest():
    def digest(k=8, scores=CRITIC, critic=None):
        return EvaluatedSelection(known, RerankConfig(k, scores), critic=critic or Far()).digest

    known, other, unknown = Still(), Far(), Far()
    known.digest, other.digest, unknown.digest = "ef" * 32, "cd" * 32, ""
    assert len({digest(), digest(9), digest(scores=RANDOM), digest(critic=other)}) == 4
    assert digest() == digest()
    assert digest(critic=unknown) == "" != digest(critic=unknown, scores=RANDOM)
    known.digest = ""
    assert digest() == ""  # nobody could tell two of them apart


@pytest.fixture
def walk(monkeypatch):
    monkeypatch.setattr(EnvRecipe, "bind", lambda self, specs: Walk)
    monkeypatch.setattr(command, "load_any", lambda path, threads=1: Still())


def test_the_command_says_how_it_chose(walk, tmp_path, capsys):
    args = command.Args(
        Path("runs/still"),
        tmp_path / "out",
        episodes=4,
        executor="inline",
        candidates=6,
        select=("random_pick",),
        report=False,
    )
    assert command.run(args) == 0
    assert "6 candidates chosen by random_pick" in " ".join(capsys.readouterr().out.split())
    tree = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert tree["selection"]["config"]["num_candidates"] == 6
    evaluation = read_evaluation(tmp_path / "out")
    assert evaluation.selection is not None and evaluation.selection.decisions > 4
    assert evaluation.selection.config.scores == RANDOM
    with pytest.raises(ConfigError, match="belongs to another evaluation"):
        command.run(dataclasses.replace(args, candidates=7, resume=True))


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"candidates": 0, "select": ("random_pick",)}, ConfigError, "num_candidates must be >= 1, got 0"),
        ({"select": ("random_pick",)}, ConfigError, "--select chooses among candidates"),
        ({"critic": Path("runs/value")}, ConfigError, "--critic chooses among candidates"),
        ({"candidates": 4}, ConfigError, "4 candidates and nothing to choose by"),
        ({"candidates": 4, "select": ("critic",)}, SpecError, "the policy comes with no critic"),
        ({"candidates": 4, "select": ("best",)}, UnknownNameError, "random_pick"),
        ({"candidates": 4, "select": ("random_pick",), "critic": Path("x")}, ConfigError, "is not asked"),
        ({"candidates": 4, "critic": Path("nowhere")}, RobopolicyError, "train-value"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(walk, given, error, told, tmp_path):
    with pytest.raises(error, match=told):
        command.run(command.Args(Path("runs/still"), tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()


def test_a_bundle_brings_its_critic(tmp_path):
    bundle = write_step_bundle(tmp_path / "with", critic=True)
    asked = Asked(4, ["critic=2"], pessimism="mean")
    chooser = reranked(BundlePolicy(bundle, provider="cpu"), asked)
    assert chooser is not None and reranked(BundlePolicy(bundle, provider="cpu"), Asked()) is None
    record = chooser.record()
    assert record.critic == "of the policy's bundle" and record.critic_digest == bundle.digest
    assert record.config.scores == (ScoreConfig("critic", 2.0, {"pessimism": "mean"}),)
    plain = write_step_bundle(tmp_path / "without")
    with pytest.raises(SpecError, match="has no critic"):
        load_any_critic(tmp_path / "without")
    other = reranked(BundlePolicy(plain, provider="cpu"), Asked(4, critic=tmp_path / "with"))
    assert other is not None and other.record().critic == str(tmp_path / "with")
    assert load_bundle(tmp_path / "with") == bundle


class Told(Far):
    """Follows instructions."""

    critic_specs = dataclasses.replace(Far.critic_specs, instruction_dim=4)

    def values(self, observation, candidates, context=None):
        assert set(context.instruction) == {"go far"}
        return super().values(observation, candidates)


def test_a_critic_that_gets_no_instruction_is_found_out_at_the_start(walk, monkeypatch, tmp_path):
    monkeypatch.setattr("robopolicy.cli._reranked.load_any_critic", lambda path, threads: Told())
    args = command.Args(
        *(Path("runs/still"), tmp_path / "out"),
        episodes=2,
        executor="inline",
        candidates=4,
        critic=Path("told"),
        report=False,
    )
    with pytest.raises(SpecError, match=r"critic follows instructions and got none.*--instruction TEXT"):
        command.run(args)
    assert not (tmp_path / "out").exists()
    assert command.run(dataclasses.replace(args, instruction="go far")) == 0


def test_more_candidates_than_a_server_gives_are_refused_at_the_start(walk, monkeypatch, tmp_path):
    served = Still()
    served.max_candidates = 16
    monkeypatch.setattr(command, "load_any", lambda path, threads=1: served)
    args = command.Args(Path("ws:/host:1"), tmp_path / "out", candidates=32, select=("random_pick",))
    with pytest.raises(ConfigError, match="at most 16 candidates, 32 are asked for"):
        command.run(args)
    assert not (tmp_path / "out").exists()


def test_decisions_of_a_policy_without_noise_are_told_apart_by_what_it_saw():
    class Straight(Still):
        policy_specs = dataclasses.replace(SPECS, noise_shape=(0,))

        def sample(self, observation, noise, context=None):
            return np.ones((*noise.shape[:2], *SPECS.chunk_shape), np.float32)

    chooser = EvaluatedSelection(Straight(), RerankConfig(1), critic=Far())
    found = evaluate(chooser, Walk, SEEDS)
    assert chooser.record().decisions == sum(math.ceil(e.steps / 3) for e in found)
    with pytest.raises(ConfigError, match="draws no noise"):
        EvaluatedSelection(Straight(), RerankConfig(2), critic=Far())
