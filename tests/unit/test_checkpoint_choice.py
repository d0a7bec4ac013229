"""Choosing a checkpoint without a robot: sound distances, and a case where success alone fails."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from scipy import stats
from synthetic import make_episode, make_policy_specs, make_specs

from robopolicy.cli import choose
from robopolicy.cli.main import main
from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import NO_CONTEXT
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.checkpoint_choice import Candidate, rank_checkpoints
from robopolicy.evaluation.instructed import InstructedPolicy
from robopolicy.evaluation.observations import sample_windows
from robopolicy.evaluation.ood import (
    Gaussian,
    Strangeness,
    choose_space,
    ledoit_wolf,
    measure_strangeness,
    policy_features,
)
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.stored import (
    EnvironmentRecord,
    Evaluation,
    PolicyRecord,
    StoppingRule,
    write_evaluation,
)

SCENE = PolicySpecs(
    Specs(
        {"task": ArraySpec((2,)), "colour": ArraySpec((1,))},
        ActionSpec((ActionPart("normalised", ("x", "y")),)),
        10.0,
    ),
    Horizons(1, 4, 2),
    (4, 2),
)


class Seeing:
    """Follows the task and is led astray by colour, the more the larger ``by_colour`` is. No features."""

    policy_specs = SCENE

    def __init__(self, by_colour: float) -> None:
        self.by_colour = by_colour
        self.batches: set[int] = set()

    def sample(self, observation, noise, context=None):
        self.batches.add(len(noise))
        aim = observation["task"] + self.by_colour * observation["colour"]
        return (aim[:, :, None, :] + 0.05 * noise).astype(np.float32)


class Showing(Seeing):
    """The same with a features hook."""

    def features(self, observation):
        aim = observation["task"] + self.by_colour * observation["colour"]
        return np.concatenate([aim[:, 0], 0.3 * observation["task"][:, 0]], axis=-1)


def scene(rng, count: int, colour: float) -> dict[str, np.ndarray]:
    """Windows whose colour is about ``colour``; simulated ones have 0."""
    return {
        "task": rng.normal(size=(count, 1, 2)).astype(np.float32),
        "colour": rng.normal(colour, 0.1, size=(count, 1, 1)).astype(np.float32),
    }


def candidate(rng, name: str, policy: Seeing, successes: int, count: int = 100) -> Candidate:
    data = np.random.default_rng(7)  # the same observations for every candidate
    sets = [scene(data, 200, colour) for colour in (0, 0, 4)]
    fitted, held_out, real = (policy_features(policy, windows) for windows in sets)
    won = rng.permutation(np.arange(count) < successes)
    strangeness = measure_strangeness(fitted=fitted, held_out=held_out, real=real)
    return Candidate(name, dict(enumerate(won.tolist())), strangeness)


EPISODES = np.arange(200) // 20


@pytest.mark.parametrize("kind", [Seeing, Showing])
def test_simulated_success_alone_picks_the_wrong_one_and_the_score_does_not(rng, kind):
    """ "plain" was never shown other colours: best in simulation, lost before a real camera."""
    plain = candidate(rng, "plain", kind(by_colour=2.0), successes=92)
    randomised = candidate(rng, "randomised", kind(by_colour=0.02), successes=80)
    weak = candidate(rng, "weak", kind(by_colour=0.0), successes=30)
    ranked = rank_checkpoints([plain, randomised, weak], EPISODES)
    assert ranked[0].name == "randomised"
    assert {r.name: r.simulated_place for r in ranked} == {"plain": 1, "randomised": 2, "weak": 3}
    found = {r.name: r for r in ranked}
    assert found["plain"].ood_ratio > 3 and found["randomised"].ood_ratio < 1.3
    assert found["randomised"].best_share > 0.95
    assert [r.place for r in ranked] == [1, 2, 3]


def test_over_many_checkpoints_the_score_follows_real_success_more_closely(rng):
    """Real success falls with what colour does to a policy; simulated success rises with it a little."""
    leanings = np.linspace(0, 1.5, 12)
    skill = rng.uniform(0.4, 0.9, 12)
    simulated = np.round(100 * np.clip(skill + 0.1 * leanings, 0, 1)).astype(int)
    real = skill * np.exp(-leanings)
    ranked = rank_checkpoints(
        [candidate(rng, str(i), Seeing(b), int(s)) for i, (b, s) in enumerate(zip(leanings, simulated))],
        EPISODES,
        resamples=100,
    )
    score = [next(r.score for r in ranked if r.name == str(i)) for i in range(12)]
    assert stats.spearmanr(score, real).statistic > 0.8 > 0.5 > stats.spearmanr(simulated, real).statistic


def test_real_observations_like_simulated_ones_leave_the_order_of_success(rng):
    near = Strangeness(held_out=np.full(50, 2.0), real=np.linspace(1, 2, 50))
    given = [
        Candidate(n, dict(enumerate([True] * k + [False] * (10 - k))), near) for n, k in (("a", 3), ("b", 7))
    ]
    ranked = rank_checkpoints(given, np.arange(50) // 5)
    assert [(r.name, r.score, r.familiarity) for r in ranked] == [("b", 0.7, 1.0), ("a", 0.3, 1.0)]
    assert ranked[0].score_interval[0] < 0.7 < ranked[0].score_interval[1]
    assert ranked[0].best_share + ranked[1].best_share == pytest.approx(1)
    assert ranked == rank_checkpoints(given, np.arange(50) // 5)


def test_whole_real_episodes_are_resampled(rng):
    """Ten observations of one strange episode are one piece of evidence, not ten."""
    distances = np.where(np.arange(100) < 50, 1.0, 5.0)
    one = [Candidate("a", {i: i < 95 for i in range(100)}, Strangeness(np.ones(20), distances))]
    few = rank_checkpoints(one, np.arange(100) // 50)[0].score_interval
    many = rank_checkpoints(one, np.arange(100))[0].score_interval
    assert few[1] - few[0] > 3 * (many[1] - many[0])


def test_a_ranking_needs_names_and_matching_observations():
    near = Strangeness(np.ones(5), np.ones(5))
    one = Candidate("a", {0: True}, near)
    with pytest.raises(ConfigError, match="different names"):
        rank_checkpoints([one, one], np.arange(5))
    with pytest.raises(ConfigError, match="different names, got"):
        rank_checkpoints([], np.arange(5))
    with pytest.raises(ShapeError, match=r"'a' has \(5,\) real distances, there are \(4,\)"):
        rank_checkpoints([one], np.arange(4))


def slow_ledoit_wolf(x: np.ndarray) -> np.ndarray:
    """Lemmas 3.2 to 3.4 with every product written out."""
    n, size = x.shape
    sample = sum(np.outer(row, row) for row in x) / n
    m = np.trace(sample) / size
    d2 = np.sum((sample - m * np.eye(size)) ** 2) / size
    b2 = min(sum(np.sum((np.outer(row, row) - sample) ** 2) for row in x) / n**2 / size, d2)
    return b2 / d2 * m * np.eye(size) + (d2 - b2) / d2 * sample


@pytest.mark.parametrize(("n", "size"), [(8, 30), (200, 5)])
def test_the_shrunk_covariance_is_ledoit_and_wolfs(rng, n, size):
    x = rng.normal(size=(n, size)) * np.linspace(1, 3, size)
    x -= x.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(x)
    np.testing.assert_allclose(covariance, slow_ledoit_wolf(x), rtol=1e-9, atol=1e-12)
    assert np.linalg.eigvalsh(covariance).min() > 0 and 0 < shrinkage <= 1
    truth = np.diag(np.linspace(1, 3, size) ** 2)
    if n < size:
        assert np.linalg.norm(covariance - truth) < np.linalg.norm(x.T @ x / n - truth)


def test_distances_are_about_one_at_home_and_do_not_depend_on_units(rng):
    x, far = rng.normal(size=(2000, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(50, 6)) * 9
    gaussian, scale = Gaussian.fit(x), np.array([1e-3, 1, 10, 1e4, 1, 2])
    assert gaussian.distance(x).mean() == pytest.approx(1, abs=0.1)
    rescaled = Gaussian.fit(x * scale + 3)
    np.testing.assert_allclose(rescaled.distance(far * scale + 3), gaussian.distance(far), rtol=1e-6)


def test_a_feature_that_never_varied_in_simulation_counts_when_it_does(rng):
    x = np.hstack([rng.normal(size=(100, 2)), np.zeros((100, 1))])
    gaussian, moved = Gaussian.fit(x), np.array([[0.0, 0, 0], [0, 0, 2]])
    assert gaussian.distance(moved)[1] > 5 * gaussian.distance(moved)[0]


def test_features_that_say_nothing_are_refused(rng):
    with pytest.raises(ConfigError, match="are the same"):
        Gaussian.fit(np.ones((5, 3)))
    with pytest.raises(ConfigError, match="at least two observations, got 1"):
        Gaussian.fit(np.ones((1, 3)))
    with pytest.raises(NonFiniteValueError, match="1 features are not finite"):
        Gaussian.fit(np.array([[1.0, np.nan], [1, 2]]))
    with pytest.raises(ShapeError, match=r"\(n, 2\), got \(1, 3\)"):
        Gaussian.fit(rng.normal(size=(9, 2))).distance(np.ones((1, 3)))


def test_features_do_not_depend_on_how_observations_are_batched(rng):
    policy, windows = Seeing(1.0), scene(rng, 37, 0)
    whole = policy_features(policy, windows, seed=3)
    alone = policy_features(policy, {name: value[20:21] for name, value in windows.items()}, seed=3)
    assert whole.shape == (37, 4 * 2 + 2) and policy.batches == {16}
    np.testing.assert_array_equal(whole[20:21], alone)
    assert policy_features(Showing(1.0), windows).shape == (37, 4)
    np.testing.assert_array_equal(policy_features(Showing(1.0), windows, space="behaviour", seed=3), whole)


def test_the_space_is_chosen_by_what_the_policy_offers():
    assert (choose_space(Seeing(1)), choose_space(Showing(1))) == ("behaviour", "features")
    assert choose_space(Showing(1), "behaviour") == "behaviour"
    with pytest.raises(ConfigError, match="Seeing offers no features"):
        choose_space(Seeing(1), "features")
    with pytest.raises(ConfigError, match="'nose' is not one of"):
        choose_space(Seeing(1), "nose")
    with pytest.raises(ConfigError, match="at least 2 candidates, got 1"):
        policy_features(Seeing(1), {"task": np.ones((1, 1, 2)), "colour": np.ones((1, 1, 1))}, candidates=1)


def test_windows_are_sampled_once_for_all_with_their_episodes(tiny_store):
    specs = make_policy_specs(image=True)
    sample, again = (sample_windows(tiny_store, specs, 10, seed=1) for _ in range(2))
    assert sample.observation["joints"].shape == (10, 2, 2)
    assert sample.observation["scene"].shape == (10, 2, 16, 16, 3)
    for name in sample.observation:
        np.testing.assert_array_equal(sample.observation[name], again.observation[name])
    assert set(sample.episode.tolist()) <= {0, 1, 2} and len(sample.episode) == 10
    everything = sample_windows(tiny_store, specs, 1000)
    assert np.bincount(everything.episode).tolist() == [9, 12, 5]
    second = sample_windows(tiny_store, specs, 1000, names=tiny_store.names[1:2])
    np.testing.assert_array_equal(
        second.observation["joints"], everything.observation["joints"][everything.episode == 1]
    )
    with pytest.raises(ConfigError, match="at least one window, got 0"):
        sample_windows(tiny_store, specs, 0)


def test_another_shape_or_a_missing_observation_is_named(tiny_store):
    specs = make_policy_specs(image=True)
    wide = Specs({"joints": ArraySpec((3,))}, specs.specs.action, 10.0)
    with pytest.raises(SpecError, match=r"'joints' is state \(2,\), the policy wants state \(3,\)"):
        sample_windows(tiny_store, PolicySpecs(wide, specs.horizons), 5)
    other = Specs({"nose": ArraySpec((3,))}, specs.specs.action, 10.0)
    with pytest.raises(SpecError, match=r"no observation \['nose'\]"):
        sample_windows(tiny_store, PolicySpecs(other, specs.horizons), 5)


class Joints:
    """Acts on the joints, ``gain`` times."""

    policy_specs = PolicySpecs(make_specs(), Horizons(2, 8, 4), (8, 3))

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def sample(self, observation, noise, context=None):
        mean = self.gain * observation["joints"][:, -1:].mean(axis=-1, keepdims=True)
        return (mean[:, :, None] + 0.1 * noise).astype(np.float32)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Two checkpoints with results, a simulated and a real store."""
    policies = {"one": Joints(0.5), "two": Joints(1.0)}
    monkeypatch.setattr(choose, "load_any", lambda path, threads=1: policies[path.name])
    for name, first in (("sim.zarr", 0), ("real.zarr", 50)):
        store = EpisodeStore.create(tmp_path / name, make_specs(), {})
        for seed in range(4):
            store.append(make_episode(make_specs(), 15, first + seed))
    for name, successes in (("one", 6), ("two", 9)):
        write_evaluation(tmp_path / f"{name}.json", evaluation(name, successes))
    return tmp_path


