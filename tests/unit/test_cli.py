"""Whatever a user types, the answer is a sentence and an exit status, never a traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from synthetic import make_normalisers, make_policy_specs

from robopolicy import __version__
from robopolicy.cli.main import commands, main
from robopolicy.datasets.store import EpisodeStore
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.policies._saved import save_policy
from robopolicy.policies.diffusion_unet import Config, build

TINY_MODEL = ["--model.channels", "8", "16", "--model.step-embedding", "8"]


def ask(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output, standard error; line breaks of the terminal undone."""
    capsys.readouterr()
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:  # tyro's own way out, for --help and arguments that do not parse
        status = int(stop.code or 0)
    out, error = capsys.readouterr()
    assert "Traceback" not in out + error
    return status, re.sub(r"\s+", " ", out), re.sub(r"\s+", " ", error)


def refused(capsys, *arguments: object) -> str:
    status, _, error = ask(capsys, *arguments)
    assert status == 2, error
    assert error.startswith("error: ") and error.count("error:") == 1
    return error


@pytest.fixture
def saved(tmp_path) -> Path:
    """An untrained policy on synthetic specs."""
    torch.manual_seed(0)
    config = Config(
        channels=(8, 16), step_embedding=8, schedule=ScheduleConfig(training_steps=20, denoising_steps=2)
    )
    policy = build(config, make_policy_specs())
    save_policy(
        tmp_path / "saved",
        family="diffusion_unet",
        config=config,
        specs=policy.policy_specs,
        normalisers=make_normalisers(policy.policy_specs),
        weights=policy.state_dict(),
    )
    return tmp_path / "saved"


def test_version_and_help(capsys):
    assert ask(capsys, "--version") == (0, f"{__version__} ", "")
    status, out, _ = ask(capsys, "--help")
    assert status == 0 and all(name in out for name in commands())
    assert ask(capsys)[0] == 2


@pytest.mark.parametrize("name", commands())
def test_every_command_explains_itself(capsys, name):
    status, out, _ = ask(capsys, name, "--help")
    assert status == 0 and f"robopolicy {name}" in out


@pytest.mark.parametrize("name", ["nope", "main", "../x", "[/red]"])
def test_an_unknown_command_lists_the_known_ones(capsys, name):
    error = refused(capsys, name)
    assert f"unknown command {name!r}; known: " in error
    assert all(known in error for known in commands())


def test_arguments_that_do_not_parse_say_which(capsys):
    status, out, error = ask(capsys, "train", "--store", "a", "--output", "b", "--train.steps", "many")
    assert status == 2 and "many" in out + error
    status, out, error = ask(capsys, "record")
    assert status == 2 and "--output" in out + error


def test_doctor_shows_what_there_is(capsys):
    status, out, _ = ask(capsys, "doctor")
    assert status == 0
    for word in ("torch", "onnxruntime providers", "lift", "diffusion_unet", "fr3", __version__):
        assert word in out


