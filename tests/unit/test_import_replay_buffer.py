"""A ReplayBuffer is copied bit for bit, or refused by episode and frame with nothing left behind."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from numcodecs import Blosc
from rich.console import Console

from robopolicy.core.errors import (
    ConfigError,
    ImportFormatError,
    NonFiniteValueError,
    RunExistsError,
    ShapeError,
    SpecError,
    UnknownNameError,
)
from robopolicy.datasets import importers
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.importers.mapping import load_mapping, shipped
from robopolicy.datasets.importers.source import ImportOptions, Report
from robopolicy.datasets.store import EpisodeStore

ENDS = (4, 9, 11)
MAPPING = {
    "rate": 10.0,
    "instruction": "push",
    "observation": {
        "state": {"from": "state", "units": ["px"] * 4 + ["rad"], "angles": [4]},
        "agent": {"from": "state", "columns": [1, 0]},
        "scene": {"from": "img", "kind": "image"},
    },
    "action": {"from": "action", "parts": [{"space": "planar_position", "names": ["x", "y"]}]},
}
ASKED = ImportOptions()
ARCHIVE = "pusht_human_206/pusht_cchi_v7_replay.zarr.zip"


def frames() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "state": rng.normal(size=(11, 5)).astype(np.float32),
        "action": rng.normal(size=(11, 2)).astype(np.float32),
        "img": rng.integers(0, 256, (11, 6, 6, 3)).astype(np.float32),
        "n_contacts": np.ones((11, 1), np.float32),
    }


def write_folder(path: Path, data: dict[str, np.ndarray], ends=ENDS) -> Path:
    """As diffusion_policy's ReplayBuffer lays it out."""
    root = zarr.create_group(path, zarr_format=2)
    group, meta = root.create_group("data"), root.create_group("meta")
    for name, value in data.items():
        chunks = (5, *value.shape[1:])
        array = group.create_array(
            name, shape=value.shape, dtype=value.dtype, chunks=chunks, compressors=Blosc("zstd")
        )
        array[:] = value
    meta.create_array("episode_ends", shape=(len(ends),), dtype="int64")[:] = np.array(ends)
    return path


def as_zip(folder: Path) -> Path:
    path = folder.with_suffix(".zarr.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def mapping_file(folder: Path, **changes) -> str:
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump({**MAPPING, **changes}))
    return str(path)


def copy(source: Path, options: ImportOptions = ASKED, **changes) -> tuple[EpisodeStore, Report]:
    (source.parent / "out").mkdir(exist_ok=True)
    chosen = dataclasses.replace(options, mapping=mapping_file(source.parent, **changes))
    return import_dataset(
        source, source.parent / "out" / "imported.zarr", chosen, console=Console(quiet=True)
    )


def refuse(
    source: Path, error: type[Exception], message: str, options: ImportOptions = ASKED, **changes
) -> None:
    """The import fails with this error and leaves no file behind."""
    with pytest.raises(error, match=message):
        copy(source, options, **changes)
    assert [p for p in source.parent.rglob("*") if "imported" in p.name] == []


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_every_value_is_copied_bit_for_bit(tmp_path, kind):
    data = frames()
    folder = write_folder(tmp_path / "source", data)
    store, report = copy(folder if kind == "folder" else as_zip(folder))
    assert (len(store), sum(store.facts(name)["length"] for name in store.names)) == (3, 11)
    assert report.ignored == ["n_contacts"]
    assert report.mapped == {"state": "state", "agent": "state", "scene": "img", "action": "action"}
    assert report.converted == ["scene: float32 0..255 to uint8, checked equal"]
    assert "10.0 Hz" in report.guessed[0] and not report.missing
    assert store.specs.observation["scene"].dtype == "uint8"
    for episode, start, stop in zip(store.episodes(), (0, *ENDS), ENDS):
        np.testing.assert_array_equal(episode.observation["state"].value, data["state"][start:stop])
        np.testing.assert_array_equal(episode.observation["agent"].value, data["state"][start:stop, [1, 0]])
        np.testing.assert_array_equal(episode.observation["scene"].value, data["img"][start:stop])
        np.testing.assert_array_equal(episode.action.value, data["action"][start:stop])
        np.testing.assert_array_equal(episode.action.time_ns, np.arange(stop - start) * 100_000_000)
        assert episode.instruction == "push" and episode.success is None


