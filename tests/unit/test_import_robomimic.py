"""robomimic's HDF5 comes in bit for bit, or is refused by demonstration and array and nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from rich.console import Console

from robopolicy.core.errors import (
    ConfigError,
    ImportFormatError,
    NonFiniteValueError,
    RobopolicyError,
    ShapeError,
    SpecError,
    UnknownNameError,
)
from robopolicy.datasets.importers._frames import rotation_6d_from_axis_angle
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.importers.source import ImportOptions

LENGTHS = {"demo_0": 5, "demo_2": 70, "demo_10": 4}
OSC = {"type": "OSC_POSE", "input_max": 1, "input_min": -1, "control_delta": True}
ENV = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "controller_configs": OSC}}
READER = Path(__file__).parents[1] / "peers" / "robomimic_read.py"
ASKED = ImportOptions()
PEER = os.environ.get("ROBOPOLICY_ROBOMIMIC_PYTHON")


def demo_arrays(length: int, seed: int) -> dict[str, np.ndarray]:
    """As robosuite's Lift gives them; next observations are the observations one step later."""
    rng = np.random.default_rng(seed)
    run = {
        "robot0_eef_pos": rng.normal(size=(length + 1, 3)),
        "robot0_eef_quat": rng.normal(size=(length + 1, 4)),
        "object": rng.normal(size=(length + 1, 10)),
        "agentview_image": rng.integers(0, 256, (length + 1, 8, 6, 3)).astype(np.uint8),
    }
    rewards = np.zeros(length)
    rewards[-1] = seed % 2
    return {
        **{f"obs/{key}": value[:-1] for key, value in run.items()},
        **{f"next_obs/{key}": value[1:] for key, value in run.items()},
        "actions": rng.uniform(-1, 1, (length, 7)),
        "rewards": rewards,
        "dones": (np.arange(length) == length - 1).astype(np.int64),
        "states": rng.normal(size=(length, 32)),
    }


def dataset() -> dict[str, dict[str, np.ndarray]]:
    return {name: demo_arrays(length, seed) for seed, (name, length) in enumerate(LENGTHS.items())}


