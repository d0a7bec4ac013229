"""What a training of a critic refuses or warns of."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from synthetic import make_specs
from training_runs import TINY as POLICY
from training_runs import quick, quiet, said
from value_runs import SHORT, make_value_store, quick_value

from robopolicy.cli.main import main
from robopolicy.core.errors import ConfigError, SpecError, StoreError, UnknownNameError
from robopolicy.core.horizons import Horizons
from robopolicy.datasets.store import EpisodeStore
from robopolicy.steering._saved import load_critic
from robopolicy.steering.objectives import cal_ql
from robopolicy.training.config import HeldOutConfig
from robopolicy.training.source import read_source
from robopolicy.training.value.config import ValueTrainConfig
from robopolicy.training.value.data import open_stores
from robopolicy.training.value.policy import as_policy

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


@pytest.fixture
def undrawn(monkeypatch):
    """Plots take longer than these trainings."""
    monkeypatch.setattr("robopolicy.training.value.report.draw_calibration", lambda *_: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_value_store(tmp_path_factory.mktemp("store") / "s.zarr", successes=6, failures=6)


@pytest.fixture(scope="module")
def policy(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("policy") / "run"
    quick(store, run, POLICY, steps=2, batch_size=8, threads=1, keys=("joints", "goal"))
    return run


def test_what_contradicts_the_policy_is_refused(store, policy, tmp_path):
    with pytest.raises(ConfigError, match=r"--train.keys \('points',\) contradicts the policy, which has"):
        quick_value(store, tmp_path / "run", policy=policy, keys=("points",))
    source = read_source(policy)
    usual = ValueTrainConfig()
    assert as_policy(source, usual).horizons == Horizons(2, 8, 4)
    with pytest.raises(ConfigError, match=r"--train.(keys|horizons) .* contradicts"):
        as_policy(source, usual, given=True)
    flags = ["--store", str(store.path), "--output", str(tmp_path / "run"), "--policy", str(policy)]
    assert main(["train-value", *flags, "--train.horizons.action", "8", "--train.steps", "1"]) == 2
    assert not (tmp_path / "run").exists()


def test_the_policy_is_read_once(store, policy, tmp_path, monkeypatch):
    read = []

    def counted(run):
        read.append(run)
        return read_source(run)

    for module in ("robopolicy.cli.train_value", "robopolicy.training.value.train"):
        monkeypatch.setattr(f"{module}.read_source", counted)
    flags = ["--store", str(store.path), "--output", str(tmp_path / "run"), "--policy", str(policy)]
    short = ["--train.steps", "2", "--train.batch-size", "16", "--train.device", "cpu", "--train.trackers"]
    assert main(["train-value", *flags, *short, "--critic.members", "2"]) == 0
    assert len(read) == 1


def test_a_store_that_lacks_what_the_policy_sees_is_refused(policy, tmp_path, store):
    specs = make_specs()
    other = EpisodeStore.create(tmp_path / "o.zarr", specs.select(("joints", "points")))
    episode = store.read(store.names[0])
    kept = {key: episode.observation[key] for key in ("joints", "points")}
    other.append(replace(episode, observation=kept))
    with pytest.raises(SpecError, match=r"looks at \['goal'\], which .*o.zarr lacks; it has \['joints'"):
        quick_value(other, tmp_path / "run", policy=policy)
    slow = EpisodeStore.create(tmp_path / "slow.zarr", replace(specs, policy_rate=5.0))
    slow.append(episode)
    with pytest.raises(
        SpecError, match=r"slow.zarr cannot train a critic of the policy .*policy_rate is 5.0"
    ):
        quick_value(slow, tmp_path / "run", policy=policy)


@pytest.mark.parametrize(
    ("kinds", "warning"),
    [
        ({"failures": 0}, "no failed episodes: values will not discriminate"),
        ({"successes": 0}, "no successful episodes: values will not discriminate"),
    ],
)
def test_a_store_of_one_outcome_is_warned_of(kinds, warning, tmp_path):
    console = quiet()
    result = quick_value(make_value_store(tmp_path / "s.zarr", **kinds), tmp_path / "run", console=console)
    assert f"warning: {warning}" in said(console)
    assert any(warning in told for told in result["value"]["warnings"])


def test_of_several_stores_the_one_that_lacks_an_outcome_is_named(store, tmp_path):
    console = quiet()
    other = make_value_store(tmp_path / "other.zarr", failures=0, first=20)
    quick_value([store, other], tmp_path / "run", console=console)
    assert f"warning: {other.path}: no failed episodes" in said(console)
    assert f"{store.path}: no" not in said(console)


def unjudged(store: EpisodeStore, episodes: int) -> EpisodeStore:
    for name in store.names[:episodes]:
        store.append(replace(store.read(name), success=None))
    return store


def test_episodes_that_nobody_judged_are_left_out_unless_asked_for(tmp_path):
    store, console = unjudged(make_value_store(tmp_path / "s.zarr"), 3), quiet()
    result = quick_value(store, tmp_path / "run", console=console)
    told = "3 episodes that nobody judged are left out; --train.unjudged fail takes them"
    assert f"warning: {told}" in said(console) and told in result["value"]["warnings"]
    (use,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["stores"]
    assert set(use["episodes"]) | set(use["held_out"]) == set(store.names[:8])
    console = quiet()
    quick_value(store, tmp_path / "all", unjudged="fail", console=console)
    assert "warning: 2 episodes that nobody judged count as failed" in said(console)  # the third is held out
    assert "left out" not in said(console)


def test_a_store_that_nobody_judged_is_refused_with_the_way_out(tmp_path):
    store = EpisodeStore.create(tmp_path / "s.zarr", make_specs())
    store.append(replace(make_value_store(tmp_path / "o.zarr").read("000000"), success=None))
    with pytest.raises(StoreError, match=r"nobody judged any of its 1 episodes; --train.unjudged fail"):
        quick_value(store, tmp_path / "run")


def test_more_policy_chunks_than_are_drawn_are_refused(store, policy, tmp_path):
    options = {"objective": "cal_ql", "options": cal_ql.Config(policy=8), "policy": policy}
    with pytest.raises(ConfigError, match=r"8 policy chunks, and 4 are drawn; raise --train.policy-chunks"):
        quick_value(store, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_every_outcome_and_instruction_has_its_share_in_what_is_held_out(tmp_path):
    store = make_value_store(tmp_path / "s.zarr", successes=4, failures=8)
    for first, text in ((20, "do that"), (40, "do more")):
        other = make_value_store(tmp_path / f"{first}.zarr", successes=4, failures=8, first=first)
        for name in other.names:
            store.append(replace(other.read(name), instruction=text))
    config = replace(SHORT, held_out=HeldOutConfig(0.25))
    for seed in range(4):
        ((_, use),) = open_stores([str(store.path)], [None], replace(config, seed=seed))
        facts = [store.facts(name) for name in use.held_out]
        counts = Counter((told["instruction"], told["success"]) for told in facts)
        texts = ("do it", "do that", "do more")
        assert counts == {(text, won): 1 if won else 2 for text in texts for won in (True, False)}


def test_without_anything_held_out_it_says_that_nothing_is_known(store, tmp_path):
    console = quiet()
    result = quick_value(store, tmp_path / "run", held_out=HeldOutConfig(0.0), console=console)
    assert result["value"] is None and not (tmp_path / "run" / "value.json").exists()
    assert "warning: no episode is held out" in said(console)
    load_critic(tmp_path / "run")


def test_a_critic_that_cannot_rank_or_does_not_see_the_chunk_is_warned_of(store, tmp_path, monkeypatch):
    console = quiet()
    quick_value(store, tmp_path / "run", steps=1, learning_rate=1e-9, console=console)
    assert "warning: the critic cannot be seen to rank" in said(console)
    from robopolicy.models.critics import EnsembleCritic

    blind = console = quiet()
    inner = EnsembleCritic.values
    monkeypatch.setattr(EnsembleCritic, "values", lambda self, c, chunks: inner(self, c, chunks * 0))
    quick_value(store, tmp_path / "blind", console=blind)
    assert "warning: values hardly depend on the chunk" in said(blind)


def test_dense_rewards_are_learnt_from_where_they_are_recorded(store, tmp_path):
    told = make_value_store(tmp_path / "t.zarr", rewards=True)
    quick_value(told, tmp_path / "run", reward="dense")
    assert load_critic(tmp_path / "run").facts["reward"] == "dense"
    with pytest.raises(StoreError, match=r"'dense' needs \['extra/reward'\]"):
        quick_value(store, tmp_path / "other", reward="dense")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"objective": "sarsa"}, UnknownNameError, "unknown objective 'sarsa'; known: cal_ql, iql"),
        ({"reward": "praise"}, UnknownNameError, "unknown reward 'praise'; known: dense"),
        ({"reward": "no_such_module:f"}, ConfigError, "cannot be imported"),
        ({"keys": ("smell",)}, SpecError, "no observation"),
        ({"batch_size": 4096}, ConfigError, "fewer than one batch"),
        ({"weights": (1.0, 2.0)}, ConfigError, "1 stores need as many weights"),
    ],
)
def test_bad_input_is_refused_before_there_is_a_folder(store, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        quick_value(store, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("policy_chunks", 0), ("policy_stride", 0), ("steps", 0), ("phrasings", "a.yaml"), ("unjudged", "ask")],
)
def test_options_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        ValueTrainConfig(**{field: value})
