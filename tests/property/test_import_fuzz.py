"""Whatever happens to the bytes of a foreign dataset, importing ends in a store or in a typed error.

Each example damages a small valid source (bits flipped, a range zeroed, a file cut short or deleted) and
imports it. A success must be readable; a failure must be a RobopolicyError and leave nothing behind.
``ROBOPOLICY_FUZZ_EXAMPLES=3000 pytest tests/property/test_import_fuzz.py`` searches longer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc
from rich.console import Console

from robopolicy.core.errors import RobopolicyError
from robopolicy.datasets import importers
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.importers.source import ImportOptions

TESTS = Path(__file__).resolve().parents[1]
EXAMPLES = int(os.environ.get("ROBOPOLICY_FUZZ_EXAMPLES", "60"))
MAPPING = {
    "rate": 10.0,
    "observation": {"state": {"from": "state"}, "scene": {"from": "img", "kind": "image"}},
    "action": {"from": "action", "parts": [{"space": "planar_position", "names": ["x", "y"]}]},
}


def tiny_replay_buffer(folder: Path) -> tuple[Path, ImportOptions]:
    """Three episodes in eleven frames, one array in several chunks, as a folder."""
    rng, path = np.random.default_rng(0), folder / "source.zarr"
    root = zarr.create_group(path, zarr_format=2)
    for name, value in {
        "data/state": rng.normal(size=(11, 5)),
        "data/action": rng.normal(size=(11, 2)).astype(np.float32),
        "data/img": rng.integers(1, 256, (11, 4, 4, 3)).astype(np.float32),
        "meta/episode_ends": np.array([4, 9, 11]),
    }.items():
        array = root.create_array(
            name,
            shape=value.shape,
            dtype=value.dtype,
            chunks=(5, *value.shape[1:]),
            compressors=Blosc("zstd"),
        )
        array[:] = value
    (folder / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    return path, ImportOptions(str(folder / "mapping.yaml"))


def tiny_replay_buffer_zip(folder: Path) -> tuple[Path, ImportOptions]:
    source, options = tiny_replay_buffer(folder)
    path = folder / "source.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(source))
    shutil.rmtree(source)
    return path, options


def tiny_robomimic(folder: Path) -> tuple[Path, ImportOptions]:
    """Two demonstrations, some of the arrays compressed in chunks; no mapping, so env_args are read."""
    rng, path = np.random.default_rng(0), folder / "source.hdf5"
    with h5py.File(path, "w") as file:
        for number, length in enumerate((5, 3)):
            demo = file.create_group(f"data/demo_{number}")
            for group in ("obs", "next_obs"):
                image = rng.integers(0, 256, (length, 4, 4, 3), dtype=np.uint8)
                demo.create_dataset(
                    f"{group}/view_image", data=image, chunks=(2, 4, 4, 3), compression="gzip"
                )
                demo.create_dataset(f"{group}/robot0_eef_pos", data=rng.normal(size=(length, 3)))
            demo.create_dataset("actions", data=rng.uniform(-1, 1, (length, 7)))
            demo.create_dataset("rewards", data=np.arange(length) // (length - 1))
            demo.attrs["num_samples"] = length
            demo.attrs["ep_meta"] = '{"lang": "lift"}'
        file["data"].attrs["env_args"] = (
            '{"type": 1, "env_kwargs": {"control_freq": 20, "controller_configs": {}}}'
        )
        file.create_dataset("mask/train", data=np.array(["demo_0"], dtype="S"))
    return path, ImportOptions()


def tiny_lerobot(folder: Path) -> tuple[Path, ImportOptions]:
    """What LeRobot itself wrote, with AV1 video."""
    shutil.copytree(TESTS / "data" / "lerobot_v3", folder / "source", ignore=shutil.ignore_patterns("*.md"))
    return folder / "source", ImportOptions()


#: Format to makers of its smallest valid sources: ``maker(folder) -> (source, options)``. All of it must
#: lie in ``folder``; a file beside the source (a mapping) is not damaged. A new importer adds its line here.
TINY: dict[str, list[Callable[[Path], tuple[Path, ImportOptions]]]] = {
    "replay_buffer": [tiny_replay_buffer, tiny_replay_buffer_zip],
    "robomimic": [tiny_robomimic],
    "lerobot": [tiny_lerobot],
}
#: Formats whose own tests damage their sources: bags come in two storages and four compressions.
ELSEWHERE = {"rosbag2": "unit/test_import_rosbag2.py"}


@dataclass(frozen=True)
class Damage:
    """One accident to one file; places are shares of the number of files, or of the file's size."""

    kind: str
    file: float
    place: float
    size: int
    bits: int

    def apply(self, source: Path) -> None:
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        files = [p for p in files if p.exists()]
        if not files:
            return
        path = files[int(self.file * len(files))]
        data = bytearray(path.read_bytes())
        start = int(self.place * len(data))
        stop = min(start + self.size, len(data))
        if self.kind == "delete":
            path.unlink()
            return
        if self.kind == "cut":
            del data[start:]
        elif self.kind == "remove":
            del data[start:stop]
        elif self.kind == "zero":
            data[start:stop] = bytes(stop - start)
        elif start < len(data):
            data[start] ^= self.bits
        path.write_bytes(data)


share = st.floats(0, 1, exclude_max=True)
damage = st.builds(
    Damage,
    kind=st.sampled_from(["flip", "flip", "flip", "zero", "remove", "cut", "delete"]),
    file=share,
    place=share,
    size=st.integers(1, 64),
    bits=st.integers(1, 255),
)


@pytest.fixture(scope="module")
def intact(
    tmp_path_factory,
) -> Callable[[Callable[[Path], tuple[Path, ImportOptions]]], tuple[Path, ImportOptions]]:
    """Each source is made once; examples damage copies of it."""
    made: dict[str, tuple[Path, ImportOptions]] = {}

    def get(maker: Callable[[Path], tuple[Path, ImportOptions]]) -> tuple[Path, ImportOptions]:
        if maker.__name__ not in made:
            made[maker.__name__] = maker(tmp_path_factory.mktemp(maker.__name__))
        return made[maker.__name__]

    return get


def import_copy(source: Path, options: ImportOptions, format: str, accidents: list[Damage]) -> bool:
    """Whether a damaged copy still came in; raises whatever is not a typed error."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied = folder / source.name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copied)
        for accident in accidents:
            accident.apply(copied)
        try:
            store, _ = import_dataset(
                copied, folder / "imported", options, format=format, console=Console(quiet=True)
            )
        except RobopolicyError as error:
            assert str(error)
            assert [p.name for p in folder.iterdir() if "imported" in p.name] == []
            return False
        assert len(list(store.episodes())) == len(store) > 0
        return True


MAKERS = [(name, maker) for name, makers in TINY.items() for maker in makers]


@pytest.mark.parametrize(("format", "maker"), MAKERS, ids=[maker.__name__ for _, maker in MAKERS])
def test_damage_ends_in_a_store_or_a_typed_error(intact, format, maker):
    source, options = intact(maker)
    assert import_copy(source, options, format, [])  # or else every example would fail for its own reasons

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(st.lists(damage, min_size=1, max_size=3))
    def check(accidents: list[Damage]) -> None:
        import_copy(source, options, format, accidents)

    check()


@pytest.mark.parametrize("format", importers.names())
def test_every_importer_has_a_source_to_damage(format):
    if format in ELSEWHERE:
        assert "@given" in (TESTS / ELSEWHERE[format]).read_text()
    else:
        assert TINY[format]
