"""One wrong bit anywhere in a store is found, and its place is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from power import UnsyncedFiles
from stores import make_store
from synthetic import assert_same_episode, make_episode, make_specs

from robopolicy.core.errors import StoreError
from robopolicy.datasets import arrays
from robopolicy.datasets.integrity import Damage, verify
from robopolicy.datasets.store import EpisodeStore

NAME = "000001"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Three episodes; every test leaves them as they were."""
    return make_store(tmp_path_factory.mktemp("integrity") / "s.zarr", (3, 4, 3)).path


def files_of(path: Path) -> Iterator[tuple[Path, str, bytes]]:
    """File, its name in the episode, and its bytes, which are put back afterwards."""
    folder = path / "episodes" / NAME
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = file.read_bytes()
        yield file, file.relative_to(folder).as_posix(), data
        file.write_bytes(data)


def look(path: Path) -> list[Damage]:
    return verify(EpisodeStore.open(path))


def flipped(data: bytes, at: int, bit: int = 3) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def expect(name: str) -> tuple[str, str]:
    """Signal (or group) and chunk that stand for a file of an episode."""
    if name.endswith("zarr.json"):
        return name.removesuffix("zarr.json").rstrip("/"), "zarr.json"
    key, _, chunk = name.partition("/c/")
    return key, f"c/{chunk}"


def test_a_sound_store_has_no_damage(path):
    told = []
    store = EpisodeStore.open(path)
    assert verify(store, on_progress=lambda done, total: told.append((done, total))) == []
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert verify(store, [NAME]) == []


def test_every_file_of_an_episode_is_covered(path):
    names = {name for _, name, _ in files_of(path)}
    assert names == set(EpisodeStore.open(path).reader(NAME).file_names())