@pytest.mark.parametrize(("key", "name"), [("action", "action"), ("state", "state"), ("img", "scene")])
def test_nan_is_refused_with_episode_and_frame(tmp_path, key, name):
    data = frames()
    data[key][6, ..., -1] = np.nan  # episode 1 begins at frame 4
    source = write_folder(tmp_path / "source", data)
    refuse(source, NonFiniteValueError, rf"episode 1, (observation/)?{name}, frame 2")


@pytest.mark.parametrize("pixel", [0.5, -1.0, 256.0, 1e9])
def test_a_pixel_that_is_no_byte_is_refused_with_its_episode(tmp_path, pixel):
    data = frames()
    data["img"][10, 0, 0, 0] = pixel
    source = write_folder(tmp_path / "source", data)
    refuse(source, ImportFormatError, "episode 2, scene.*0..255")


@pytest.mark.parametrize("ends", [(), (4, 4, 11), (9, 4, 11), (0, 11), (4, 9), (4, 9, 12)])
def test_episode_ends_that_do_not_tile_the_frames_are_refused(tmp_path, ends):
    source = write_folder(tmp_path / "source", frames(), ends)
    refuse(source, ImportFormatError, "episode_ends must increase and end at 11")


def test_a_mapped_key_that_is_missing_lists_those_there_are(tmp_path):
    data = frames()
    del data["img"]
    source = write_folder(tmp_path / "source", data)
    refuse(source, ImportFormatError, r"no data/img; it has \['action', 'n_contacts', 'state'\]")


def test_a_key_with_fewer_frames_than_the_actions_is_refused(tmp_path):
    data = frames()
    data["state"] = data["state"][:8]
    refuse(write_folder(tmp_path / "source", data), ShapeError, "episode 1, (state|agent)")


def test_a_mapping_of_other_columns_is_refused(tmp_path):
    source = write_folder(tmp_path / "source", frames())
    parts = [{"space": "planar_position", "names": ["x", "y", "z"]}]
    refuse(source, ImportFormatError, "the mapping says 3", action={"from": "action", "parts": parts})
    refuse(
        source,
        ImportFormatError,
        r"data/state has 5 columns.*\(0, 5\)",
        observation={"s": {"from": "state", "columns": [0, 5]}},
    )


def test_what_is_not_an_archive_is_refused_by_name(tmp_path):
    whole = as_zip(write_folder(tmp_path / "source", frames())).read_bytes()
    wrong = {
        "absent.zip": None,
        "text.zip": b"this is no zip",
        "empty.zip": b"",
        "cut.zip": whole[: len(whole) // 2],
        "cut_at_the_end.zip": whole[:-10],
    }
    for name, content in wrong.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        refuse(tmp_path / name, ImportFormatError, re.escape(name))
    (tmp_path / "folder").mkdir()
    refuse(tmp_path / "folder", ImportFormatError, "folder")
    zarr.create_group(tmp_path / "v3")
    refuse(tmp_path / "v3", ImportFormatError, "v3")
    zarr.create_group(tmp_path / "v2", zarr_format=2)
    refuse(tmp_path / "v2", ImportFormatError, "no data/ group or meta/episode_ends")


def test_a_damaged_chunk_is_refused(tmp_path):
    source = write_folder(tmp_path / "source", frames())
    (chunk,) = [p for p in (source / "data" / "action").iterdir() if p.name.startswith("0")]
    chunk.write_bytes(chunk.read_bytes()[:8])
    refuse(source, ImportFormatError, "episode 0, action")


def test_an_existing_destination_is_kept(tmp_path):
    source = write_folder(tmp_path / "source", frames())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "imported.zarr").write_text("mine")
    with pytest.raises(RunExistsError, match=r"imported\.zarr already exists"):
        copy(source)
    assert (tmp_path / "out" / "imported.zarr").read_text() == "mine"


