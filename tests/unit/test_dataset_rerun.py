"""Episodes written for the Rerun viewer come back from the file as they were: values, instants, pictures."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from synthetic import STEP_NS, make_episode, make_specs

from robopolicy.core.errors import ConfigError, StoreError
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.show.rerun import log_store
from robopolicy.datasets.store import EpisodeStore

pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'robopolicy[view]'")
DEPTH = ArraySpec((6, 8, 1), "uint16", units=("mm",), kind="depth")


def make_store(path: Path, episodes: int = 2) -> EpisodeStore:
    """Two cameras, one of them of depth, five times as fast as the actions; states; extras; a wall clock."""
    base = make_specs(image=True)
    specs = dataclasses.replace(base, observation={**base.observation, "far": DEPTH})
    store = EpisodeStore.create(path, specs)
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        episode = make_episode(base, 9, seed, wall_minus_clock_ns=10**18)
        far = rng.integers(0, 4000, (45, *DEPTH.shape)).astype(np.uint16)
        scene = np.repeat(rng.integers(0, 256, (45, 1, 1, 3)).astype(np.uint8), 16, 1).repeat(16, 2)
        times = np.arange(45, dtype=np.int64) * (STEP_NS // 5)
        pictures = {"far": Signal(far, times), "scene": Signal(scene, times)}
        big = Signal(np.zeros((9, 30, 30), np.float32), episode.action.time_ns)
        store.append(
            dataclasses.replace(
                episode,
                observation={**episode.observation, **pictures},
                extra={**episode.extra, "map": big},
            )
        )
    return store


def read_back(path: Path, episode: str) -> dict[str, dict[str, list]]:
    """Entity to column to rows, of one episode in a file. Times are nanoseconds."""
    from rerun.chunk import RrdReader

    reader = RrdReader(path)
    for entry in reader.recordings():
        found: dict[str, dict[str, list]] = {}
        for chunk in reader.stream(store=entry):
            batch = chunk.to_record_batch()
            columns = found.setdefault(chunk.entity_path, {})
            for name, column in zip(batch.schema.names, batch.columns):
                times = name in ("time", "wall")
                rows = column.cast("int64").to_pylist() if times else column.to_pylist()
                columns.setdefault(name, []).extend(rows)
        if found["/__properties"]["RecordingInfo:name"][0][0].startswith(episode):
            return found
    raise AssertionError(f"{path} has no recording named {episode}")


def test_every_number_comes_back_at_its_own_time(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    log_store(store, store.names, tmp_path / "s.rrd")
    for name in store.names:
        episode, found = store.read(name), read_back(tmp_path / "s.rrd", name)
        joints, action = episode.observation["joints"], episode.action
        assert len(joints.time_ns) == 2 * len(action.time_ns)  # so the two cannot be confused
        for entity, signal, column in (
            ("/observation/joints/b", joints, 1),
            ("/action/grip", action, 2),
            ("/extra/force/5", episode.extra["force"], 5),
        ):
            rows = found[entity]
            np.testing.assert_array_equal(np.ravel(rows["Scalars:scalars"]), signal.value[:, column])
            np.testing.assert_array_equal(rows["time"], signal.time_ns)
            np.testing.assert_array_equal(rows["wall"], signal.time_ns + 10**18)
        assert np.ravel(found["/observation/points/2.1"]["Scalars:scalars"]).tolist() == (
            episode.observation["points"].value[:, 2, 1].tolist()
        )


def test_the_viewer_at_a_step_shows_what_a_policy_saw(tmp_path: Path) -> None:
    from robopolicy.datasets.windows import align

    store = make_store(tmp_path / "s.zarr", 1)
    log_store(store, store.names, tmp_path / "s.rrd")
    seen, _ = align(store.read("000000"), store.specs)
    rows = read_back(tmp_path / "s.rrd", "000000")["/observation/joints/a"]
    steps, values = np.array(rows["step"]), np.ravel(rows["Scalars:scalars"])
    for step in range(len(seen["joints"])):
        newest = np.flatnonzero(steps <= step)[-1]  # the viewer's rule: the last sample not after the cursor
        assert values[newest] == seen["joints"][step, 0]


def test_pictures_come_back(tmp_path: Path) -> None:
    from PIL import Image

    store = make_store(tmp_path / "s.zarr", 1)
    log_store(store, store.names, tmp_path / "s.rrd")
    episode, found = store.read("000000"), read_back(tmp_path / "s.rrd", "000000")
    scene, far = found["/observation/scene"], found["/observation/far"]
    np.testing.assert_array_equal(scene["time"], episode.observation["scene"].time_ns)
    assert len(scene["EncodedImage:blob"]) == 45  # more than one block of frames
    for row, frame in zip(scene["EncodedImage:blob"], episode.observation["scene"].value):
        decoded = np.asarray(Image.open(io.BytesIO(bytes(row[0]))))
        assert np.abs(decoded.astype(int) - frame).max() <= 6  # one colour each; JPEG at quality 90 or more
    depth = np.array(far["DepthImage:buffer"], np.uint8)[:, 0].copy().view("<u2").reshape(45, *DEPTH.shape)
    np.testing.assert_array_equal(depth, episode.observation["far"].value)
    assert far["DepthImage:meter"] == [[1000.0]]


def test_a_camera_stored_as_jpeg_is_passed_on_unchanged(tmp_path: Path) -> None:
    from robopolicy.datasets.codecs import jpeg

    specs = make_specs(image=True)
    store = EpisodeStore.create(
        tmp_path / "j.zarr", specs, image_codec="jpeg", codec_settings={"quality": 40}
    )
    episode = make_episode(specs, 40)
    store.append(episode)
    log_store(store, store.names, tmp_path / "j.rrd")
    rows = read_back(tmp_path / "j.rrd", "000000")["/observation/scene"]["EncodedImage:blob"]
    expected = [jpeg.encode(jpeg.Config(40), frame) for frame in episode.observation["scene"].value]
    assert [bytes(row[0]) for row in rows] == expected


def test_facts_and_what_is_left_out_are_told(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", 1)
    hidden = log_store(store, store.names, tmp_path / "s.rrd")
    assert hidden == ["extra/map: float32 (30, 30) cannot be drawn as curves"]
    text = read_back(tmp_path / "s.rrd", "000000")["/episode"]["TextDocument:text"][0][0]
    assert "| instruction | do it |" in text and "| outcome | success |" in text


def test_one_file_holds_all_episodes_and_one_layout(tmp_path: Path) -> None:
    from rerun.chunk import RrdReader

    store = make_store(tmp_path / "s.zarr", 3)
    log_store(store, store.names, tmp_path / "s.rrd")
    reader = RrdReader(tmp_path / "s.rrd")  # warns, and so fails, when the file lacks its index
    assert len(reader.recordings()) == 3 and len(reader.blueprints()) == 1
    assert {entry.application_id for entry in reader.recordings()} == {"robopolicy-s-zarr"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.rrd", "s.zarr"]


def test_commands_lie_over_the_measurement_of_the_same_name() -> None:
    from robopolicy.datasets.show.dimensions import measured_by

    pose = ArraySpec((3,), units=("m", "m", "m"), names=("x", "y", "z"))
    joints = ArraySpec((2,), units=("rad", "rad"), names=("j", "x"))
    specs = Specs({"cube": pose, "hand": pose, "joints": joints}, absolute("x"), 10.0)
    assert measured_by(specs) == {"x": "joints"}  # "x" of the others is a length, this one an angle
    relative = ActionSpec((ActionPart("joint_delta", ("j",), reference="relative"),))
    assert measured_by(dataclasses.replace(specs, action=relative)) == {}


def absolute(*names: str) -> ActionSpec:
    return ActionSpec((ActionPart("joint_position", names),))


def test_a_failed_export_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", 1)
    sink = tmp_path / "s.rrd"
    sink.write_bytes(b"old")
    frames = tmp_path / "s.zarr/episodes/000000/observation/far/value/c/0/0/0/0"
    frames.write_bytes(frames.read_bytes()[:-40])
    with pytest.raises(StoreError, match="far"):
        log_store(store, store.names, sink)
    assert sink.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.rrd", "s.zarr"]


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", 1)
    with pytest.raises(StoreError, match="000007"):
        log_store(store, ["000007"], tmp_path / "s.rrd")
    with pytest.raises(StoreError, match="no episode named"):
        log_store(store, [], tmp_path / "s.rrd")
    with pytest.raises(ConfigError, match=r"end in \.rrd"):
        log_store(store, store.names, tmp_path / "s.html")
    with pytest.raises(StoreError, match="cannot write"):
        log_store(store, store.names, tmp_path / "absent" / "s.rrd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]


def test_the_viewer_is_reachable_from_this_machine_only(tmp_path: Path) -> None:
    """Rerun's server without its window, as no display is needed for that; it takes an episode as well."""
    psutil = pytest.importorskip("psutil")
    from robopolicy.datasets.show import rerun, viewer

    running = viewer.start_viewer("--serve-grpc")
    try:
        family = [running.process, *psutil.Process(running.process.pid).children(recursive=True)]
        sockets = [c for p in family for c in psutil.Process(p.pid).net_connections("inet")]
        listening = {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        rerun._show(make_store(tmp_path / "s.zarr", 1), ["000000"], running.url)
    finally:
        for process in [*psutil.Process(running.process.pid).children(recursive=True), running.process]:
            process.kill()
        running.process.wait()


def test_a_viewer_that_cannot_start_says_so() -> None:
    from robopolicy.datasets.show import viewer

    with pytest.raises(ConfigError, match="did not start"):
        viewer.start_viewer("--no-such-option")
