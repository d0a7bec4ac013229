"""What is exported to LeRobot v3.0 comes back, and LeRobot's own reader sees the same numbers and frames."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from synthetic import SCENE, STEP_NS, make_episode, make_specs

from robopolicy.core.errors import ConfigError, RunExistsError, StoreError, UnknownNameError
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets import exporters
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.exporters.lerobot import export_dataset
from robopolicy.datasets.exporters.lerobot.files import CODECS
from robopolicy.datasets.exporters.lerobot.stats import Merged, Pixels, of_numbers
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import align

READER = Path(__file__).parents[1] / "peers" / "lerobot_read.py"
PEER_PYTHON = "ROBOPOLICY_LEROBOT_PYTHON"
LENGTHS = (9, 70, 5)


def plain_frames(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One colour per frame, which a video keeps within a few levels; it changes by 8 from frame to frame."""
    level = (np.arange(count) * 8 + 31 * seed) % 200
    colours = np.stack([level, 255 - level, np.full(count, 60 * seed)], axis=1).astype(np.uint8)
    return np.broadcast_to(colours[:, None, None], (count, *shape)).copy()


def make_store(path: Path, shape=(16, 24, 3), *, reward: bool = True, depth: bool = False) -> EpisodeStore:
    """Three episodes; the camera and the first state are sensed more often than actions are given."""
    observation = dict(make_specs().observation)
    observation["scene"] = dataclasses.replace(SCENE, shape=shape)
    if depth:
        observation["depth"] = ArraySpec((*shape[:2], 1), "uint16", ("mm",), kind="depth")
    specs = Specs(observation, make_specs().action, 10.0, "fr3")
    store = EpisodeStore.create(path, specs)
    for seed, length in enumerate(LENGTHS):
        store.append(make_one(specs, length, seed, reward=reward))
    return EpisodeStore.open(path)


def make_one(specs: Specs, length: int, seed: int, *, reward: bool) -> Episode:
    states = dataclasses.replace(specs, observation=make_specs().observation)
    facts = {"instruction": f"task {seed % 2}", "success": (True, None, False)[seed]}
    episode = make_episode(states, length, seed, **facts)
    times = np.arange(2 * length + 1) * (STEP_NS // 2)  # one more after the last action, as recorded
    observation = {**episode.observation}
    observation["scene"] = Signal(plain_frames(len(times), specs.observation["scene"].shape, seed), times)
    if "depth" in specs.observation:
        shape = (length, *specs.observation["depth"].shape)
        observation["depth"] = Signal(np.ones(shape, np.uint16), episode.action.time_ns)
    extra = {"force": episode.extra["force"]}
    if reward:
        extra["reward"] = Signal(np.linspace(0, 1, length, dtype=np.float32), episode.action.time_ns)
    return dataclasses.replace(episode, observation=observation, extra=extra)


def assert_comes_back(store: EpisodeStore, back: EpisodeStore, pixel_tolerance: int) -> None:
    kept = [key for key, spec in store.specs.observation.items() if spec.kind != "depth"]
    assert back.specs == store.specs.select(tuple(kept))
    assert len(back) == len(store)
    for ours, theirs in zip(store.episodes(), back.episodes()):
        observation, action = align(ours, back.specs)
        np.testing.assert_array_equal(theirs.action.value, action)
        for key, value in observation.items():
            found = theirs.observation[key].value
            if key == "scene":
                assert np.abs(found.astype(int) - value).max() <= pixel_tolerance
            else:
                np.testing.assert_array_equal(found, value)
        for fact in ("instruction", "success", "seed"):
            assert getattr(theirs, fact) == getattr(ours, fact)
        assert theirs.metadata["who"] == "test" and theirs.clock == "frame_index"
        assert set(theirs.extra) == set(ours.extra) - {"force"}
        if "reward" in theirs.extra:
            np.testing.assert_array_equal(theirs.extra["reward"].value, ours.extra["reward"].value)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"video": False}, 0), ({}, 4), ({"codec": "av1"}, 7)],
    ids=["png", "h264", "av1"],
)
def test_a_store_comes_back(tmp_path, options, tolerance):
    shape = (64, 64, 3) if "codec" in options else (16, 24, 3)  # SVT-AV1's smallest size
    store = make_store(tmp_path / "ours.zarr", shape)
    report = export_dataset(store, tmp_path / "lerobot", **options)
    assert (report["episodes"], report["frames"]) == (3, sum(LENGTHS))
    assert report["left_out"] == ["extra/force"]
    assert report["mapped"]["extra/reward"] == "next.reward"
    assert report["mapped"]["observation/scene"] == "observation.images.scene"
    assert "up to 0 ms" in report["changed"][0]
    back, _ = import_dataset(tmp_path / "lerobot", tmp_path / "back.zarr")
    assert_comes_back(store, back, tolerance)