def test_a_neighbouring_folder_is_not_swept_away(tmp_path):
    precious = tmp_path / "out" / "imported.zarr.partial" / "precious"  # once the name of the draft
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    copy(write_folder(tmp_path / "source", frames()))
    assert precious.read_text() == "mine"


def test_an_unknown_importer_or_mapping_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match=r"known: .*replay_buffer"):
        importers.load("nope")
    with pytest.raises(UnknownNameError, match=r"known: .*pusht"):
        load_mapping("nope")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_mapping_is_valid(name):
    assert load_mapping(name).observation


@pytest.mark.parametrize("name", importers.names())
def test_every_importer_offers_the_seam(name):
    assert callable(importers.load(name).matches) and callable(importers.load(name).open_source)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"colour": "red"}, SpecError, r"unknown fields \['colour'\]; known: .*'rate'"),
        ({"rate": "ten"}, SpecError, "rate: expected float"),
        ({"observation": {"a": {"from": "x", "typo": 1}}}, SpecError, r"observation.a: unknown .*'typo'"),
        ({"action": {"parts": []}}, SpecError, "source|from"),
        ({"action": {"from": "a", "parts": [{"space": "?", "names": ["a"]}]}}, SpecError, "not one of"),
    ],
)
def test_a_wrong_mapping_is_refused_by_field(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        load_mapping(mapping_file(tmp_path, **changes))


@pytest.mark.parametrize("text", ["a: [", "\t", "- 1\n- 2", ""])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, text):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises((ConfigError, SpecError), match=r"odd\.yaml"):
        load_mapping(str(path))


def read_zip_directly(path: Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One float32 array of a Zarr v2 archive without any Zarr library: chunk files, decoded and joined."""
    from numcodecs import get_codec

    with zipfile.ZipFile(path) as archive:
        prefix = next(n for n in archive.namelist() if n.endswith(f"data/{key}/.zarray"))[: -len(".zarray")]
        facts = json.load(io.TextIOWrapper(archive.open(prefix + ".zarray")))
        codec, rows = get_codec(facts["compressor"]), facts["chunks"][0]
        assert facts["chunks"][1:] == list(shape[1:]) and facts["order"] == "C" and not facts["filters"]
        chunks = []
        for index in range(-(-facts["shape"][0] // rows)):
            name = prefix + ".".join([str(index)] + ["0"] * (len(shape) - 1))
            raw = np.frombuffer(codec.decode(archive.read(name)), facts["dtype"])
            chunks.append(raw.reshape(rows, *shape[1:]))
    return np.concatenate(chunks)[: facts["shape"][0]]


def test_the_push_t_demonstrations_come_in_bit_for_bit(tmp_path, shared_data):
    source = shared_data(ARCHIVE)
    tree = yaml.safe_load((importers.MAPPINGS / "pusht.yaml").read_text())
    for slow in ("pixels", "keypoint"):  # for speed
        del tree["observation"][slow]
    options = ImportOptions(mapping_file(tmp_path, **tree))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store, _ = import_dataset(source, tmp_path / "pusht.zarr", options, console=Console(quiet=True))
    assert (len(store), sum(store.facts(name)["length"] for name in store.names)) == (206, 25_650)
    store = EpisodeStore.open(tmp_path / "pusht.zarr")
    state, action = (read_zip_directly(source, k, (25_650, d)) for k, d in (("state", 5), ("action", 2)))
    start = 0
    for episode in store.episodes():
        stop = start + len(episode)
        np.testing.assert_array_equal(episode.observation["state"].value, state[start:stop])
        np.testing.assert_array_equal(episode.observation["agent_pos"].value, state[start:stop, :2])
        np.testing.assert_array_equal(episode.action.value, action[start:stop])
        start = stop
    assert start == 25_650