def write(path: Path, demos: dict[str, dict[str, np.ndarray]], env=ENV, *, gzip: bool = False) -> Path:
    """As ``dataset_states_to_obs.py`` and ``split_train_val.py`` of robomimic lay it out."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, arrays in demos.items():
            for key, value in arrays.items():
                packed = {"compression": "gzip"} if gzip and "obs/" in key else {}
                data.create_dataset(f"{name}/{key}", data=value, **packed)
            data[name].attrs["num_samples"] = len(arrays["actions"])
            data[name].attrs["model_file"] = "<mujoco/>"
        data.attrs["total"] = sum(len(arrays["actions"]) for arrays in demos.values())
        if env is not None:
            data.attrs["env_args"] = json.dumps(env, indent=4)
        file.create_dataset("mask/train", data=np.array(["demo_0", "demo_10"], dtype="S"))
        file.create_dataset("mask/valid", data=np.array(["demo_2"], dtype="S"))
    return path


def copy(source: Path, options: ImportOptions = ASKED):
    destination = source.parent / "imported.zarr"
    return import_dataset(source, destination, options, console=Console(quiet=True))


def refuse(source: Path, error: type[Exception], message: str, options: ImportOptions = ASKED) -> None:
    """The import fails with this error and leaves no file behind."""
    with pytest.raises(error, match=message):
        copy(source, options)
    assert [p for p in source.parent.rglob("*") if "imported" in p.name] == []


def mapping_file(folder: Path, tree: dict) -> ImportOptions:
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(tree))
    return ImportOptions(str(path))


@pytest.mark.parametrize("gzip", [False, True])
def test_every_value_is_copied_bit_for_bit_in_order_of_number(tmp_path, gzip):
    demos = dataset()
    store, report = copy(write(tmp_path / "demo.hdf5", demos, gzip=gzip))
    assert store.specs.policy_rate == 20 and store.specs.action.parts[0].space == "normalised"
    assert store.specs.action.names == ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    assert store.specs.observation["agentview_image"].kind == "image"
    assert store.specs.observation["robot0_eef_pos"].units == ("m", "m", "m")
    for (name, arrays), episode in zip(demos.items(), store.episodes(), strict=True):
        assert episode.metadata["source_episode"] == name
        assert episode.metadata["masks"] == (["valid"] if name == "demo_2" else ["train"])
        assert episode.success is bool(arrays["rewards"].max())
        np.testing.assert_array_equal(episode.action.value, arrays["actions"].astype(np.float32))
        times = np.arange(len(episode) + 1) * 50_000_000
        for key, signal in episode.observation.items():
            whole = np.concatenate([arrays[f"obs/{key}"], arrays[f"next_obs/{key}"][-1:]])
            assert signal.value.dtype == whole.dtype
            np.testing.assert_array_equal(signal.value, whole)
            np.testing.assert_array_equal(signal.time_ns, times)
        np.testing.assert_array_equal(episode.extra["reward"].value, arrays["rewards"])
        np.testing.assert_array_equal(episode.extra["done"].value, arrays["dones"])
    assert report.ignored == ["states"] and not report.missing
    guesses = "\n".join(report.guessed)
    assert all(
        word in guesses for word in ("OSC_POSE", "obs/object: unit unknown", "sparse reward", "20.0 Hz")
    )


def test_robosuites_own_file_gives_states_as_the_observation(tmp_path):
    demos = {n: {k: v for k, v in a.items() if k in ("states", "actions")} for n, a in dataset().items()}
    path = write(tmp_path / "demo.hdf5", demos, None)
    with h5py.File(path, "a") as file:
        del file["mask"]
        file["data"].attrs["env_info"] = json.dumps({"env_name": "Lift", "controller_configs": OSC})
    store, report = copy(path)
    assert list(store.specs.observation) == ["state"]
    for arrays, episode in zip(demos.values(), store.episodes(), strict=True):
        np.testing.assert_array_equal(episode.observation["state"].value, arrays["states"])
        assert episode.success is None
    assert any("robosuite's default" in line for line in report.guessed)


def test_a_mapping_overrides_and_joins_the_action_from_columns(tmp_path):
    demos = dataset()
    absolute = {
        **ENV,
        "env_kwargs": {"control_freq": 20, "controller_configs": {**OSC, "control_delta": False}},
    }
    source = write(tmp_path / "demo.hdf5", demos, absolute)
    refuse(source, ConfigError, "absolute goals")
    pose = [*"xyz", *(f"r{i}" for i in range(6))]
    join = [
        {"from": "actions", "columns": [0, 1, 2]},
        {"from": "actions", "columns": [3, 4, 5], "convert": "axis_angle_to_rotation_6d"},
        {"from": "actions", "columns": [6]},
    ]
    parts = [{"space": "ee_pose", "names": pose}, {"space": "normalised", "names": ["grip"]}]
    tree = {"rate": 10.0, "observation": {"cube": {"from": "obs/object", "columns": [0, 1, 2]}}}
    options = mapping_file(tmp_path, {**tree, "action": {"join": join, "parts": parts}})
    store, report = copy(source, options)
    actions = demos["demo_2"]["actions"]
    got = store.read(store.names[1]).action.value
    np.testing.assert_array_equal(got[:, :3], actions[:, :3].astype(np.float32))
    np.testing.assert_allclose(got[:, 3:9], rotation_6d_from_axis_angle(actions[:, 3:6]), atol=1e-6)
    np.testing.assert_array_equal(got[:, 9], actions[:, 6].astype(np.float32))
    assert store.specs.policy_rate == 10 and "obs/agentview_image" in report.ignored


def test_a_chosen_part_is_imported(tmp_path):
    source = write(tmp_path / "demo.hdf5", dataset())
    store, report = copy(source, ImportOptions(without=("obs/agentview_image",), episodes=(2, 0)))
    assert [episode.metadata["source_episode"] for episode in store.episodes()] == ["demo_0", "demo_10"]
    assert "agentview_image" not in store.specs.observation and "obs/agentview_image" in report.ignored


def test_options_that_name_nothing_are_refused(tmp_path):
    source = write(tmp_path / "demo.hdf5", dataset())
    refuse(source, UnknownNameError, "known: .*obs/object", ImportOptions(without=("obs/nope",)))
    refuse(source, SpecError, "the action needs", ImportOptions(without=("actions",)))
    refuse(source, ImportFormatError, r"no episodes \[3\]; it has 0 to 2", ImportOptions(episodes=(3,)))


def test_depth_in_metres_becomes_millimetres(tmp_path):
    demos = dataset()
    for arrays in demos.values():
        arrays["obs/view_depth"] = np.full((len(arrays["actions"]), 4, 5, 1), 0.7504, np.float32)
        arrays["obs/view_depth"][0, 0, 0] = np.nan  # no reading
    store, _ = copy(write(tmp_path / "demo.hdf5", demos))
    depth = store.read(store.names[0]).observation["view_depth"].value
    assert depth.dtype == np.uint16 and depth[0, 0, 0, 0] == 0 and (depth[1:] == 750).all()


def broken(change) -> dict[str, dict[str, np.ndarray]]:
    demos = dataset()
    change(demos["demo_2"])
    return demos


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.pop("actions"), ImportFormatError, "demo_2 has no actions; it has"),
        (lambda d: d.pop("obs/object"), ImportFormatError, "demo_2 has no obs/object"),
        (lambda d: d.update({"obs/object": d["obs/object"][:-3]}), ShapeError, "demo_2: obs/object has 67"),
        (lambda d: d.update({"rewards": d["rewards"][:-3]}), ShapeError, "demo_2: rewards has 67 frames"),
        (
            lambda d: d.update({"next_obs/object": d["next_obs/object"][1:]}),
            ShapeError,
            "next_obs/object has 69",
        ),
        (
            lambda d: d["actions"].__setitem__((66, 2), np.nan),
            NonFiniteValueError,
            "demo_2, action, frame 66",
        ),
        (
            lambda d: d["obs/object"].__setitem__((3, 1), np.inf),
            NonFiniteValueError,
            "demo_2.*object, frame 3",
        ),
        (lambda d: d["actions"].__setitem__((1, 2), 1e300), ConfigError, "demo_2: actions exceed -1..1"),
        (lambda d: d.update({"obs/object": np.array([b"x"] * 70)}), ImportFormatError, "demo_2: obs/object"),
        (lambda d: d.update({"obs/object": d["obs/object"].astype("f4")}), ImportFormatError, "others have"),
        (lambda d: d.update({"obs/object": d["obs/object"][:, 1:]}), ImportFormatError, r"frames of \(9,\)"),
    ],
)
def test_a_broken_demonstration_is_refused_by_name(tmp_path, change, error, message):
    demos = broken(change)
    if "actions" not in demos["demo_2"]:
        demos["demo_2"]["nothing"] = np.zeros(3)
        path = tmp_path / "demo.hdf5"
        with h5py.File(path, "w") as file:
            for name, arrays in demos.items():
                for key, value in arrays.items():
                    file.create_dataset(f"data/{name}/{key}", data=value)
            file["data"].attrs["env_args"] = json.dumps(ENV)
    else:
        path = write(tmp_path / "demo.hdf5", demos)
    refuse(path, error, message)


def test_skip_missing_leaves_out_the_incomplete_demonstration_and_says_so(tmp_path):
    source = write(tmp_path / "demo.hdf5", broken(lambda d: d.pop("obs/object")))
    store, report = copy(source, ImportOptions(skip_missing=True))
    assert len(store) == 2 and len(report.missing) == 1 and "demo_2 has no obs/object" in report.missing[0]


def edit(path: Path, change) -> Path:
    with h5py.File(path, "a") as file:
        change(file)
    return path


def unwritten(file: h5py.File) -> None:
    del file["data/demo_0/obs/object"]
    file.create_dataset("data/demo_0/obs/object", (5, 10), "f8", chunks=(2, 10))[:2] = 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.move("data", "other"), ImportFormatError, "data is absent or empty"),
        (lambda f: f["data"].create_group("episode_7"), ImportFormatError, "data holds .*episode_7"),
        (lambda f: f["data"].copy("demo_2", "demo_02"), ImportFormatError, "the same number"),
        (lambda f: f["data"].create_dataset("demo_5", data=1), ImportFormatError, "demo_5 is no group"),
        (lambda f: f["data/demo_0"].attrs.modify("num_samples", 6), ShapeError, "num_samples 6 and has 5"),
        (lambda f: f["data"].attrs.modify("env_args", "{"), ImportFormatError, "'env_args' that is no JSON"),
        (lambda f: f["data"].attrs.modify("env_args", "[]"), ImportFormatError, "no JSON object"),
        (
            lambda f: f["data"].attrs.modify("env_args", '{"type": 2}'),
            ConfigError,
            "give --mapping with a rate",
        ),
        (unwritten, ImportFormatError, "obs/object: 1 of 3 chunks were written"),
    ],
)
def test_a_file_that_is_not_as_documented_is_refused(tmp_path, change, error, message):
    refuse(edit(write(tmp_path / "demo.hdf5", dataset()), change), error, message)


def test_what_is_no_hdf5_file_is_refused_by_name(tmp_path):
    whole = write(tmp_path / "demo.hdf5", dataset()).read_bytes()
    for name, content in {
        "text.hdf5": b"no HDF5",
        "empty.hdf5": b"",
        "half.hdf5": whole[: len(whole) // 2],
        "end.hdf5": whole[:-1],
    }.items():
        (tmp_path / name).write_bytes(content)
        refuse(tmp_path / name, ImportFormatError, name)
    refuse(tmp_path / "absent.hdf5", ImportFormatError, "no such file")
    (tmp_path / "folder.hdf5").mkdir()
    with pytest.raises(RobopolicyError, match=r"folder\.hdf5"):
        import_dataset(tmp_path / "folder.hdf5", tmp_path / "imported.zarr", format="robomimic")


def test_robomimics_own_dataset_reads_the_same_values_from_the_same_file(tmp_path):
    if not PEER:
        pytest.skip("ROBOPOLICY_ROBOMIMIC_PYTHON names no Python with robomimic")
    source = write(tmp_path / "demo.hdf5", dataset(), gzip=True)
    low_dim = "robot0_eef_pos,robot0_eef_quat,object"
    command = [PEER, str(READER), str(source), str(tmp_path / "peer.npz"), "agentview_image", low_dim, ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    store, _ = copy(source)
    with np.load(tmp_path / "peer.npz") as theirs:
        for episode in store.episodes():
            name, steps = episode.metadata["source_episode"], len(episode)
            np.testing.assert_array_equal(theirs[f"{name}/actions"].astype("f4"), episode.action.value)
            for key, signal in episode.observation.items():
                np.testing.assert_array_equal(theirs[f"{name}/obs/{key}"], signal.value[:steps])
                np.testing.assert_array_equal(theirs[f"{name}/next_obs/{key}"], signal.value[1:])
