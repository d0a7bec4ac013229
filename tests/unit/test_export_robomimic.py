"""What we export as robomimic's HDF5 reads back the same, by us and by robomimic itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console
from synthetic import make_episode, make_specs

from robopolicy.core.errors import ConfigError, RobopolicyError, RunExistsError, StoreError
from robopolicy.core.specs import ArraySpec
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.exporters.robomimic import export_dataset
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import align

PEER = os.environ.get("ROBOPOLICY_ROBOMIMIC_PYTHON")
READER = Path(__file__).parents[1] / "peers" / "robomimic_read.py"
QUIET = Console(quiet=True)
STEP_NS = 100_000_000


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    """Four episodes at 10 Hz with an image, depth, and one observation after the last action."""
    specs = make_specs(image=True)
    depth = ArraySpec((4, 5, 1), "uint16", ("mm",), kind="depth")
    specs = dataclasses.replace(specs, observation={**specs.observation, "depth": depth})
    store = EpisodeStore.create(tmp_path / "store.zarr", specs)
    for seed, length in enumerate((9, 70, 5, 1)):
        made = make_episode(make_specs(image=True), length, seed)
        rng = np.random.default_rng(seed)
        times = np.arange(length + 1, dtype=np.int64) * STEP_NS
        frames = rng.integers(0, 256, (length + 1, 16, 16, 3), dtype=np.uint8)
        range_mm = rng.integers(0, 65536, (length + 1, 4, 5, 1), dtype=np.uint16)
        sensed = {**made.observation, "scene": Signal(frames, times), "depth": Signal(range_mm, times)}
        extra = {"reward": Signal(rng.normal(size=length), times[:-1])} if seed == 1 else {}
        store.append(
            dataclasses.replace(
                made, observation=sensed, extra=extra, success=seed != 2, instruction=f"do {seed}"
            )
        )
    return store


def test_every_step_holds_what_a_policy_sees_and_where_it_led(store, tmp_path):
    report = export_dataset(store, tmp_path / "out.hdf5", console=QUIET)
    assert (report["episodes"], report["frames"]) == (4, 85) and not report["notes"]
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert file["data"].attrs["total"] == 85
        assert json.loads(file["data"].attrs["env_args"])["env_kwargs"] == {"control_freq": 10.0}
        for number, episode in enumerate(store.episodes()):
            demo = file[f"data/demo_{number}"]
            seen, actions = align(episode, store.specs)
            assert demo.attrs["num_samples"] == len(episode)
            assert json.loads(demo.attrs["ep_meta"]) == {"lang": f"do {number}"}
            np.testing.assert_array_equal(demo["actions"], actions)
            np.testing.assert_array_equal(demo["dones"], np.arange(len(episode)) == len(episode) - 1)
            for key, values in seen.items():
                metres = values.astype(np.float32) / 1000 if key == "depth" else values
                np.testing.assert_array_equal(demo[f"obs/{key}"], metres)
                np.testing.assert_array_equal(demo[f"next_obs/{key}"][:-1], metres[1:])
            final = episode.observation["scene"].value[-1]  # sensed after the last action
            np.testing.assert_array_equal(demo["next_obs/scene"][-1], final)


def test_rewards_are_the_recorded_ones_else_success_at_the_end(store, tmp_path):
    export_dataset(store, tmp_path / "out.hdf5", console=QUIET)
    with h5py.File(tmp_path / "out.hdf5") as file:
        recorded = store.read(store.names[1]).extra["reward"].value
        np.testing.assert_array_equal(file["data/demo_1/rewards"], recorded)
        np.testing.assert_array_equal(file["data/demo_0/rewards"], [0] * 8 + [1])
        np.testing.assert_array_equal(file["data/demo_2/rewards"], [0] * 5)


def test_our_importer_reads_it_back_without_a_mapping(store, tmp_path):
    export_dataset(store, tmp_path / "out.hdf5", console=QUIET)
    again, report = import_dataset(tmp_path / "out.hdf5", tmp_path / "again.zarr", console=QUIET)
    assert again.specs == store.specs
    assert report.converted == ["depth: metres to millimetres, rounded"]
    for first, second in zip(store.episodes(), again.episodes(), strict=True):
        assert second.instruction == first.instruction
        np.testing.assert_array_equal(second.action.value, first.action.value)
        for key in ("scene", "depth"):
            np.testing.assert_array_equal(second.observation[key].value, first.observation[key].value)
            np.testing.assert_array_equal(second.observation[key].time_ns, first.observation[key].time_ns)
        for key, values in align(first, store.specs)[0].items():
            np.testing.assert_array_equal(align(second, store.specs)[0][key], values)


@pytest.mark.parametrize(("fraction", "valid"), [(0.0, 0), (0.01, 1), (0.5, 2), (0.99, 3), (1.0, 4)])
def test_masks_part_the_episodes(store, tmp_path, fraction, valid):
    export_dataset(store, tmp_path / "out.hdf5", console=QUIET, valid_fraction=fraction)
    with h5py.File(tmp_path / "out.hdf5") as file:
        parts = {name: {n.decode() for n in file[f"mask/{name}"][:]} for name in ("train", "valid")}
    assert len(parts["valid"]) == valid
    assert parts["train"] | parts["valid"] == {f"demo_{i}" for i in range(4)}
    assert not parts["train"] & parts["valid"]


def test_masks_of_a_robomimic_file_survive(store, tmp_path):
    export_dataset(store, tmp_path / "one.hdf5", console=QUIET, seed=3, valid_fraction=0.5)
    again, _ = import_dataset(tmp_path / "one.hdf5", tmp_path / "again.zarr", console=QUIET)
    export_dataset(again, tmp_path / "two.hdf5", console=QUIET, seed=4)
    with h5py.File(tmp_path / "one.hdf5") as one, h5py.File(tmp_path / "two.hdf5") as two:
        for name in ("train", "valid"):
            assert one[f"mask/{name}"][:].tolist() == two[f"mask/{name}"][:].tolist()


def test_actions_outside_minus_one_to_one_are_said(tmp_path):
    specs = make_specs()
    store = EpisodeStore.create(tmp_path / "store.zarr", specs)
    episode = make_episode(specs, 5, 0)
    store.append(
        dataclasses.replace(episode, action=Signal(episode.action.value * 3, episode.action.time_ns))
    )
    report = export_dataset(store, tmp_path / "out.hdf5", console=QUIET)
    assert report["action_range"][1] > 1 and "robomimic expects -1..1" in report["notes"][0]


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(store, tmp_path):
    (tmp_path / "taken.hdf5").write_text("mine")
    with pytest.raises(RunExistsError, match=r"taken\.hdf5 already exists"):
        export_dataset(store, tmp_path / "taken.hdf5", console=QUIET)
    assert (tmp_path / "taken.hdf5").read_text() == "mine"
    with pytest.raises(ConfigError, match="no episode"):
        empty = EpisodeStore.create(tmp_path / "empty.zarr", store.specs)
        export_dataset(empty, tmp_path / "out.hdf5", console=QUIET)
    with pytest.raises(ConfigError, match=r"valid_fraction.*1\.5"):
        export_dataset(store, tmp_path / "out.hdf5", console=QUIET, valid_fraction=1.5)
    with pytest.raises(StoreError, match="cannot write"):
        export_dataset(store, tmp_path / "absent" / "out.hdf5", console=QUIET)
    scene = tmp_path / "store.zarr" / "episodes" / store.names[2] / "observation" / "scene" / "value"
    shard = max((p for p in scene.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:10])
    with pytest.raises(RobopolicyError, match=store.names[2]):
        export_dataset(store, tmp_path / "out.hdf5", console=QUIET)
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def read_with_peer(path: Path, *, images: str, low_dim: str, depth: str = "", mask: str = "") -> dict:
    if not PEER:
        pytest.skip("ROBOPOLICY_ROBOMIMIC_PYTHON names no Python with robomimic")
    out = path.with_suffix(".npz")
    command = [PEER, str(READER), str(path), str(out), images, low_dim, depth, mask]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        return dict(arrays)


def test_robomimics_own_dataset_reads_the_same_values(store, tmp_path):
    path = tmp_path / "out.hdf5"
    export_dataset(store, path, console=QUIET)
    theirs = read_with_peer(path, images="scene", low_dim="joints,goal,points", depth="depth")
    assert {name.split("/")[0] for name in theirs} == {f"demo_{i}" for i in range(4)}
    for number, episode in enumerate(store.episodes()):
        seen, actions = align(episode, store.specs)
        np.testing.assert_array_equal(theirs[f"demo_{number}/actions"], actions)
        np.testing.assert_array_equal(theirs[f"demo_{number}/obs/depth"], seen["depth"].astype("f4") / 1000)
        for key in ("joints", "goal", "points", "scene"):
            np.testing.assert_array_equal(theirs[f"demo_{number}/obs/{key}"], seen[key])
            np.testing.assert_array_equal(theirs[f"demo_{number}/next_obs/{key}"][:-1], seen[key][1:])


def test_robomimics_own_dataset_follows_our_masks(store, tmp_path):
    path = tmp_path / "out.hdf5"
    export_dataset(store, path, console=QUIET, valid_fraction=0.25)
    theirs = read_with_peer(path, images="scene", low_dim="joints", mask="valid")
    with h5py.File(path) as file:
        valid = {name.decode() for name in file["mask/valid"][:]}
    assert {name.split("/")[0] for name in theirs} == valid and len(valid) == 1