def evaluation(name: str, successes: int, environment: str = "lift") -> Evaluation:
    episodes = tuple(EpisodeResult(i, i < successes, 0.0, 0.0, 5, 0.5) for i in range(10))
    return Evaluation(
        environment=EnvironmentRecord(environment),
        policy=PolicyRecord(name, "", Joints.policy_specs),
        noise_seed=0,
        command=("robopolicy", "eval"),
        success_predicate="it is up",
        stopping=StoppingRule.fixed(10),
        started="2026-01-01T10:00:00+00:00",
        ended="2026-01-01T11:00:00+00:00",
        episodes=episodes,
    )


def ask(capsys, *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["choose", *(str(a) for a in arguments)])
    return status, re.sub(r"\s+", " ", "".join(capsys.readouterr()))


def given(bench, **other: object) -> list[object]:
    options = {
        "results": [bench / "one.json", bench / "two.json"],
        "real": [bench / "real.zarr"],
        "simulated": [bench / "sim.zarr"],
        "output": [bench / "out"],
        **other,
    }
    return [word for name, values in options.items() for word in (f"--{name}", *values)]


def test_the_command_ranks_and_writes(capsys, bench):
    status, text = ask(capsys, "one", "two", *given(bench))
    assert status == 0 and "measured one" in text and "OOD ratio" in text
    tree = json.loads((bench / "out" / "choice.json").read_text())
    assert [r["name"] for r in tree["ranking"]] == ["two", "one"]
    assert tree["spaces"] == {"one": "behaviour", "two": "behaviour"} and tree["real_observations"] == 60
    first = tree["ranking"][0]
    assert first["score"] == pytest.approx(first["success_rate"] * first["familiarity"])
    assert 0.5 < first["ood_ratio"] < 2  # both stores are drawn from one distribution


