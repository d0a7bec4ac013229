"""UMI's archives: image codecs, and an action that is the pose one frame later."""

from __future__ import annotations

import json
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from numcodecs import Blosc
from rich.console import Console

from robopolicy.core.errors import ConfigError, ImportFormatError, MissingDependencyError, SpecError
from robopolicy.core.geometry import matrix_from_rotation_6d
from robopolicy.datasets.importers._frames import rotation_6d_from_axis_angle
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.importers.replay_buffer.zarr_v2 import open_archive
from robopolicy.datasets.importers.source import ImportOptions

ENDS = (4, 9, 11)
UMI = ImportOptions("umi")


def arrays(frames: int = ENDS[-1]) -> dict[str, np.ndarray]:
    """Names, dtypes and ranges as UMI's SLAM pipeline writes them."""
    rng = np.random.default_rng(0)
    return {
        "robot0_eef_pos": rng.normal(size=(frames, 3)).astype(np.float32),
        "robot0_eef_rot_axis_angle": rng.uniform(-2, 2, (frames, 3)).astype(np.float32),
        "robot0_gripper_width": rng.uniform(0, 0.08, (frames, 1)).astype(np.float32),
        "robot0_demo_start_pose": rng.normal(size=(frames, 6)),
        "camera0_rgb": rng.integers(0, 256, (frames, 24, 32, 3), dtype=np.uint8),
    }


def write(path: Path, data: dict[str, np.ndarray], compressor=None, ends=ENDS) -> Path:
    """A folder; the camera in chunks of one frame, coded as an image when a compressor is given."""
    root = zarr.create_group(path, zarr_format=2)
    for name, value in data.items():
        rows = 1 if value.ndim == 4 else len(value)
        coded = {"compressors": compressor} if compressor is not None and value.ndim == 4 else {}
        array = root.create_array(
            f"data/{name}", shape=value.shape, dtype=value.dtype, chunks=(rows, *value.shape[1:]), **coded
        )
        array[:] = value
    root.create_array("meta/episode_ends", shape=(len(ends),), dtype="int64")[:] = np.array(ends)
    return path


def copy(source: Path, options: ImportOptions = UMI):
    return import_dataset(source, source.parent / "imported.zarr", options, console=Console(quiet=True))


def refuse(source: Path, error: type[Exception], message: str, options: ImportOptions = UMI) -> None:
    with pytest.raises(error, match=message):
        copy(source, options)
    assert [p for p in source.parent.iterdir() if "imported" in p.name] == []


@pytest.mark.parametrize("coder", ["Jpegxl", "Jpeg2k"])
def test_an_umi_archive_comes_in_with_its_next_pose_as_the_action(tmp_path, coder):
    codecs = pytest.importorskip("imagecodecs.numcodecs", reason="needs imagecodecs")
    lossless = {"lossless": True} if coder == "Jpegxl" else {"reversible": True, "level": 0}
    data = arrays()
    store, report = copy(write(tmp_path / "umi.zarr", data, getattr(codecs, coder)(**lossless)))
    rotation = rotation_6d_from_axis_angle(data["robot0_eef_rot_axis_angle"]).astype(np.float32)
    pose = np.concatenate([data["robot0_eef_pos"], rotation, data["robot0_gripper_width"]], axis=-1)
    assert store.specs.action.reached == "end" and store.specs.action.dim == 10
    for episode, start, stop in zip(store.episodes(), (0, *ENDS[:-1]), ENDS, strict=True):
        np.testing.assert_array_equal(episode.action.value, pose[start + 1 : stop])
        np.testing.assert_array_equal(episode.observation["wrist"].value, data["camera0_rgb"][start:stop])
        np.testing.assert_array_equal(episode.observation["eef_rotation"].value, rotation[start:stop])
        np.testing.assert_array_equal(episode.observation["eef_pos"].value, pose[start:stop, :3])
        expected = np.round(np.arange(stop - start) * 1e9 / 59.94)
        np.testing.assert_array_equal(episode.observation["wrist"].time_ns, expected)
        np.testing.assert_array_equal(episode.action.time_ns, expected[:-1])
    assert report.ignored == ["robot0_demo_start_pose"]
    assert any("1 frame(s) later" in line for line in report.guessed)
    assert any("axis_angle_to_rotation_6d" in line for line in report.converted)