def test_doctor_works_on_a_light_installation():
    """It is what a user is sent to when packages are missing."""
    code = """
import sys
from importlib.machinery import PathFinder
absent = ("torch", "zarr", "gymnasium", "mujoco", "diffusers", "scipy", "mink", "onnx", "safetensors")
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, path=None, target=None: None if name.split(".")[0] in absent else find(name, path, target)
)
from robopolicy.cli.main import main
sys.exit(main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no (train)" in re.sub(r"\s+", " ", done.stdout)


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['numcodecs'] = None\n"
        "from robopolicy.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "dataset", "info", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "'numcodecs'" in done.stderr and "doctor" in done.stderr


def test_unknown_names_list_the_known_ones(capsys, tiny_store, tmp_path, saved):
    out = tmp_path / "out"
    assert "unknown expert 'nope'; known: drawer, lift" in refused(
        capsys, "record", "--output", out, "--task", "nope"
    )
    assert re.search(
        r"unknown policy 'nope'; known: .*diffusion_unet",
        refused(capsys, "train", "--store", tiny_store.path, "--output", out, "--policy", "nope"),
    )
    assert re.search(
        r"unknown environment 'nope'; known: drawer, lift",
        refused(capsys, "eval", "--policy", saved, "--output", out, "--env", "nope"),
    )
    common = ["dataset", "import", "--source", tiny_store.path, "--output", out, "--format"]
    error = refused(capsys, *common, "nope", "--mapping", "pusht")
    assert "unknown importer 'nope'; known: lerobot, replay_buffer, robomimic, rosbag2" in error
    assert "is of no format that is known here" in refused(capsys, *common[:-1])
    assert not out.exists()


def test_an_unknown_observation_key_lists_the_keys(capsys, tiny_store, tmp_path):
    given = ["train", "--store", tiny_store.path, "--output", tmp_path / "out", "--train.keys", "nose"]
    assert "no observation ['nose']; there are ['goal', 'joints', 'points', 'scene']" in refused(
        capsys, *given
    )
    assert not (tmp_path / "out").exists()


def test_a_store_that_is_missing_or_of_another_version_is_named(capsys, tiny_store, tmp_path):
    for arguments in (["dataset", "info"], ["train", "--output", tmp_path / "out", "--store"]):
        assert f"no store at {tmp_path / 'absent'}" in refused(capsys, *arguments, tmp_path / "absent")
    root = zarr.open_group(tiny_store.path)
    root.attrs["robopolicy"] = {**root.attrs["robopolicy"], "schema_version": 99}
    for arguments in (["dataset", "info"], ["train", "--output", tmp_path / "out", "--store"]):
        error = refused(capsys, *arguments, tiny_store.path)
        assert "schema version 99; this release reads 2" in error


def test_results_are_never_overwritten(capsys, tiny_store, tmp_path, saved):
    run = tmp_path / "run"
    run.mkdir()
    (run / "precious").write_text("mine")
    small = ["--train.batch-size", "4", "--train.steps", "1"]
    for arguments in (
        ["train", "--store", tiny_store.path, *small, *TINY_MODEL, "--output"],
        ["record", "--output"],
        ["export", "--policy", saved, "--output"],
        ["dataset", "import", "--source", tiny_store.path, "--mapping", "pusht", "--output"],
    ):
        assert re.search("already (exists|holds results)", refused(capsys, *arguments, run))
    assert [p.name for p in run.iterdir()] == ["precious"]


@pytest.mark.parametrize("below", ["out", "deep/er/out"])
def test_an_output_below_a_file_is_named(capsys, tiny_store, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    output = tmp_path / "file" / below
    small = ["--train.batch-size", "4", "--train.steps", "1"]
    for arguments in (
        ["train", "--store", tiny_store.path, *small, *TINY_MODEL, "--output", output],
        ["record", "--episodes", "1", "--output", output],
    ):
        assert str(tmp_path / "file") in refused(capsys, *arguments)


@pytest.mark.parametrize("episodes", [0, -3])
def test_no_episodes_is_refused(capsys, tmp_path, saved, episodes):
    for arguments in (["record"], ["eval", "--policy", saved]):
        error = refused(capsys, *arguments, "--output", tmp_path / "out", "--episodes", episodes)
        assert f"--episodes must be >= 1, got {episodes}" in error
    assert not (tmp_path / "out").exists()


def test_no_policy_is_refused(capsys, tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        for arguments in (["eval", "--policy", path], ["export", "--policy", path]):
            error = refused(capsys, *arguments, "--output", tmp_path / "out")
            assert "no policy" in error and str(path) in error


def test_a_policy_of_other_observations_shows_both_sides(capsys, tmp_path, saved):
    error = refused(capsys, "eval", "--policy", saved, "--output", tmp_path / "out", "--episodes", 1)
    assert "'cube_pose'" in error and "the policy wants ['goal', 'joints', 'points']" in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--policy-rate", "33"], "must divide the control rate of 100.0 Hz, got 33.0"),
        (["--observations", "smell"], "smell"),
        (["--action-space", "torque"], "torque"),
        (["--task", "[/x]"], "unknown expert '[/x]'"),  # brackets are rich's markup
        (["--task", "[red]"], "unknown expert '[red]'"),
    ],
)
def test_what_cannot_be_recorded_is_named(capsys, tmp_path, given, message):
    assert message in refused(capsys, "record", "--output", tmp_path / "out", *given)
    assert not (tmp_path / "out").exists()


def test_dataset_info_counts(capsys, tiny_store):
    status, out, _ = ask(capsys, "dataset", "info", tiny_store.path)
    assert status == 0
    assert "3 episodes, 26 steps at 10.0 Hz, lengths 5..12; 3 succeeded, 0 failed, 0 not judged" in out
    assert "action: gripper_opening" in out and "scene" in out


def test_recorded_exported_and_evaluated(capsys, tmp_path, saved):
    store = tmp_path / "s.zarr"
    assert ask(capsys, "record", "--output", store, "--episodes", 1, "--seed", 3)[0] == 0
    assert ask(capsys, "record", "--output", store, "--episodes", 1, "--append")[0] == 0
    assert [e.seed for e in EpisodeStore.open(store).episodes(keys=())] == [3, 4]
    error = refused(capsys, "record", "--output", store, "--append", "--action-space", "ee_delta")
    assert "other specs" in error
    small = [
        "--train.batch-size",
        "8",
        "--train.steps",
        "2",
        "--model.schedule.denoising-steps",
        "2",
        "--train.threads",
        "1",
    ]
    threads = torch.get_num_threads()
    assert ask(capsys, "train", "--store", store, "--output", tmp_path / "run", *small, *TINY_MODEL)[0] == 0
    status, out, _ = ask(
        capsys, "export", "--policy", tmp_path / "run", "--output", tmp_path / "bundle", "--store", store
    )
    assert status == 0 and "digest" in out
    figures = []
    for policy in ("run", "bundle"):
        output = tmp_path / f"eval_{policy}"
        status, out, _ = ask(
            capsys,
            "eval",
            "--policy",
            tmp_path / policy,
            "--output",
            output,
            "--episodes",
            1,
            "--num-envs",
            1,
        )
        assert status == 0 and re.search(r"success 0/1 = 0.000 \[0.000, 0.793\]", out)
        figures.append((output / "eval.json").stat().st_size)
    assert np.ptp(figures) < 200  # the same record, whatever ran
    torch.set_num_threads(threads)


def count(path: Path) -> int:
    """Episodes that were committed: each made a version, after the first that is the empty store."""
    return len(list((path / "versions").glob("0*.json"))) - 1


def test_an_interrupted_recording_keeps_the_finished_episodes_and_goes_on(capsys, tmp_path):
    path = tmp_path / "s.zarr"
    command = [
        sys.executable,
        "-m",
        "robopolicy.cli.main",
        "record",
        "--output",
        str(path),
        "--episodes",
        "500",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(2400):
            if count(path) >= 2 or process.poll() is not None:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in out + error and "interrupted" in error
    store = EpisodeStore.open(path)
    recorded = [(episode.seed, len(episode)) for episode in store.episodes()]  # all of them whole
    assert 2 <= len(recorded) < 500
    assert [seed for seed, _ in recorded] == list(range(len(recorded)))
    assert ask(capsys, "record", "--output", path, "--episodes", 1, "--append")[0] == 0
    store.refresh()
    assert [e.seed for e in store.episodes(keys=())] == list(range(len(recorded) + 1))


def test_a_policy_that_does_not_fit_the_environment_leaves_nothing(capsys, saved, tmp_path):
    out = tmp_path / "out"
    error = refused(capsys, "eval", "--policy", saved, "--output", out, "--env", "CartPole-v1")
    assert "the environment gives" in error and "the policy wants" in error
    assert not out.exists()


def test_a_flag_given_twice_is_refused(capsys, tmp_path):
    """The last one would silently win, and the first option would be lost."""
    out = tmp_path / "out"
    error = refused(capsys, "eval", "--output", out, "--option", "a=1", "--option=b=2")
    assert "--option given twice; several values follow one flag" in error
    assert not out.exists()