@pytest.mark.parametrize("how", ["cut", "emptied", "removed", "longer"])
def test_a_cut_or_missing_file_is_named(path, how):
    for file, name, data in files_of(path):
        if how == "removed":
            file.unlink()
        else:
            file.write_bytes({"cut": data[: len(data) // 2], "emptied": b"", "longer": data + b"x"}[how])
        damages = look(path)
        key, chunk = expect(name)
        assert damages and {damage.episode for damage in damages} == {NAME}, name
        if how == "longer" and name == "zarr.json":  # white space at its end: only the SHA-256 tells
            continue
        assert (damages[0].key, damages[0].chunk) == (key, chunk), damages
        assert NAME in damages[0].message
        assert all(damage.episode == NAME for damage in damages)


def test_one_flipped_bit_in_any_chunk_names_signal_and_chunk_or_frame(path):
    places = EpisodeStore.open(path).reader(NAME).frames("observation/scene").places
    for file, name, data in files_of(path):
        if name.endswith("zarr.json"):
            continue
        for at in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            file.write_bytes(flipped(data, at))
            (damage,) = look(path)
            key, chunk = expect(name)
            hit = [i for i, (start, size) in enumerate(places.tolist()) if start <= at < start + size]
            if key == "observation/scene/value" and hit:
                chunk = f"frame {hit[0]}"
            assert (damage.episode, damage.key, damage.chunk) == (NAME, key, chunk)
            with pytest.raises(StoreError, match=f"{NAME}.*{key.rpartition('/')[0]}"):
                EpisodeStore.open(path).read(NAME)


def test_each_frame_of_a_camera_has_a_checksum_of_its_own(path):
    store = EpisodeStore.open(path)
    places = store.reader(NAME).frames("observation/scene").places.tolist()
    file = path / "episodes" / NAME / "observation/scene/value/c/0/0/0/0"
    data = bytearray(file.read_bytes())
    before = bytes(data)
    for frame in (1, 3):
        data[places[frame][0] + 7] ^= 1
    file.write_bytes(bytes(data))
    assert [damage.chunk for damage in look(path)] == ["frame 1", "frame 3"]
    file.write_bytes(before)


def test_one_flipped_bit_in_a_description_names_its_signal(path):
    for file, name, data in files_of(path):
        if not name.endswith("zarr.json") or name == "zarr.json":
            continue
        for at in range(3, len(data), max(1, len(data) // 6)):
            file.write_bytes(flipped(data, at, at % 7))
            (damage,) = look(path)
            assert (damage.episode, (damage.key, damage.chunk)) == (NAME, expect(name))


def test_no_bit_of_an_episode_s_main_description_goes_unnoticed_or_breaks_the_reader(path):
    """It names episode and array where that can be known; reading either works or is a StoreError."""
    file = path / "episodes" / NAME / "zarr.json"
    data = file.read_bytes()
    store = EpisodeStore.open(path)
    named = 0
    for at in range(0, len(data), 41):
        for bit in (at % 8, (at + 3) % 8):
            file.write_bytes(flipped(data, at, bit))
            damages = verify(store, [NAME])
            assert damages and {damage.episode for damage in damages} == {NAME}, (at, bit)
            named += bool(damages[0].key or damages[0].chunk)
            try:
                store.read(NAME)
            except StoreError as error:
                assert NAME in str(error)
    file.write_bytes(data)
    assert named > 300 and verify(store) == []


def test_episodes_whose_folders_were_swapped_are_found(tmp_path):
    """Every checksum inside fits; only what the version recorded tells."""
    path = make_store(tmp_path / "s.zarr", (4, 4, 4)).path
    episodes = path / "episodes"
    (episodes / "000000").rename(tmp_path / "aside")
    (episodes / "000002").rename(episodes / "000000")
    (tmp_path / "aside").rename(episodes / "000002")
    damages = look(path)
    assert [(damage.episode, damage.key) for damage in damages] == [("000000", ""), ("000002", "")]
    assert all("SHA-256 differs" in damage.message for damage in damages)


def test_a_file_swapped_for_one_of_another_episode_is_found(tmp_path):
    path = make_store(tmp_path / "s.zarr", (4, 4)).path
    chunk = "observation/goal/value/c/0/0"
    shutil.copy(path / "episodes/000000" / chunk, path / "episodes/000001" / chunk)
    (damage,) = look(path)
    assert damage.episode == "000001" and "SHA-256 differs" in damage.message


def test_a_whole_episode_that_is_gone_is_named(tmp_path):
    path = make_store(tmp_path / "s.zarr", (4, 4)).path
    shutil.rmtree(path / "episodes/000001")
    (damage,) = look(path)
    assert (damage.episode, damage.chunk) == ("000001", "zarr.json")


def test_only_what_the_version_holds_is_looked_at(path, tmp_path):
    old = EpisodeStore.open(path, 1)
    file = path / "episodes" / NAME / "action/value/c/0/0"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    assert verify(old) == [] and verify(EpisodeStore.open(path), ["000000", "000002"]) == []
    assert [damage.episode for damage in look(path)] == [NAME]
    file.write_bytes(data)


@pytest.mark.parametrize("codec", ["lossless", "png", "jpeg"])
def test_every_codec_is_covered(tmp_path, codec):
    specs = make_specs(image=True).select(("scene",))
    store = EpisodeStore.create(tmp_path / "s.zarr", specs, image_codec=codec, files=UnsyncedFiles())
    store.append(make_episode(specs, 3))
    shard = store.path / "episodes/000000/observation/scene/value/c/0/0/0/0"
    data = shard.read_bytes()
    places = store.reader("000000").frames("observation/scene").places.tolist()
    assert places[-1][0] + places[-1][1] + arrays.index_size(len(places)) == len(data)
    for frame, (start, size) in enumerate(places):
        for at in (start, start + size // 2, start + size - 1):
            shard.write_bytes(flipped(data, at))
            assert [damage.chunk for damage in look(store.path)] == [f"frame {frame}"]


def test_a_frame_that_fits_its_checksum_but_not_its_codec_is_named(tmp_path):
    """As a recorder with a bug would write it: only decoding tells."""
    import google_crc32c

    store = make_store(tmp_path / "s.zarr", (3,))
    shard = store.path / "episodes/000000/observation/scene/value/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    start, size = store.reader("000000").frames("observation/scene").places.tolist()[1]
    body = bytes(size - 4)
    data[start : start + size] = body + google_crc32c.value(body).to_bytes(4, "little")
    shard.write_bytes(bytes(data))
    damages = look(store.path)
    assert [damage.chunk for damage in damages] == ["frame 1"] and "cannot be decoded" in damages[0].message


def test_units_that_somebody_edited_are_found(tmp_path):
    """Nothing else in the store depends on them, so the checksum must."""
    store = make_store(tmp_path / "s.zarr", (3,))
    whole = store.read("000000")
    for name in ("zarr.json", "observation/goal/value/zarr.json"):
        file = store.path / "episodes/000000" / name
        before = file.read_text()
        assert '"rad"' in before
        file.write_text(before.replace('"rad"', '"deg"'))
        json.loads(file.read_text())
        damages = [d for d in look(store.path) if d.key]
        assert "observation/goal/value" in {d.key for d in damages}
        assert all("differ" in d.message for d in damages)
        file.write_text(before)
    assert_same_episode(EpisodeStore.open(store.path).read("000000"), whole)