def test_axis_angle_becomes_the_same_rotation():
    from scipy.spatial.transform import Rotation

    vectors = np.random.default_rng(0).normal(size=(200, 3)) * 2
    vectors[:4] = [[0, 0, 0], [1e-12, 0, 0], [np.pi, 0, 0], [0, 3e-8, -1e-8]]
    ours = matrix_from_rotation_6d(rotation_6d_from_axis_angle(vectors))
    np.testing.assert_allclose(ours, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_an_image_codec_without_its_package_is_named(tmp_path, monkeypatch):
    source = write(tmp_path / "umi.zarr", arrays())
    header = source / "data" / "camera0_rgb" / ".zarray"
    header.write_text(
        json.dumps({**json.loads(header.read_text()), "compressor": {"id": "imagecodecs_tiff"}})
    )
    monkeypatch.setitem(sys.modules, "imagecodecs.numcodecs", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    refuse(source, MissingDependencyError, "imagecodecs_tiff: pip install imagecodecs")


@pytest.mark.parametrize("codec", [{"id": "pickle"}, {"id": "nope"}, {"name": "blosc"}, "blosc"])
def test_a_codec_that_is_not_known_is_refused_before_it_runs(tmp_path, codec):
    source = write(tmp_path / "umi.zarr", arrays())
    header = source / "data" / "robot0_eef_pos" / ".zarray"
    header.write_text(json.dumps({**json.loads(header.read_text()), "filters": [codec]}))
    refuse(source, ImportFormatError, "data/robot0_eef_pos")


def test_without_a_mapping_the_known_ones_are_listed(tmp_path):
    refuse(write(tmp_path / "umi.zarr", arrays()), ConfigError, "camera0_rgb.*pusht.*umi", ImportOptions())


def test_an_episode_of_one_frame_has_no_next_pose(tmp_path):
    source = write(tmp_path / "umi.zarr", arrays(), ends=(4, 5, 11))
    refuse(source, ImportFormatError, "episode 1: too short for an action 1 frames ahead")


def test_a_lacking_chunk_is_refused_or_its_episode_left_out(tmp_path):
    source = write(tmp_path / "umi.zarr", arrays())
    (source / "data" / "camera0_rgb" / "5.0.0.0").unlink()  # of episode 1
    refuse(source, ImportFormatError, "episode 1: data/camera0_rgb lacks frames 5 to 5.*skip-missing")
    store, report = copy(source, ImportOptions("umi", skip_missing=True))
    assert [episode.metadata["source_episode"] for episode in store.episodes()] == [0, 2]
    assert len(report.missing) == 1 and "lacks frames 5 to 5" in report.missing[0]


def test_cameras_and_episodes_can_be_left_out(tmp_path):
    source = write(tmp_path / "umi.zarr", arrays())
    store, report = copy(source, ImportOptions("umi", without=("camera0_rgb",), episodes=(2, 0)))
    assert [episode.metadata["source_episode"] for episode in store.episodes()] == [0, 2]
    assert "wrist" not in store.specs.observation and "camera0_rgb" in report.ignored
    (tmp_path / "imported.zarr").rename(tmp_path / "kept")
    refuse(source, SpecError, "the action needs", ImportOptions("umi", without=("robot0_eef_pos",)))
    refuse(
        source, ImportFormatError, r"no episodes \[7\]; it has 0 to 2", ImportOptions("umi", episodes=(7,))
    )


def test_a_zip_with_a_name_twice_is_refused(tmp_path):
    folder, path = write(tmp_path / "umi.zarr", arrays()), tmp_path / "umi.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's own, of the duplicate
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder))
        archive.writestr("data/robot0_eef_pos/0.0", b"another")
    refuse(path, ImportFormatError, "data/robot0_eef_pos/0.0 more than once")


@pytest.mark.parametrize(
    "change",
    [
        lambda chunk: chunk[:-1],
        lambda chunk: chunk[:9],
        lambda chunk: b"",
        lambda chunk: chunk[:4] + b"\xff\xff\xff\x7f" + chunk[8:],  # says 2 GiB when decoded
        lambda chunk: chunk[:12] + b"\xff\xff\xff\x7f" + chunk[16:],  # says 2 GiB of its own
        lambda chunk: chunk + b"more",
    ],
)
def test_a_blosc_chunk_that_would_take_the_process_down_is_refused(tmp_path, change):
    source = write(tmp_path / "umi.zarr", arrays(), Blosc("zstd"))
    chunk = source / "data" / "camera0_rgb" / "4.0.0.0"
    chunk.write_bytes(change(chunk.read_bytes()))
    refuse(source, ImportFormatError, "episode 1, wrist.*camera0_rgb cannot be decoded")


