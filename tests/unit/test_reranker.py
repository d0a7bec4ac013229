"""The reranker over any policy and critic: what is chosen, what is never chosen, and what is counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from reranked import (
    FakeCritic,
    FakePolicy,
    rerank_noise,
    rerank_specs,
    rerank_window,
)

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, SpecError, UnknownNameError
from robopolicy.core.policy import Context, Policy, Prefix, draw_noise, keyed_rng
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.runtime import (
    CallablePolicy,
    RerankConfig,
    RerankedPolicy,
    Reranker,
    ScoreConfig,
    build_reranker,
)
from robopolicy.runtime.reranking.config import parse_selection
from robopolicy.runtime.reranking.noise_key import keyed_by
from robopolicy.runtime.reranking.situation import Situation

CRITIC = ScoreConfig("critic")
RNG = np.random.default_rng


def reranker(*scores: ScoreConfig, policy=None, critic=None, **changes) -> Reranker:
    config = RerankConfig(scores=scores or (CRITIC,), **changes)
    return build_reranker(policy or FakePolicy(), config, critic=critic or FakeCritic())


class Given:
    """A score of stated values."""

    def __init__(self, values, name: str = "given") -> None:
        self.name, self.unit, self._values = name, "1", values

    def __call__(self, candidates, situation: Situation) -> np.ndarray:
        if self._values is None:
            raise NonFiniteValueError("no")
        return np.asarray(self._values, np.float64)


def by(*scores, **changes) -> Reranker:
    return Reranker(FakePolicy(), scores, RerankConfig(**changes))


def test_one_batched_call_each_and_the_best_of_each_row() -> None:
    policy, critic, window, noise = FakePolicy(), FakeCritic(), rerank_window(3), rerank_noise(3, 7)
    choice = reranker(policy=policy, critic=critic).choose(window, noise)
    assert policy.counts == [7] and critic.counts == [7]
    drawn = noise + window["joints"][:, None, -1:, :]
    np.testing.assert_array_equal(choice.candidates, drawn)
    best = drawn[:, :, 0, 0].argmax(axis=1)
    np.testing.assert_array_equal(choice.index, best)
    np.testing.assert_array_equal(choice.chosen, drawn[np.arange(3), best])
    assert (choice.asked, choice.drawn, choice.scored, choice.notes) == (7, 7, 7, ())
    assert critic.seen == [{"goal"}]  # the policy's other observations are not the critic's


@pytest.mark.parametrize(
    ("pessimism", "expected"), [("min", [0.0, 1.0]), ("mean", [5.0, 1.0]), ("std", [2.5, 1.0])]
)
def test_pessimism_over_the_members(pessimism: str, expected: list[float]) -> None:
    from robopolicy.runtime.reranking.scores.critic import Config, pessimistic

    members = np.array([[0.0, 10.0], [1.0, 1.0]])
    np.testing.assert_allclose(pessimistic(members, Config(pessimism, std_weight=0.5)), expected)


def test_a_wide_ensemble_is_believed_less() -> None:
    """By its mean the first candidate wins, by its worst member the second."""

    class Split(FakeCritic):
        def values(self, observation, candidates, context=None):
            return np.array([[[0.0, 10.0], [1.0, 1.0]]], np.float32)

    window, noise = rerank_window(), rerank_noise(1, 2)
    for pessimism, index in (("min", 1), ("mean", 0)):
        score = ScoreConfig("critic", options={"pessimism": pessimism})
        assert reranker(score, critic=Split()).choose(window, noise).index.tolist() == [index]


def test_scores_add_up_by_weight() -> None:
    one, two = Given([[1.0, 0.0, 0.5]], "one"), Given([[0.0, 3.0, 2.0]], "two")
    choice = by((one, 2.0), (two, 0.5)).choose(rerank_window(), rerank_noise(1, 3))
    np.testing.assert_allclose(choice.total, [[2.0, 1.5, 2.0]])
    assert choice.index.tolist() == [0] and set(choice.scores) == {"one", "two"}
    assert by((one, -1.0)).choose(rerank_window(), rerank_noise(1, 3)).index.tolist() == [1]


def test_what_is_not_a_number_is_never_chosen() -> None:
    values = [[1.0, np.nan, 9.0], [np.nan, np.nan, np.nan], [np.nan, -7.0, np.inf]]
    chooser = by((Given(values), 1.0))
    choice = chooser.choose(rerank_window(3), rerank_noise(3, 3))
    assert choice.index.tolist() == [2, 0, 1]
    assert choice.notes == ("no candidate has a value in 1 of 3 rows: the first",)
    counters = chooser.counters
    assert (counters.decisions, counters.nan_rows, counters.nan_candidates) == (3, 1, 6)
    assert (counters.other_than_first, counters.fall_backs, counters.candidates_drawn) == (2, 1, 9)


def test_a_critic_of_nan_falls_back_to_the_first_sample() -> None:
    for critic in (FakeCritic(biases=(np.nan,)), FakeCritic(biases=(0.0, np.nan))):
        chooser = reranker(critic=critic)
        choice = chooser.choose(rerank_window(2), rerank_noise(2, 4))
        assert choice.index.tolist() == [0, 0] and chooser.counters.nan_rows == 2


def test_infinities_do_not_cancel() -> None:
    one, two = Given([[np.inf, 1.0]], "one"), Given([[-np.inf, 1.0]], "two")
    choice = by((one, 1.0), (two, 1.0)).choose(rerank_window(), rerank_noise(1, 2))
    assert choice.index.tolist() == [1] and np.isnan(choice.total[0, 0])
    chooser = reranker(ScoreConfig("critic", options={"pessimism": "std"}), critic=FakeCritic((0, np.inf)))
    assert chooser.choose(rerank_window(), rerank_noise(1, 2)).index.tolist() == [0]


def test_a_score_that_says_it_cannot_judge_counts_as_nan_and_other_errors_pass() -> None:
    chooser = by((Given(None), 1.0))
    assert chooser.choose(rerank_window(), rerank_noise(1, 3)).index.tolist() == [0]
    assert chooser.counters.nan_rows == 1
    with pytest.raises(ShapeError, match=r"'given' gave \(1, 2\) instead of \(1, 3\)"):
        by((Given([[1.0, 2.0]]), 1.0)).choose(rerank_window(), rerank_noise(1, 3))


def test_a_candidate_that_is_not_finite_is_never_chosen() -> None:
    class Broken(FakePolicy):
        def sample(self, observation, noise, context=None):
            drawn = super().sample(observation, noise)
            drawn[:, 1, 2] = np.nan
            return drawn

    chooser = Reranker(Broken(), [(Given([[0.0, 9.0, 1.0]]), 1.0)], RerankConfig())
    assert chooser.choose(rerank_window(), rerank_noise(1, 3)).index.tolist() == [2]
    assert chooser.counters.nan_candidates == 1


def test_no_candidates_are_refused_and_one_is_not_judged() -> None:
    with pytest.raises(ConfigError, match="num_candidates must be >= 1, got 0"):
        RerankConfig(num_candidates=0)
    chooser = reranker(critic=(critic := FakeCritic()))
    with pytest.raises(ConfigError, match=r"num_candidates.*\(1, 0, 6, 2\)"):
        chooser.choose(rerank_window(), rerank_noise(1, 0))
    choice = chooser.choose(rerank_window(), rerank_noise(1, 1))
    assert critic.counts == [] and choice.index.tolist() == [0] and choice.notes == ()
    assert chooser.counters.decisions == 1 and chooser.counters.fall_backs == 0


def test_the_policy_heeds_the_prefix_only_where_it_binds() -> None:
    policy = FakePolicy()
    prefix = Prefix(np.zeros((1, 6, 2), np.float32), np.ones((1, 6), np.float32))
    seen = []

    class Looks(Given):
        def __call__(self, candidates, situation):
            seen.append(situation.context.prefix)
            return super().__call__(candidates, situation)

    chooser = Reranker(policy, [(Looks([[1.0, 2.0]]), 1.0)], RerankConfig())
    for binds in (True, False):
        chooser.choose(rerank_window(), rerank_noise(1, 2), Context(prefix=prefix), binds=binds)
    assert [c.prefix for c in policy.contexts] == [prefix, None] and seen == [prefix, prefix]


def test_a_reranked_policy_is_a_policy_whose_first_candidate_is_the_same_for_every_k() -> None:
    window, firsts = rerank_window(2), []
    for k in (1, 2, 8):
        inner = FakePolicy()
        policy = RerankedPolicy(reranker(policy=inner, num_candidates=k))
        assert isinstance(policy, Policy) and policy.policy_specs.noise_shape == (k, 6, 2)
        noise = np.stack([draw_noise(policy.policy_specs, 1, keyed_rng(5, row)) for row in range(2)])
        sampled = policy.sample(window, noise)
        assert sampled.shape == (2, 1, 6, 2) and policy.last is not None
        np.testing.assert_array_equal(sampled[:, 0], policy.last.chosen)
        firsts.append(policy.last.candidates[:, 0])
        assert policy.counters.decisions == 2
    np.testing.assert_array_equal(firsts[0], firsts[1])
    np.testing.assert_array_equal(firsts[0], firsts[2])


def test_a_function_is_steered_without_its_weights() -> None:
    def act(observation, rng):
        assert observation["joints"].shape == (2, 2)
        return observation["joints"][-1] + rng.normal(size=(6, 2))

    policy = RerankedPolicy(reranker(policy=CallablePolicy(act, rerank_specs()), num_candidates=5))
    assert isinstance(CallablePolicy(act, rerank_specs()), Policy)
    noise = np.stack([draw_noise(policy.policy_specs, 1, keyed_rng(row)) for row in range(3)])
    chosen = policy.sample(rerank_window(3), noise)
    assert policy.last is not None and len(np.unique(policy.last.candidates)) == 3 * 5 * 12
    np.testing.assert_array_equal(policy.last.index, policy.last.candidates[:, :, 0, 0].argmax(axis=1))
    np.testing.assert_array_equal(policy.sample(rerank_window(3), noise), chosen)
    with pytest.raises(ShapeError, match=r"gave \(2,\), a chunk is \(6, 2\)"):
        CallablePolicy(lambda observation, rng: np.zeros(2), rerank_specs()).sample(
            rerank_window(3), np.zeros((3, 1, 8), np.float32)
        )


@pytest.mark.parametrize("scores", [(ScoreConfig("random_pick"),), (CRITIC,)])
def test_chance_in_a_row_does_not_depend_on_its_neighbours(scores: tuple[ScoreConfig, ...]) -> None:
    window = rerank_window(6)
    noise = rerank_noise(6, 8).reshape(6, 1, 8, 6, 2)
    policy = RerankedPolicy(reranker(*scores, num_candidates=8, temperature=1.0))
    together = policy.sample(window, noise)
    for row in range(6):
        alone = policy.sample({n: v[row : row + 1] for n, v in window.items()}, noise[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])


def test_random_pick_takes_each_candidate_about_as_often() -> None:
    policy = RerankedPolicy(reranker(ScoreConfig("random_pick"), num_candidates=4))
    policy.sample(rerank_window(1), rerank_noise(1, 4).reshape(1, 1, 4, 6, 2))
    counts = np.zeros(4)
    for seed in range(400):
        policy.sample(rerank_window(1), rerank_noise(1, 4, seed).reshape(1, 1, 4, 6, 2))
        assert policy.last is not None
        counts[policy.last.index[0]] += 1
    assert counts.min() > 70


def test_settings_travel_as_json() -> None:
    scores = (ScoreConfig("critic", 2.0, {"pessimism": "std", "std_weight": 2.0}), ScoreConfig("random_pick"))
    config = RerankConfig(5, scores, temperature=0.1, deadline_s=0.08)
    assert from_tree(RerankConfig, json.loads(json.dumps(to_tree(config)))) == config


def test_settings_that_make_no_sense_are_refused() -> None:
    for changes, what in (
        ({"scores": ()}, "at least one score"),
        ({"scores": (CRITIC, CRITIC)}, "counts once"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"deadline_s": -1.0}, "deadline_s"),
    ):
        with pytest.raises(ConfigError, match=what):
            RerankConfig(**changes)
    with pytest.raises(ConfigError, match="weight of 'critic'"):
        ScoreConfig("critic", float("inf"))
    with pytest.raises(UnknownNameError, match=r"known: .*critic.*random_pick"):
        reranker(ScoreConfig("luck"))
    with pytest.raises(SpecError, match=r"unknown fields.*known: .*pessimism"):
        reranker(ScoreConfig("critic", options={"mood": 1}))
    with pytest.raises(SpecError, match="needs a critic"):
        build_reranker(FakePolicy(), RerankConfig())
    assert rerank_specs() == FakePolicy().policy_specs


def test_scores_as_the_command_line_names_them() -> None:
    given = parse_selection(["critic", "random_pick=0.5"], {"critic": {"std_weight": 2}}, pessimism="mean")
    assert given == (
        ScoreConfig("critic", 1.0, {"std_weight": 2, "pessimism": "mean"}),
        ScoreConfig("random_pick", 0.5),
    )
    with pytest.raises(UnknownNameError, match=r"known: .*critic"):
        parse_selection(["luck"])
    with pytest.raises(ConfigError, match="NAME=WEIGHT, got 'critic=lots'"):
        parse_selection(["critic=lots"])
    with pytest.raises(ConfigError, match=r"\['random_pick'\].*not among"):
        parse_selection(["critic"], {"random_pick": {}})


class Blind(FakePolicy):
    """Draws nothing, as behaviour cloning does."""

    def __init__(self) -> None:
        super().__init__()
        self.policy_specs = rerank_specs(noise_shape=(0,))

    def sample(self, observation, noise, context=None):
        return np.zeros((*noise.shape[:2], 6, 2), np.float32)


def test_a_policy_that_draws_no_noise_has_nothing_to_choose_from() -> None:
    with pytest.raises(ConfigError, match=r"no noise, its noise_shape is \(0,\): its 4 candidates"):
        reranker(policy=Blind(), num_candidates=4)
    policy = RerankedPolicy(reranker(policy=Blind(), num_candidates=1))
    assert policy.sample(rerank_window(2), np.zeros((2, 1, 1, 0), np.float32)).shape == (2, 1, 6, 2)
    with pytest.raises(ConfigError, match=r"noise \(1, 0\)"):
        keyed_by(np.zeros((1, 0), np.float32))


def test_a_score_that_fails_costs_the_choice_and_not_the_policy() -> None:
    def broken(candidates, situation):
        raise RuntimeError("engine lost:\n  " + 300 * "x")

    broken.name = "broken"
    chooser = by((Given([[0.0, 1.0]]), 1.0), (broken, 1.0))
    choice = chooser.choose(rerank_window(), rerank_noise(1, 2))
    with pytest.raises(RuntimeError, match="engine lost"):  # before anything moves it is better known
        chooser.rehearse(rerank_window(), rerank_noise(1, 2))
    assert choice.index.tolist() == [0] and chooser.counters.nan_rows == chooser.counters.fall_backs == 1
    assert choice.notes[-2].startswith("score 'broken' failed: RuntimeError: engine lost: xxx")
    assert len(choice.notes[-2]) < 250


@pytest.mark.parametrize("error", [ShapeError, SpecError, ConfigError])
def test_a_situation_that_a_score_was_not_made_for_is_an_error(error) -> None:
    def refuses(candidates, situation):
        raise error("not for me")

    refuses.name = "refuses"
    with pytest.raises(error, match="not for me"):
        by((refuses, 1.0)).choose(rerank_window(), rerank_noise(1, 2))


def test_every_row_has_its_own_chance() -> None:
    chooser = reranker(temperature=1.0)
    for rng in ([], [RNG(0)]):
        with pytest.raises(ConfigError, match=f"for each of 3 rows, got {len(rng)}"):
            chooser.choose(rerank_window(3), rerank_noise(3, 2), rng=rng)
