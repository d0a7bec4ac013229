"""The store is plain Zarr v3: tensorstore and zarr-python read it bit for bit; what is damaged is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from synthetic import make_episode, make_specs

from robopolicy.core.errors import RobopolicyError, StoreError
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets import arrays, schema
from robopolicy.datasets.draft import DTYPES
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.store import EpisodeStore

COUNT = 6
DEPTH = ArraySpec((4, 5, 1), "uint16", ("mm",), kind="depth")
STATES = make_specs(image=True)
SPECS = Specs({**STATES.observation, "range": DEPTH}, STATES.action, STATES.policy_rate)
SHAPES = [(), (1,), (3,), (2, 3, 4)]  # of one sample; the last makes a 4-D array
#: Values that a detour over another type would change.
EXTREMES = {
    "b": [False, True, True],
    "i": ["min", "max", -1],
    "u": ["max", 0, 1],
    "f": ["max", "tiny", -0.0],
}


def extremes(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(dtype)
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind) if kind.kind in "iu" else None
    values = [getattr(limits, v) if isinstance(v, str) else v for v in EXTREMES[kind.kind]]
    if kind.kind == "f":
        values[1] = limits.smallest_subnormal
    return np.resize(np.array(values, kind), (COUNT, *shape))


def episode_of(specs: Specs, extra: dict[str, np.ndarray]) -> Episode:
    """States and pictures at random, and these extras."""
    whole = make_episode(STATES, COUNT)
    rng = np.random.default_rng(5)
    depth = rng.integers(0, 65536, (COUNT, *DEPTH.shape)).astype(np.uint16)
    depth[2] = 0  # nothing but the fill value must be stored all the same
    times = whole.action.time_ns
    observation = {**whole.observation, "range": Signal(depth, times)}
    return Episode(observation, whole.action, extra={k: Signal(v, times) for k, v in extra.items()})


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> tuple[EpisodeStore, Episode]:
    """One episode with both kinds of camera, lossless, and an extra of every dtype and shape."""
    extra = {f"{d}_{len(s)}_{sum(s)}": extremes(d, s) for d in DTYPES for s in SHAPES}
    codecs = {"scene": "lossless", "range": "lossless"}
    path = tmp_path_factory.mktemp("format") / "s.zarr"
    store = EpisodeStore.create(path, SPECS, image_codec=codecs)
    episode = episode_of(SPECS, extra)
    store.append(episode)
    return EpisodeStore.open(path), episode


def folder_of(store: EpisodeStore) -> Path:
    return store.path / schema.EPISODES / store.names[0]


def assert_same_bits(first: np.ndarray, second: np.ndarray) -> None:
    assert first.dtype == second.dtype and first.shape == second.shape
    assert np.ascontiguousarray(first).tobytes() == np.ascontiguousarray(second).tobytes()


def with_tensorstore(path: Path) -> np.ndarray:
    tensorstore = pytest.importorskip("tensorstore", reason="the independent reader is not installed")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    return np.asarray(tensorstore.open(spec, open=True, read=True).result().read().result())


def with_zarr(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path, mode="r")[...])


def with_us(path: Path) -> np.ndarray:
    root, _, inside = path.as_posix().partition(f"/{schema.EPISODES}/")
    episode, _, name = inside.rpartition("/")[0].partition("/")
    reader = EpisodeStore.open(root).reader(episode)
    return reader.values(name) if path.name == "value" else reader.times(name)


@pytest.mark.parametrize("read", [with_tensorstore, with_zarr, with_us])
def test_every_array_is_read_bit_for_bit(everything, read):
    store, episode = everything
    folder, seen = folder_of(store), set()
    for name, signal in episode.signals():
        path = folder / name
        assert_same_bits(read(path / "value"), signal.value)
        assert_same_bits(read(path / "time_ns"), signal.time_ns)
        seen |= {path / "value", path / "time_ns"}
    stored = {p.parent for p in folder.rglob("zarr.json") if p.parent.name in ("value", "time_ns")}
    assert seen == stored and len(seen) == 2 * (1 + len(SPECS.observation) + len(DTYPES) * len(SHAPES))


@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
)
def test_any_block_is_read_by_others(tmp_path_factory, data, dtype, shape):
    """Arrays alone, without a store around them: any dtype, one to four axes."""
    elements = {"allow_nan": True} if np.dtype(dtype).kind == "f" else None
    value = data.draw(hnp.arrays(dtype, shape, elements=elements))
    metadata, chunk = arrays.block(value)
    folder = tmp_path_factory.mktemp("block")
    file = folder / arrays.chunk_key(metadata)
    file.parent.mkdir(parents=True)
    file.write_bytes(chunk)
    (folder / "zarr.json").write_bytes(arrays.to_json(metadata))
    assert_same_bits(with_tensorstore(folder), value)
    assert_same_bits(with_zarr(folder), value)
    assert_same_bits(arrays.read_block(metadata, chunk, "here"), value)


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("dtype", ["i8", "f4", "u2"])
def test_foreign_byte_order_and_memory_layout_do_not_matter(order, dtype):
    value = np.asfortranarray(np.arange(24).reshape(4, 6).astype(order + dtype))[::2, ::-1]
    metadata, chunk = arrays.block(value)
    back = arrays.read_block(metadata, chunk, "here")
    np.testing.assert_array_equal(back, value)
    assert back.dtype.isnative


def test_consolidated_metadata_says_what_every_file_says(everything):
    folder = folder_of(everything[0])
    tree = json.loads((folder / "zarr.json").read_text())["consolidated_metadata"]
    files = {p.parent.relative_to(folder).as_posix(): p for p in folder.rglob("zarr.json")}
    del files["."]
    assert set(tree["metadata"]) == set(files)
    for name, path in files.items():
        assert json.loads(path.read_text()) == tree["metadata"][name]


def test_zarr_opens_the_consolidated_metadata(everything):
    store, episode = everything
    group = zarr.open_group(folder_of(store), mode="r", use_consolidated=True)
    members = dict(group.members(max_depth=None))
    assert group.metadata.consolidated_metadata is not None
    for name, signal in episode.signals():
        assert members[f"{name}/value"].shape == signal.value.shape
        np.testing.assert_array_equal(members[f"{name}/time_ns"][:], signal.time_ns)
    assert {"observation", "extra"} <= set(group.group_keys())


def test_states_are_one_chunk_and_cameras_one_shard_of_single_frames(everything):
    group = zarr.open_group(folder_of(everything[0]), mode="r")
    for key, spec in SPECS.observation.items():
        array = group[f"observation/{key}/value"]
        if spec.kind == "state":
            assert array.shards is None and array.chunks == array.shape
        else:
            assert array.shards == array.shape and array.chunks == (1, *spec.shape)


def test_attributes_say_what_the_numbers_are(everything):
    store, _ = everything
    root = zarr.open_group(store.path, mode="r")
    assert root.attrs["robopolicy"]["schema_version"] == schema.SCHEMA_VERSION
    assert root.attrs["robopolicy"]["codecs"]["range"]["name"] == "lossless"
    episode = root["episodes/000000"]
    facts = episode.attrs["robopolicy_episode"]
    assert set(facts) == {*schema.EPISODE_FIELDS, "length"} and facts["length"] == COUNT
    for key, spec in SPECS.observation.items():
        said = dict(episode[f"observation/{key}/value"].attrs)
        assert said == {"units": list(spec.units), "names": list(spec.names), "kind": spec.kind}
    action = dict(episode["action/value"].attrs)
    assert action["units"] == list(SPECS.action.units) and action["names"] == list(SPECS.action.names)


# -- damage ------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    """Two cameras, and two extras."""
    store = EpisodeStore.create(tmp_path / "s.zarr", SPECS, image_codec={"scene": "lossless"})
    store.append(episode_of(SPECS, {"flag": extremes("bool", ()), "count": extremes("int64", (3,))}))
    return store


def fresh(store: EpisodeStore) -> EpisodeStore:
    return EpisodeStore.open(store.path)


def chunk_files(store: EpisodeStore) -> list[Path]:
    files = [path for path in sorted(folder_of(store).rglob("c/**/*")) if path.is_file()]
    assert len(files) == 2 * (1 + len(SPECS.observation) + 2)
    return files


def name_of(store: EpisodeStore, chunk: Path) -> str:
    """What messages must name: the signal."""
    parts = chunk.relative_to(folder_of(store)).parts
    return "action" if parts[0] == "action" else "/".join(parts[:2])


def test_a_missing_chunk_is_an_error_and_never_zeros(store):
    for chunk in chunk_files(store):
        kept = chunk.read_bytes()
        chunk.unlink()
        with pytest.raises(StoreError, match=f"episode 000000.*{name_of(store, chunk)}"):
            fresh(store).read("000000")
        chunk.write_bytes(kept)
    assert len(fresh(store).read("000000")) == COUNT


def test_a_file_cut_anywhere_is_noticed(store):
    for chunk in chunk_files(store):
        whole = chunk.read_bytes()
        for size in {0, 1, 3, 4, len(whole) // 2, len(whole) - 5, len(whole) - 4, len(whole) - 1}:
            chunk.write_bytes(whole[:size])
            with pytest.raises(StoreError, match=f"episode 000000.*{name_of(store, chunk)}"):
                fresh(store).read("000000")
        chunk.write_bytes(whole)


def test_bytes_behind_the_end_are_noticed(store):
    for chunk in chunk_files(store):
        whole = chunk.read_bytes()
        chunk.write_bytes(whole + b"\0")
        with pytest.raises(StoreError, match=name_of(store, chunk)):
            fresh(store).read("000000")
        chunk.write_bytes(whole)


@pytest.mark.parametrize("camera", ["scene", "range"])
def test_any_flipped_bit_of_a_shard_index_is_noticed(store, camera):
    (shard,) = [c for c in chunk_files(store) if name_of(store, c).endswith(camera) and "value" in c.parts]
    whole = shard.read_bytes()
    index = whole[-arrays.index_size(COUNT) :]
    assert arrays.read_shard_index(index, COUNT, len(whole), "here").shape == (COUNT, 2)
    for bit in range(8 * len(index)):
        flipped = bytearray(index)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreError, match="here, frame index: checksum"):
            arrays.read_shard_index(bytes(flipped), COUNT, len(whole), "here")
    shard.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    with pytest.raises(StoreError, match=f"observation/{camera}, frame index: checksum"):
        fresh(store).read("000000")


@pytest.mark.parametrize(
    "row", [(2**64 - 1, 2**64 - 1), (0, 10_000), (10_000, 0), (2**62, 2**62), (2**63, 1), (0, 2**63)]
)
def test_an_index_that_points_outside_the_file_is_refused(row):
    """(2^64 - 1, 2^64 - 1) is Zarr's sign for a chunk that is not there: a frame that was never stored."""
    table = arrays.shard_index(np.array([0, row[0]], np.uint64), np.array([8, row[1]], np.uint64))
    with pytest.raises(StoreError, match="here: the frame index points outside the file"):
        arrays.read_shard_index(table, 2, 100 + len(table), "here")


def test_a_missing_or_empty_description_is_refused(store):
    path = folder_of(store) / "zarr.json"
    for text in ["", "[]", "null", "{}", '{"attributes": {}}', '{"consolidated_metadata": null}']:
        path.write_text(text)
        with pytest.raises(StoreError, match=r"episode 000000: zarr\.json is damaged"):
            fresh(store).read("000000")
    path.unlink()
    with pytest.raises(StoreError, match="episode 000000: 'description' cannot be read"):
        fresh(store).read("000000")


def test_a_damaged_description_never_gives_wrong_numbers(store, rng):
    """Descriptions have no checksum of their own (``dataset verify`` holds them against the version's)."""
    path, before = folder_of(store) / "zarr.json", store.read("000000")
    whole, refused = path.read_bytes(), 0
    for bit in rng.integers(0, 8 * len(whole), 500).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            after = fresh(store).read("000000")
        except RobopolicyError as error:
            assert re.search("episode 000000", str(error)), error
            refused += 1
            continue
        now = dict(after.signals())
        for name, was in before.signals():
            assert_same_bits(now[name].value, was.value)
            assert_same_bits(now[name].time_ns, was.time_ns)
    assert 100 < refused < 500