def test_small_files_hold_few_episodes_each(tmp_path):
    store = make_store(tmp_path / "ours.zarr")
    export_dataset(store, tmp_path / "lerobot", data_file_mb=1e-6, video_file_mb=1e-6)
    for pattern in ("data/*/*.parquet", "videos/*/*/*.mp4", "meta/episodes/*/*.parquet"):
        assert len(list((tmp_path / "lerobot").glob(pattern))) == 3, pattern
    back, _ = import_dataset(tmp_path / "lerobot", tmp_path / "back.zarr")
    assert_comes_back(store, back, 4)


def test_depth_and_odd_rewards_are_left_out_and_said_so(tmp_path):
    store = make_store(tmp_path / "ours.zarr", depth=True, reward=False)
    report = export_dataset(store, tmp_path / "lerobot")
    assert report["left_out"] == ["observation/depth: depth", "extra/force"]
    back, _ = import_dataset(tmp_path / "lerobot", tmp_path / "back.zarr")
    assert_comes_back(store, back, 4)


def test_times_off_the_grid_are_reported(tmp_path):
    specs = make_specs()
    store = EpisodeStore.create(tmp_path / "ours.zarr", specs)
    episode = make_episode(specs, 4)
    late = episode.action.time_ns + np.array([0, 0, 3_000_000, 0])
    store.append(dataclasses.replace(episode, action=Signal(episode.action.value, late)))
    report = export_dataset(store, tmp_path / "lerobot")
    assert "up to 3 ms off" in report["changed"][0]
    rows = pq.read_table(tmp_path / "lerobot" / "data/chunk-000/file-000.parquet")
    np.testing.assert_array_equal(rows["timestamp"].to_numpy(), (np.arange(4) / 10).astype(np.float32))


def test_an_odd_size_is_kept_by_h264_and_refused_for_av1(tmp_path):
    store = make_store(tmp_path / "ours.zarr", (17, 23, 3))
    with pytest.raises(ConfigError, match="scene: av1 needs an even size, not 17 x 23"):
        export_dataset(store, tmp_path / "lerobot", codec="av1")
    assert [p.name for p in tmp_path.iterdir()] == ["ours.zarr"]
    export_dataset(store, tmp_path / "lerobot")
    back, _ = import_dataset(tmp_path / "lerobot", tmp_path / "back.zarr")
    assert_comes_back(store, back, 4)


