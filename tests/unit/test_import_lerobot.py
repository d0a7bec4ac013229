"""LeRobot v2.1 and v3.0 come in value for value, or are refused by file, episode and key nothing is left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from robopolicy.core.errors import ImportFormatError, NonFiniteValueError, UnknownNameError
from robopolicy.datasets import importers
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.importers.lerobot import open_source, rows
from robopolicy.datasets.importers.lerobot.layout import Feature
from robopolicy.datasets.importers.lerobot.video import frame_count
from robopolicy.datasets.importers.mapping import load_mapping
from robopolicy.datasets.importers.source import ImportOptions, Report
from robopolicy.datasets.store import EpisodeStore

PEER = Path(__file__).parents[1] / "data" / "lerobot_v3"
REAL = "g1_inspire_teleop"
HEAD = "observation.images.cam_high"
WITH_VIDEO = (10, 20, 24, 25, 28, 29, 30, 31, 59, 63)
LENGTHS, FPS, SIZE = (5, 70, 3), 10, (48, 64)
STATE = {"dtype": "float32", "shape": [2], "names": [["shoulder", "elbow"]]}
FEATURES = {
    "observation.state": STATE,
    "observation.images.front": {
        "dtype": "video",
        "shape": [*SIZE, 3],
        "names": ["height", "width", "channel"],
    },
    "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["shoulder", "elbow"]}},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
    "note": {"dtype": "string", "shape": [1], "names": None},
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}


def numbers(episode: int) -> dict[str, np.ndarray]:
    rng, count = np.random.default_rng(episode), LENGTHS[episode]
    return {
        "observation.state": rng.normal(size=(count, 2)).astype(np.float32),
        "action": rng.normal(size=(count, 2)).astype(np.float32),
        "next.done": np.arange(count) == count - 1,
        "timestamp": (np.arange(count) / FPS).astype(np.float32),
        "frame_index": np.arange(count),
        "episode_index": np.full(count, episode),
        "index": np.arange(count) + sum(LENGTHS[:episode]),
        "task_index": np.full(count, episode % 2),
    }


def write_rows(path: Path, columns: dict[str, np.ndarray]) -> None:
    arrays = {key: pa.array(list(v) if v.ndim > 1 else v) for key, v in columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**arrays, "note": ["x"] * len(columns["action"])}), path)


def write_video(path: Path, count: int, size=SIZE, *, skip: int = 0) -> None:
    """Frame i is a grey of 3 i, without loss; ``skip`` shifts the times by that many frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 3 * index, np.uint8), format="rgb24")
            frame.pts = index + (skip if index else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def row_file(root: Path, episode: int) -> Path:
    return root / f"data/chunk-000/episode_{episode:06d}.parquet"


def video_file(root: Path, episode: int) -> Path:
    return root / f"videos/chunk-000/observation.images.front/episode_{episode:06d}.mp4"


def write_v2(root: Path, features=FEATURES, **info) -> Path:
    """As LeRobot v2.1 lays it out: three episodes of 5, 70 and 3 frames."""
    for episode, count in enumerate(LENGTHS):
        write_rows(row_file(root, episode), numbers(episode))
        write_video(video_file(root, episode), count)
    lines = [{"episode_index": e, "tasks": [f"task {e % 2}"], "length": n} for e, n in enumerate(LENGTHS)]
    (root / "meta").mkdir()
    (root / "meta" / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tasks = [{"task_index": i, "task": f"task {i}"} for i in range(2)]
    (root / "meta" / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)) + "\n")
    tree = {"codebase_version": "v2.1", "robot_type": "so100", "total_episodes": len(LENGTHS), "fps": FPS}
    tree["chunks_size"] = 1000
    tree["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    tree["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta" / "info.json").write_text(json.dumps({**tree, "features": features, **info}))
    return root


def copy(source: Path, **options) -> tuple[EpisodeStore, Report]:
    return import_dataset(source, source.parent / "out" / "imported.zarr", ImportOptions(**options))


def refuse(source: Path, error: type[Exception], message: str, **options) -> None:
    """The import fails with this error and leaves no file behind."""
    (source.parent / "out").mkdir(exist_ok=True)
    with pytest.raises(error, match=message):
        copy(source, **options)
    assert list((source.parent / "out").iterdir()) == []


def test_v2_comes_in_value_for_value(tmp_path):
    store, report = copy(write_v2(tmp_path / "source"))
    assert importers.recognise(tmp_path / "source") == "lerobot"
    assert [store.facts(name)["length"] for name in store.names] == list(LENGTHS)
    for index, name in enumerate(store.names):
        episode, expected = store.read(name), numbers(index)
        np.testing.assert_array_equal(episode.observation["state"].value, expected["observation.state"])
        np.testing.assert_array_equal(episode.action.value, expected["action"])
        np.testing.assert_array_equal(episode.extra["done"].value, expected["next.done"])
        grey = np.arange(LENGTHS[index])[:, None, None, None] * 3
        assert np.abs(episode.observation["front"].value.astype(int) - grey).max() <= 2  # RGB to YUV and back
        times = np.round(expected["timestamp"].astype(np.float64) * 1e9)
        for signal in (episode.action, *episode.observation.values(), *episode.extra.values()):
            np.testing.assert_array_equal(signal.time_ns, times)
        assert (episode.instruction, episode.clock, episode.success) == (
            f"task {index % 2}",
            "frame_index",
            None,
        )
    assert store.specs.action.parts[0].space == "normalised"
    assert store.specs.action.names == store.specs.observation["state"].names == ("shoulder", "elbow")
    assert store.specs.policy_rate == FPS
    assert report.ignored == ["note: string is no number"]
    assert [text.split(":")[0] for text in report.guessed] == [
        "action",
        "robot",
        "observation/state",
        "times",
    ]


def test_what_lerobot_itself_wrote_comes_in(tmp_path):
    store, report = import_dataset(PEER, tmp_path / "peer.zarr")
    assert [store.facts(name)["length"] for name in store.names] == [4, 3, 5]
    assert [store.facts(name)["success"] for name in store.names] == [True, False, True]
    tasks = ["pick the cube", "pick the cube", "place the cube"]
    assert [store.facts(name)["instruction"] for name in store.names] == tasks
    for e, name in enumerate(store.names):
        episode = store.read(name)
        i = np.arange(len(episode))
        state = np.stack([np.full(len(i), e), i / 3], axis=1).astype(np.float32)
        np.testing.assert_array_equal(episode.observation["state"].value, state)
        action = np.stack([np.full(len(i), e + 0.1), i / 7], axis=1).astype(np.float32)
        np.testing.assert_array_equal(episode.action.value, action)
        np.testing.assert_array_equal(episode.extra["reward"].value, (i / 9).astype(np.float32))
        colour = np.stack([np.full(len(i), 40 + 60 * e), 20 * i, np.full(len(i), 200)], axis=1)
        seen = episode.observation["front"].value.astype(int).mean(axis=(1, 2))
        assert (
            np.abs(seen - colour).max() < 8
        )  # AV1 at LeRobot's quality; the next frame's green differs by 20
    assert any("av1" in text for text in report.converted)


@pytest.mark.parametrize("chosen", [(1,), (2, 0)])
def test_single_episodes_of_a_shared_file_come_in(tmp_path, chosen):
    whole, _ = import_dataset(PEER, tmp_path / "whole.zarr")
    part, _ = import_dataset(PEER, tmp_path / "part.zarr", ImportOptions(episodes=chosen))
    for name, index in zip(part.names, sorted(chosen), strict=True):
        ours, theirs = part.read(name), whole.read(whole.names[index])
        assert ours.metadata["source_episode"] == index
        np.testing.assert_array_equal(ours.action.value, theirs.action.value)
        np.testing.assert_array_equal(ours.observation["front"].value, theirs.observation["front"].value)


def test_a_mapping_gives_meaning_names_and_a_robot(tmp_path):
    tree = {
        "rate": FPS,
        "robot": "fr3",
        "observation": {"upper": {"from": "observation.state", "columns": [1], "units": ["rad"]}},
        "action": {"from": "action", "parts": [{"space": "joint_position", "names": ["shoulder", "elbow"]}]},
    }
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(yaml.safe_dump(tree))
    source = write_v2(tmp_path / "source")
    store, report = copy(source, mapping=str(mapping))
    assert (store.specs.robot, store.specs.action.units) == ("fr3", ("rad", "rad"))
    assert store.specs.observation["upper"].names == ("elbow",)
    upper = store.read(store.names[0]).observation["upper"].value
    np.testing.assert_array_equal(upper, numbers(0)["observation.state"][:, 1:])
    assert "observation.images.front: not in the mapping" in report.ignored
    shutil.rmtree(tmp_path / "out")
    for changes, message in (
        ({"rate": 20}, "10.0 fps, the mapping 20.0"),
        ({"observation": {"a": {"from": "nope"}}}, r"no \['nope'\]; it has \['action'"),
        (
            {"action": {"from": "action", "parts": [{"space": "normalised", "names": ["a"]}]}},
            "mapping says 1",
        ),
        (
            {
                "action": {
                    "from": "action",
                    "parts": [{"space": "normalised", "names": ["elbow", "shoulder"]}],
                }
            },
            r"\['elbow', 'shoulder'\] in another place",
        ),
    ):
        mapping.write_text(yaml.safe_dump({**tree, **changes}))
        refuse(source, ImportFormatError, message, mapping=str(mapping))


def test_missing_videos_are_listed_with_both_ways_out(tmp_path):
    source = write_v2(tmp_path / "source")
    for episode in (0, 2):
        video_file(source, episode).unlink()
    refuse(
        source, ImportFormatError, r"front for episodes 0, 2.*--skip-missing.*1 of 3.*--without observ.*all 3"
    )
    store, report = copy(source, skip_missing=True)
    assert [store.read(n, ()).metadata["source_episode"] for n in store.names] == [1]
    assert report.missing == ["observation.images.front: no file for episodes 0, 2"]
    shutil.rmtree(tmp_path / "out")
    store, report = copy(source, without=("observation.images.front",))
    assert len(store) == 3 and sorted(store.specs.observation) == ["state"]
    assert "observation.images.front: left out as asked" in report.ignored
    shutil.rmtree(tmp_path / "out")
    refuse(source, UnknownNameError, "nope.*known: action", without=("nope",))
    refuse(source, ImportFormatError, r"no episodes \[3, 7\]; it has episodes 0 to 2", episodes=(3, 0, 7))


def damage(source: Path, key: str, change) -> None:
    columns = numbers(1)
    columns[key] = change(columns[key])
    write_rows(row_file(source, 1), columns)


def changed(place, value):
    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("key", "change", "error", "message"),
    [
        ("observation.state", changed((7, 1), np.nan), NonFiniteValueError, "observation.state, frame 7"),
        ("action", changed((8, 0), np.inf), NonFiniteValueError, "action, frame 8"),
        ("timestamp", changed(3, 0.1), ImportFormatError, "timestamp, frame 3: time does not increase"),
        ("timestamp", changed(3, np.nan), NonFiniteValueError, "timestamp, frame 3"),
        ("timestamp", changed(69, 1e30), ImportFormatError, "e.30 s is no time"),
        (
            "timestamp",
            lambda t: t * 2,
            ImportFormatError,
            "front, frame 1: .*episode_000001.mp4 shows it at 0.1",
        ),
        ("frame_index", changed(4, 3), ImportFormatError, "frame_index: row 4 says 3, 4 belongs"),
        ("episode_index", changed(0, 2), ImportFormatError, "episode_index: row 0 says 2, 1 belongs"),
        ("task_index", changed(0, 9), ImportFormatError, r"task_index 9 is not in the task table"),
        ("action", lambda a: a.astype(np.float64), ImportFormatError, "action: holds .*double.*says float32"),
        ("action", lambda a: a[:, :1], ImportFormatError, r"action: rows of lengths \{1\}.*\(2,\)"),
    ],
)
def test_a_damaged_row_is_refused_with_file_episode_and_key(tmp_path, key, change, error, message):
    source = write_v2(tmp_path / "source")
    damage(source, key, change)
    place = "episode.000001" if "holds" in message else "episode 1"
    refuse(source, error, f"(?s){place}.*{message}")


