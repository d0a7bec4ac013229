"""``robopolicy train-value``: what a training of a critic leaves behind and says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import make_specs, make_windows
from torch import nn
from training_runs import TINY as POLICY
from training_runs import lines, quick, quiet, said
from value_runs import SHORT, make_value_store, quick_value

from robopolicy.cli import train_value as command
from robopolicy.cli.main import main
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.transitions import TransitionConfig, Transitions
from robopolicy.models.critics import CriticConfig
from robopolicy.models.saved import WEIGHTS
from robopolicy.steering._saved import load_critic
from robopolicy.training.config import HeldOutConfig
from robopolicy.training.optimiser import OptimiserConfig, build_optimiser
from robopolicy.training.source import read_source

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_value_store(tmp_path_factory.mktemp("store") / "s.zarr", successes=6, failures=6)


@pytest.fixture(scope="module")
def policy(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("policy") / "run"
    quick(store, run, POLICY, steps=2, batch_size=8, threads=1, keys=("joints", "goal"))
    return run


def values(run, seed=0):
    critic = load_critic(run, "cpu")
    specs = critic.critic_specs
    chunks = np.random.default_rng(seed).uniform(-1, 1, (3, 4, *specs.chunk_shape)).astype(np.float32)
    return critic.values(make_windows(specs, 3, seed), chunks)


def test_it_learns_who_succeeds_and_says_so(store, tmp_path):
    console = quiet()
    options = {
        "objective": "monte_carlo",
        "critic": CriticConfig(2, (32, 32)),
        "steps": 150,
        "batch_size": 64,
    }
    result = quick_value(store, tmp_path / "run", **options, console=console)
    rank = result["value"]["ranking_accuracy"]
    assert rank["value"] > 0.8 and rank["interval"][0] > 0.5
    assert result["value"]["spread"] > 0.05
    assert "warning" not in said(console)
    assert "learning from 4 successful and 4 failed episodes" in said(console)
    assert "held out: 2 successful and 2 failed episodes" in said(console)


def test_the_run_folder_holds_what_another_needs(store, tmp_path):
    result = quick_value(store, tmp_path / "run", reward="success", returns=TransitionConfig(gamma=0.9))
    run = tmp_path / "run"
    config = json.loads((run / "config.json").read_text())
    assert config["kind"] == "critic" and config["objective"] == "iql" and config["reward"] == "success"
    provenance = json.loads((run / "provenance.json").read_text())
    (use,) = provenance["stores"]
    assert len(use["episodes"]) == 8 and len(use["held_out"]) == 4 and use["failures_left_out"] == 0
    told = json.loads((run / "train.json").read_text())
    assert told["steps"] == 12 and told["best"]["name"] == "mean_accuracy" and told["parameters"] > 0
    assert (run / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((run / "value.json").read_text()) == json.loads(json.dumps(result["value"]))
    assert {"ranking_accuracy", "held_out_loss", "spread"} <= set(lines(run)[-1])
    critic = load_critic(run)
    assert critic.facts["reward"] == "success" and critic.facts["returns"]["gamma"] == 0.9
    assert critic.facts["objective"] == "iql" and values(run).shape == (3, 4, 2)
    assert (run / "best" / "critic.json").is_file()


def test_what_is_saved_are_averaged_weights(store, tmp_path):
    from robopolicy.training.checkpoint import newest_state

    quick_value(store, tmp_path / "run", held_out=HeldOutConfig(0.25, every=99))
    state = newest_state(tmp_path / "run")[0]
    saved = load_critic(tmp_path / "run").module.state_dict()
    for name, value in saved.items():
        assert (value == state["ema"]["weights"][f"critic.{name}"]).all()
    assert any((value != state["policy"][f"critic.{name}"]).any() for name, value in saved.items())


def test_held_out_measures_are_the_same_each_time_and_change_nothing(store, tmp_path):
    quick_value(store, tmp_path / "often", held_out=HeldOutConfig(0.25, every=1))
    quick_value(store, tmp_path / "once", held_out=HeldOutConfig(0.25, every=99))
    often, once = tmp_path / "often", tmp_path / "once"
    last = next(often / name for name in ("critic_last", "critic") if (often / name).is_dir())
    assert (last / WEIGHTS).read_bytes() == (once / "critic" / WEIGHTS).read_bytes()
    assert lines(often)[-1] == lines(once)[-1] and "chunk_accuracy" in lines(once)[-1]


@pytest.mark.parametrize("objective", ["iql", "cal_ql"])
def test_a_policy_decides_what_is_looked_at(store, policy, tmp_path, objective):
    options = {"policy": policy, "horizons": Horizons(), "policy_chunks": 4, "policy_stride": 4}
    result = quick_value(store, tmp_path / "run", objective=objective, **options)
    specs = load_critic(tmp_path / "run").critic_specs
    theirs = read_source(policy).specs
    assert specs.horizons == theirs.horizons and list(specs.specs.observation) == ["joints", "goal"]
    assert specs.noise_shape == ()
    assert result["value"]["spread_of"] == "the chunks of a policy"
    assert (tmp_path / "run" / "source" / "policy.json").is_file()


def test_policy_chunks_are_of_their_window(store, policy):
    from robopolicy.core.normalise import Normalisers
    from robopolicy.datasets.windows import Windows
    from robopolicy.policies._saved import load_policy
    from robopolicy.steering._labels import label_episodes
    from robopolicy.steering.rewards import reward
    from robopolicy.training.value.policy import PolicyChunks

    windows = Windows(store, Horizons(2, 8, 4), ("joints", "goal"))
    transitions = Transitions(windows, [label_episodes(store, store.names, reward("sparse"))])
    normalisers = Normalisers.fit(windows.specs, windows.observation, windows.action, "min_max")
    made = {"count": 2, "seed": 3, "console": quiet()}
    every = PolicyChunks(load_policy(policy, "cpu"), transitions, normalisers, stride=1, **made)
    index = np.array([0, 3, 21, 120, 299])
    drawn = every.take(index)
    assert drawn.shape == (5, 2, 8, 3) and np.abs(drawn).max() <= 1.01
    assert len(np.unique(drawn[:, 0].round(4), axis=0)) == 5 and (drawn[:, 0] != drawn[:, 1]).any()
    again = PolicyChunks(load_policy(policy, "cpu"), transitions, normalisers, stride=1, **made)
    np.testing.assert_array_equal(again.take(index), drawn)
    rare = PolicyChunks(load_policy(policy, "cpu"), transitions, normalisers, stride=7, **made)
    starts = np.flatnonzero(np.diff(transitions.episode, prepend=-1))
    for start in starts:  # an episode begins anew
        np.testing.assert_array_equal(rare.take(start + np.array([0])), rare.take(start + np.array([6])))
        assert (rare.take(start + np.array([7])) != rare.take(start + np.array([6]))).any()
    assert rare.memory_bytes < every.memory_bytes


def test_a_critic_of_the_first_action_looks_one_step_ahead(store, tmp_path):
    quick_value(store, tmp_path / "run", critic=CriticConfig(2, (16,), actions="first"))
    assert load_critic(tmp_path / "run").facts["returns"]["steps"] == 1
    given = PolicySpecs(make_specs(), SHORT.horizons).chunk_shape
    chunks = np.zeros((1, 2, *given), np.float32)
    chunks[0, 1, 3:] = 0.5  # beyond the first executed action
    critic = load_critic(tmp_path / "run", "cpu")
    found = critic.values(make_windows(critic.critic_specs, 1), chunks)
    np.testing.assert_array_equal(found[0, 0], found[0, 1])


def test_the_command_takes_the_options_of_its_objective(store, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--store", str(store.path), "--output", str(run), "--train.horizons.action", "4"]
    short = [
        "--train.steps",
        "2",
        "--train.batch-size",
        "16",
        "--train.device",
        "cpu",
        "--train.threads",
        "1",
    ]
    names = ["--objective", "cal_ql", "--cal-ql.alpha", "0.5", "--train.trackers", "--critic.members", "2"]
    assert main(["train-value", *flags, *short, *names]) == 0
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["alpha"] == 0.5 and config["train"]["held_out"]["fraction"] == 0.2
    text = " ".join(capsys.readouterr().out.split())
    assert "ranking accuracy" in text and "chunk accuracy" in text and "next: robopolicy eval" in text
    assert main(["train-value", "--resume", str(run), "--train.steps", "9"]) == 2
    assert "leave out --train.steps" in " ".join(capsys.readouterr().err.split())
    assert main(["train-value", "--resume", str(run)]) == 2
    assert main(["train-value", *flags, "--returns.gamma", "1.0"]) == 2
    assert "gamma 1.0" in capsys.readouterr().err
    assert "cal_ql" not in {f for f in command.arguments([]).__dataclass_fields__}


def test_the_encoder_of_a_critic_may_learn_more_slowly():
    parts = {"encoder": nn.Linear(2, 2), "heads": nn.Linear(2, 1)}
    objective = nn.ModuleDict({"critic": nn.ModuleDict(parts)})
    optimiser, _ = build_optimiser(objective, OptimiserConfig(learning_rate=0.1, encoder_rate=0.5), 10)
    rates = {group["initial_lr"]: len(group["params"]) for group in optimiser.param_groups}
    assert rates == {0.05: 2, 0.1: 2}