def test_the_command_refuses_what_does_not_fit_together(capsys, bench):
    one = bench / "one.json"
    for words, message in (
        (["one", *given(bench)], "at least two checkpoints"),
        (["one", "two", *given(bench, results=[one])], "2 checkpoints need as many --results, got 1"),
        (["one", "two", *given(bench, simulated=["a", "b", "c"])], "one for each of 2, got 3"),
        (["one", "two", *given(bench, windows=[2])], "--windows must be >= 4"),
        (["one", "two", *given(bench, space=["nose"])], "--space 'nose' is not one of"),
        (["one", "two", *given(bench, results=[one, bench])], "no eval.json at"),
        (["one", "two", *given(bench, real=["nowhere"])], "no store at nowhere"),
    ):
        status, text = ask(capsys, *words)
        assert status == 2 and message in text
    write_evaluation(bench / "two.json", evaluation("two", 5, "push"))
    assert "of different environments" in ask(capsys, "one", "two", *given(bench))[1]
    assert not (bench / "out").exists()
    single = EpisodeStore.create(bench / "single.zarr", make_specs(), {})
    single.append(make_episode(make_specs(), 15, 0))
    write_evaluation(bench / "two.json", evaluation("two", 5))
    _, text = ask(capsys, "one", "two", *given(bench, simulated=[bench / "single.zarr"]))
    assert "needs at least two episodes, one is held out" in text


class Told(Joints):
    """Follows instructions, and offers features that need one."""

    policy_specs = dataclasses.replace(Joints.policy_specs, instruction_dim=4)

    def features(self, observation, context=NO_CONTEXT):
        assert context.instruction == ("lift it",)
        return self.gain * observation["joints"][:, -1]


def test_policies_that_follow_instructions_are_told_one(capsys, bench, monkeypatch):
    monkeypatch.setattr(choose, "load_any", lambda path, threads=1: Told(0.5))
    status, text = ask(capsys, "one", "two", *given(bench, instruction=["lift it"]))
    assert status == 0, text
    tree = json.loads((bench / "out" / "choice.json").read_text())
    assert tree["spaces"] == {"one": "features", "two": "features"}
    # one without language has features that take no instruction, or none at all
    shown = InstructedPolicy(Showing(1.0), "lift it")
    np.testing.assert_array_equal(
        shown.features(windows := scene(np.random.default_rng(0), 3, 0)), Showing(1.0).features(windows)
    )
    assert choose_space(InstructedPolicy(Seeing(1.0), "lift it")) == "behaviour"