def test_rows_that_are_missing_or_ragged_are_refused(tmp_path):
    source = write_v2(tmp_path / "source")
    columns = numbers(1)
    arrays = {key: pa.array(list(v)) for key, v in columns.items()}
    pq.write_table(
        pa.table({**arrays, "action": pa.array([[1.0, 2.0]] * 69 + [None], pa.list_(pa.float32()))}),
        row_file(source, 1),
    )
    refuse(source, ImportFormatError, "episode 1, action: (rows|empty)")
    write_rows(row_file(source, 1), {key: v[:-1] for key, v in columns.items()})
    refuse(source, ImportFormatError, "episode_000001.parquet has 69 rows, meta/episodes says 70")
    del columns["observation.state"]
    write_rows(row_file(source, 1), columns)
    refuse(source, ImportFormatError, "episode_000001.parquet has no column 'observation.state'")


@pytest.mark.parametrize("cut", [0, 4, 300, -9])
def test_a_cut_file_is_refused_by_name(tmp_path, cut):
    source = write_v2(tmp_path / "source")
    whole = row_file(source, 1).read_bytes()
    row_file(source, 1).write_bytes(whole[:cut])
    refuse(source, ImportFormatError, "episode_000001.parquet cannot be read")
    row_file(source, 1).write_bytes(whole)
    video = video_file(source, 2).read_bytes()
    video_file(source, 2).write_bytes(video[: cut if cut >= 0 else len(video) // 2])
    refuse(source, ImportFormatError, "episode_000002.mp4 cannot be read")


@pytest.mark.parametrize("lost", [1, 200])
def test_a_video_whose_header_is_whole_but_frames_are_cut_is_refused(tmp_path, lost):
    source = tmp_path / "source"
    shutil.copytree(PEER, source)
    path = source / "videos/observation.images.front/chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:-lost])
    assert frame_count(path) == 12
    refuse(source, ImportFormatError, "episode [012], observation.images.front.*file-000.mp4")


def test_a_video_that_does_not_fit_its_rows_is_refused(tmp_path):
    source = write_v2(tmp_path / "source")
    write_video(video_file(source, 1), 69)
    refuse(
        source, ImportFormatError, "episode_000001.mp4 has 69 frames, observation.images.front of episode 1"
    )
    write_video(video_file(source, 1), 70, (32, 64))
    refuse(source, ImportFormatError, r"episode 1.*frames of \(32, 64, 3\), meta/info.json \(48, 64, 3\)")
    write_video(video_file(source, 1), 70, skip=1)
    refuse(
        source, ImportFormatError, "episode 1, observation.images.front, frame 1: .* at 0.2000 s.*0.1000 s"
    )
    write_video(video_file(source, 1), 72)
    _, report = copy(source)
    assert "observation.images.front: 2 frames of episode_000001.mp4 after the last row" in report.ignored


@pytest.mark.parametrize(
    ("features", "info", "message"),
    [
        ({}, {"codebase_version": "v1.6"}, r"codebase_version 'v1.6' is not one of \('v2.1', 'v3.0'\)"),
        ({}, {"fps": 0}, "fps must be positive"),
        ({}, {"fps": "ten"}, "info.json is no description"),
        ({}, {"total_episodes": 4}, "says 4 episodes, meta/episodes lists 3"),
        ({}, {"data_path": "../{episode_index}.parquet"}, "points outside the dataset"),
        ({}, {"data_path": "{nope}.parquet"}, "no usable data_path"),
        (
            {"observation.state": {**STATE, "names": ["a", "a"]}},
            {},
            r"'observation.state' names \['a'\] more",
        ),
        ({"action": {**STATE, "names": ["a", "a"]}}, {}, r"'action' names \['a'\] more than once"),
        ({"action": {**STATE, "dtype": "int32"}}, {}, "action: holds .*float.*says int32"),
        ({"action": {**STATE, "dtype": "string"}}, {}, "action: holds .*says string"),
        ({"observation.state": {**STATE, "shape": [3], "names": None}}, {}, r"rows of lengths \{2\}.*\(3,\)"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, features, info, message):
    source = write_v2(tmp_path / "source", {**FEATURES, **features}, **info)
    refuse(source, ImportFormatError, message)


def test_what_is_no_dataset_is_refused_by_name(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with (
        pytest.raises(ImportFormatError, match="file is not a folder"),
        open_source(file, ImportOptions()),
    ):
        pass
    for text in (
        "",
        "{",
        "[]",
        "{}",
        '{"codebase_version": "v3.0"}',
        '{"codebase_version": "v2.1", "fps": 3}',
    ):
        (tmp_path / "source" / "meta").mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / "meta" / "info.json").write_text(text)
        refuse(tmp_path / "source", ImportFormatError, "info.json")


@pytest.mark.parametrize(
    "name", ["meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet", "data", "videos"]
)
def test_a_v3_dataset_that_lacks_a_part_is_refused(tmp_path, name):
    source = tmp_path / "source"
    shutil.copytree(PEER, source)
    (shutil.rmtree if (source / name).is_dir() else Path.unlink)(source / name)
    refuse(source, ImportFormatError, "tasks.parquet cannot be read|meta/episodes lists 0|files are missing")


def test_rows_are_read_forward_and_back_in_small_blocks(tmp_path):
    path = tmp_path / "rows.parquet"
    values = np.arange(100, dtype=np.int64)
    pq.write_table(pa.table({"a": values}), path, row_group_size=30)
    reader = rows.Rows(path, ["a"], 7)
    for start, stop in ((0, 5), (5, 41), (45, 46), (95, 100), (0, 100), (29, 31), (12, 13)):
        batches = list(reader.read(start, stop))
        assert max(len(batch) for batch in batches) <= 7
        found = rows.column(batches, "a", Feature("int64", (1,)), "here")
        np.testing.assert_array_equal(found[:, 0], values[start:stop])
    with pytest.raises(ImportFormatError, match="ends at row 100, before row 101"):
        list(reader.read(90, 101))
    reader.close()


def test_all_real_episodes_come_in_without_their_camera(tmp_path, shared_data):
    source = shared_data(REAL)
    options = ImportOptions(mapping="g1_inspire", without=(HEAD,))
    store, report = import_dataset(source, tmp_path / "g1.zarr", options)
    assert len(store) == 100 and sum(store.facts(name)["length"] for name in store.names) == 35_965
    assert {store.facts(name)["instruction"] for name in store.names} == {
        "Pick up the yellow bottle on the table."
    }
    spaces = [(part.space, len(part.names)) for part in store.specs.action.parts]
    assert spaces == [("joint_position", 14), ("normalised", 12)]
    for index in (0, 57, 99):
        table = pq.read_table(source / f"data/chunk-000/episode_{index:06d}.parquet")
        episode = store.read(store.names[index])
        for key, signal in (("observation.state", episode.observation["state"]), ("action", episode.action)):
            np.testing.assert_array_equal(signal.value, np.array(table[key].to_pylist(), np.float32))
        times = np.round(table["timestamp"].to_numpy().astype(np.float64) * 1e9)
        np.testing.assert_array_equal(episode.action.time_ns, times)
    assert report.missing and "times" in report.guessed[-1]


def test_a_real_camera_comes_in_frame_for_frame(tmp_path, shared_data):
    source = shared_data(REAL)
    store, _ = import_dataset(
        source, tmp_path / "g1.zarr", ImportOptions(mapping="g1_inspire", episodes=(10,)), image_codec="jpeg"
    )
    spec = store.specs.observation["cam_high"]
    assert spec.shape == (480, 640, 3)
    assert store.facts(store.names[0])["length"] == frame_count(
        source / f"videos/chunk-000/{HEAD}/episode_000010.mp4"
    )


def test_every_real_video_holds_its_rows(shared_data):
    source = shared_data(REAL)
    with pytest.raises(ImportFormatError, match="10 of 100 episodes"), open_source(source, ImportOptions()):
        pass
    with open_source(source, ImportOptions(mapping="g1_inspire", skip_missing=True)) as opened:
        assert len(opened) == len(WITH_VIDEO)
        first = next(iter(opened.episodes()))
        blocks = iter(first.signals["observation/cam_high"])
        block = next(blocks)
        path = source / f"videos/chunk-000/{HEAD}/episode_{WITH_VIDEO[0]:06d}.mp4"
        with av.open(str(path)) as container:
            expected = [f.to_ndarray(format="rgb24") for _, f in zip(range(64), container.decode(video=0))]
        np.testing.assert_array_equal(block.value, np.stack(expected))
        blocks.close()


@pytest.mark.slow
def test_all_real_cameras_come_in(tmp_path, shared_data):
    options = ImportOptions(mapping="g1_inspire", skip_missing=True)
    store, _ = import_dataset(shared_data(REAL), tmp_path / "g1.zarr", options, image_codec="jpeg")
    assert [store.read(name, ()).metadata["source_episode"] for name in store.names] == list(WITH_VIDEO)


def test_the_shipped_mapping_names_every_joint_of_the_robot(shared_data):
    info = json.loads((shared_data(REAL) / "meta" / "info.json").read_text())
    mapping = load_mapping("g1_inspire")
    names = [name for part in mapping.action.parts for name in part.names]
    assert names == info["features"]["action"]["names"][0]


def test_other_formats_do_not_need_lerobots_packages(tmp_path):
    script = (
        "import sys\n"
        "sys.modules['pyarrow'] = sys.modules['av'] = None  # as if not installed\n"
        "from pathlib import Path\n"
        "from robopolicy.core.errors import MissingDependencyError\n"
        "from robopolicy.datasets.importers import lerobot\n"
        "from robopolicy.datasets.importers.source import ImportOptions\n"
        f"assert lerobot.matches(Path({str(PEER)!r}))\n"
        "try:\n"
        f"    lerobot.open_source(Path({str(PEER)!r}), ImportOptions()).__enter__()\n"
        "except MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "need pyarrow and av (no pyarrow" in done.stdout and "'robopolicy[formats]'" in done.stdout