@pytest.mark.parametrize(
    "settings", [{"order": "F"}, {"dimension_separator": "/"}, {"big": True}, {"zip": True}]
)
def test_every_layout_of_zarr_v2_is_read(tmp_path, settings):
    """Chunks that split the picture too, as the zarr package writes them."""
    video = arrays()["camera0_rgb"].astype(">i2" if "big" in settings else "u1")
    path = tmp_path / "a.zarr"
    root = zarr.create_group(path, zarr_format=2)
    key = (
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if "dimension_separator" in settings else {}
    )
    order = {"order": "F"} if "order" in settings else {}
    kind = {"shape": video.shape, "dtype": video.dtype, "chunks": (4, 10, 20, 2)}
    root.create_array("data/img", **kind, **key, **order)[:] = video
    if "zip" in settings:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(path))
        path = tmp_path / "a.zip"
    with open_archive(path) as archive:
        array = archive.array("data/img")
        assert archive.missing_frames("data/img", array) == []
        np.testing.assert_array_equal(array.read(0, 11), video)
        np.testing.assert_array_equal(array.read(3, 9), video[3:9])


def test_an_absurd_header_is_refused_without_an_absurd_effort(tmp_path):
    source = write(tmp_path / "umi.zarr", arrays())
    header = source / "data" / "camera0_rgb" / ".zarray"
    tree = json.loads(header.read_text())
    for change, message in (
        ({"chunks": [11, 60000, 60000, 3]}, "chunks of .* are larger"),
        ({"shape": [11, 10**9, 10**9, 3]}, "camera0_rgb"),
        ({"dtype": "|O"}, "camera0_rgb"),
        ({"dtype": [["a", "<f4"]]}, "camera0_rgb"),
        ({"chunks": [0, 24, 32, 3]}, "camera0_rgb"),
    ):
        header.write_text(json.dumps({**tree, **change}))
        refuse(source, ImportFormatError, message)


def test_every_chunk_is_decoded_once_and_memory_is_a_window(tmp_path):
    frames, rows = 3000, 50
    video = np.random.default_rng(0).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)
    root = zarr.create_group(tmp_path / "long.zarr", zarr_format=2)
    root.create_array("data/img", shape=video.shape, dtype="u1", chunks=(rows, 32, 32, 3))[:] = video
    with open_archive(tmp_path / "long.zarr") as archive:
        array, loads = archive.array("data/img"), []
        load = array._load
        array._load = lambda first, last: (loads.append((first, last)), load(first, last))[1]
        tracemalloc.start()
        for start in range(0, frames, 64):
            stop = min(start + 64, frames)
            np.testing.assert_array_equal(array.read(start, stop), video[start:stop])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert [first for first, _ in loads[1:]] == [last for _, last in loads[:-1]]  # nothing twice
    assert (loads[0][0], loads[-1][1]) == (0, frames)
    assert peak < video.nbytes / 4


def test_a_mapping_needs_one_way_to_its_action(tmp_path):
    tree = {"rate": 1.0, "observation": {}, "action": {"parts": [{"space": "normalised", "names": ["a"]}]}}
    path = tmp_path / "m.yaml"
    for extra, message in (
        ({}, "either 'from' .* or 'join'"),
        ({"from": "a", "join": [{"from": "a"}]}, "either 'from' .* or 'join'"),
        ({"from": "a", "ahead": -1}, "ahead must be 0 or more"),
        ({"join": [{"from": "a", "convert": "nope"}]}, "'nope' is not one of"),
    ):
        path.write_text(yaml.safe_dump({**tree, "action": {**tree["action"], **extra}}))
        refuse(write_once(tmp_path), SpecError, message, ImportOptions(str(path)))


def write_once(folder: Path) -> Path:
    path = folder / "umi.zarr"
    return path if path.exists() else write(path, arrays())
