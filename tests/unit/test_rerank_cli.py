"""``robopolicy run --candidates K --select ...`` from the command line to the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from stepping import step_graphs
from test_faults_cli import STATES, command
from test_runtime_support import tiny_graphs

from robopolicy.cli._selection import selection
from robopolicy.cli.run import Args, run
from robopolicy.core.errors import ConfigError, SpecError, UnknownNameError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import make_env
from robopolicy.evaluation.run_files import read_run
from robopolicy.runtime import Producer, ScoreConfig, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stays near the home posture, with a critic that has a taste of its own."""
    env = make_env("lift")
    env.reset(seed=0)
    home = env.plant().measured()
    specs = PolicySpecs(env.specs.select(STATES), Horizons(2, 8, 4), noise_shape=(8, len(home)))
    env.close()
    sizes = {name: spec.num_features for name, spec in specs.specs.observation.items()}
    observed = {name: Affine((0.0,) * size, (2.0,) * size) for name, size in sizes.items()}
    normalisers = Normalisers(observed, Affine(tuple(home.tolist()), (1e-3,) * len(home)))
    graphs, judging = tiny_graphs(specs), step_graphs(specs, critic=True)
    folder = tmp_path_factory.mktemp("run") / "bundle"
    write_bundle(
        folder,
        policy_specs=specs,
        normalisers=normalisers,
        graphs={**graphs, **{role: judging[role] for role in ("critic_encoder", "critic")}},
        policy="tiny",
        denoising_steps=1,
        producer=Producer("test"),
        critic_inputs=STATES,
        critic_normalisers=normalisers,
    )
    return folder


def test_a_run_chooses_keeps_what_it_chose_from_and_shows_it(bundle: Path, tmp_path: Path) -> None:
    more = ("--episodes", "1", "--duration-s", "2", "--candidates", "4", "--select", "critic")
    more = (*more, "random_pick=0.01", "--pessimism", "mean", "--deadline-ms", "1000")
    done = subprocess.run(
        command(bundle, tmp_path / "out", *more), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "candidates on average" in " ".join(done.stdout.split())
    stored = read_run(tmp_path / "out")
    arrays, counts = stored.episodes[0].arrays, stored.summary["decisions"]
    count = counts["decisions"]
    assert count == len(arrays["decision_index"]) >= 2 and counts["fall_backs"] == 0
    assert arrays["decision_candidates"].shape == (count, 4, 8, 8)
    assert np.isfinite(arrays["decision_values"]).all() and stored.summary["mean_drawn"] == 4
    chosen = arrays["decision_values"].argmax(axis=1)
    np.testing.assert_array_equal(arrays["decision_index"], chosen)
    settings = stored.summary["worker_config"]["reranking"]
    assert settings["deadline_s"] == 1.0 and settings["scores"][0]["options"] == {"pessimism": "mean"}
    assert "Choice among candidates" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (("--candidates", "0"), ConfigError, "num_candidates >= 1"),
        (("--candidates", "4", "--select", "luck"), UnknownNameError, "known: .*critic.*random_pick"),
        (("--candidates", "4", "--select", "critic=x"), ConfigError, "NAME=WEIGHT"),
        (("--select", "critic", "--score", "critic.mood=1"), SpecError, "known: .*pessimism"),
        (("--select", "critic", "--score", "pessimism=min"), ConfigError, "NAME.OPTION=VALUE"),
        (("--temperature", "1.0"), ConfigError, "--temperature chooses among candidates"),
        (("--select", "critic"), ConfigError, "--select chooses among candidates: .*--candidates K"),
        (("--deadline-ms", "50"), ConfigError, "--deadline-ms chooses among candidates"),
    ],
)
def test_bad_choices_are_refused_before_a_folder_is_made(
    bundle: Path, tmp_path: Path, more: tuple[str, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(tyro.cli(Args, args=command(bundle, tmp_path / "out", *more)[4:]))
    assert not (tmp_path / "out").exists()


def test_options_of_scores_are_read_as_yaml() -> None:
    found = selection(("critic=2", "random_pick"), ("critic.std_weight=0.5", "critic.pessimism=std"))
    options = {"std_weight": 0.5, "pessimism": "std"}
    assert found == (ScoreConfig("critic", 2.0, options), ScoreConfig("random_pick"))