def test_what_cannot_be_exported_is_refused_with_nothing_left_behind(tmp_path):
    store = make_store(tmp_path / "ours.zarr")
    with pytest.raises(ConfigError, match=r"'vp9' is not one of \['av1', 'h264'\]"):
        export_dataset(store, tmp_path / "lerobot", codec="vp9")
    empty = EpisodeStore.create(tmp_path / "empty.zarr", make_specs())
    with pytest.raises(StoreError, match="has no episodes"):
        export_dataset(empty, tmp_path / "lerobot")
    (tmp_path / "lerobot").write_text("mine")
    with pytest.raises(RunExistsError, match="lerobot already exists"):
        export_dataset(store, tmp_path / "lerobot")
    assert (tmp_path / "lerobot").read_text() == "mine"
    camera = tmp_path / "ours.zarr/episodes/000002/observation/scene/value/c/0/0/0/0"
    damaged = bytearray(camera.read_bytes())
    damaged[3] ^= 1
    camera.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"000002.*scene, frame 0"):
        export_dataset(store, tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.zarr", "lerobot", "ours.zarr"]


def test_statistics_are_those_of_the_numbers(tmp_path, rng):
    parts = [rng.normal(size=(n, 3)) for n in (4, 90, 7)]
    merged = Merged()
    for part in parts:
        merged.add({"a": of_numbers(part)})
    tree, whole = merged.tree()["a"], np.concatenate(parts)
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(tree[name], getattr(whole, name)(axis=0), rtol=1e-12)
    assert tree["count"] == [101]
    weights = np.array([4, 90, 7])[:, None] / 101
    expected = (np.stack([np.quantile(p, 0.9, axis=0) for p in parts]) * weights).sum(axis=0)
    np.testing.assert_allclose(tree["q90"], expected, rtol=1e-12)


def test_camera_statistics_are_those_of_the_sampled_pixels(rng):
    frames = rng.integers(0, 256, (10, 6, 8, 3), dtype=np.uint8)
    pixels = Pixels()
    for start in range(0, 10, 3):
        pixels.add(frames[start : start + 3])
    stats = pixels.stats()
    seen = frames[::4, ::2, ::2].reshape(-1, 3) / 255
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(stats[name].reshape(3), getattr(seen, name)(axis=0), atol=1e-12)
    expected = np.quantile(seen, 0.5, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(stats["q50"].reshape(3), expected)
    assert stats["count"] == [3]


def test_an_unknown_exporter_lists_the_known_ones():
    assert exporters.load("lerobot").export_dataset is export_dataset
    with pytest.raises(UnknownNameError, match=r"unknown exporter 'nope'; known: .*lerobot"):
        exporters.load("nope")


@pytest.mark.parametrize("codec", ["png", *CODECS])
def test_lerobot_itself_reads_what_was_exported(tmp_path, codec):
    python = os.environ.get(PEER_PYTHON)
    if not python:
        pytest.skip(f"{PEER_PYTHON} does not name a Python that has lerobot 0.4.4")
    store = make_store(tmp_path / "ours.zarr", (64, 64, 3))
    options = {"video": False} if codec == "png" else {"codec": codec}
    export_dataset(store, tmp_path / "lerobot", video_file_mb=0.001, **options)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    environment.pop("PYTHONPATH", None)
    command = [python, str(READER), str(tmp_path / "lerobot"), str(tmp_path / "seen.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    back, _ = import_dataset(tmp_path / "lerobot", tmp_path / "back.zarr")
    with np.load(tmp_path / "seen.npz") as seen:
        assert_peer_sees(seen, store, back)


def assert_peer_sees(seen, store: EpisodeStore, back: EpisodeStore) -> None:
    assert int(seen["episodes"]) == 3
    aligned = [align(episode, store.specs) for episode in store.episodes()]
    for key in ("joints", "goal", "points"):
        np.testing.assert_array_equal(
            seen[f"observation.{key}"], np.concatenate([o[key] for o, _ in aligned])
        )
    np.testing.assert_array_equal(seen["action"], np.concatenate([action for _, action in aligned]))
    following = [np.concatenate([action[1:], action[-1:]]) for _, action in aligned]
    np.testing.assert_array_equal(seen["next_action"], np.concatenate(following))
    frames = np.concatenate([episode.observation["scene"].value for episode in back.episodes()])
    assert np.abs(seen["observation.images.scene"].astype(int) - frames).max() <= 2  # two decoders' rounding
    assert seen["task"].tolist() == [f"task {i % 2}" for i, n in enumerate(LENGTHS) for _ in range(n)]
    assert seen["next.success"].sum() == 1
    assert "observation.images.scene" in json.loads(str(seen["statistics"]))
