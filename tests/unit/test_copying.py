"""Copies hold the same bytes under new names, or nothing is made."""

from __future__ import annotations

import dataclasses
import re

import pytest
from power import UnsyncedFiles
from stores import SPECS, hashes, make_store, run_python
from synthetic import assert_same_episode, make_specs

from robopolicy.core.errors import ConfigError, RunExistsError, SpecError, StoreError
from robopolicy.core.specs import ActionPart, ActionSpec
from robopolicy.datasets import copying, editing
from robopolicy.datasets.editing import Relabel
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.store import EpisodeStore


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    return make_store(tmp_path / "s.zarr")


def data_of(store: EpisodeStore) -> list[str]:
    return [entry.data for entry in store.entries.values()]


def test_several_stores_become_one_in_the_order_given(tmp_path, store):
    other = make_store(tmp_path / "o.zarr", (4, 6), first=50)
    told = []
    parts = [(other, other.names), (store, ["000002", "000000"])]
    merged = copying.merge(parts, tmp_path / "m.zarr", lambda done, total: told.append((done, total)))
    assert merged.names == ["000000", "000001", "000002", "000003"]
    assert [entry.seed for entry in merged.entries.values()] == [50, 51, 2, 0]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for name, (source, old) in zip(merged.names, [(s, n) for s, names in parts for n in names]):
        assert_same_episode(merged.read(name), source.read(old))
        folder = f"episodes/{name}"
        assert hashes(merged.path / folder) == hashes(source.path / "episodes" / old)
    assert data_of(merged) == [*data_of(other), data_of(store)[2], data_of(store)[0]]
    assert verify(merged) == []


def test_a_copy_says_where_it_came_from(tmp_path, store):
    editing.delete(store, ["000001"])
    copied = copying.merge([(store, store.names)], tmp_path / "c.zarr")
    (origin,) = copied.metadata["copied_from"]
    assert copied.metadata["made"] == "by a test"
    assert origin == {
        "store": str(store.path),
        "version": 4,
        "digest": store.digest,
        "episodes": ["000000", "000002"],
    }
    assert copied.version == 0 and editing.log(copied)[0].message == "copy"


def test_a_whole_copy_has_the_digest_of_the_original(tmp_path, store):
    editing.trim(store, "000001", 2, 9)
    editing.relabel(store, ["000000"], Relabel("other", "no"))
    copied = copying.merge([(store, store.names)], tmp_path / "c.zarr")
    assert copied.digest == store.digest and copied.entries == store.entries
    for name in store.names:  # labels and trims are kept, and so is what the trims cut away
        assert_same_episode(copied.read(name), store.read(name))
        assert hashes(copied.path / "episodes" / name) == hashes(store.path / "episodes" / name)


def test_an_old_version_can_be_copied(tmp_path, store):
    editing.tag(store, "all")
    editing.delete(store, ["000000", "000001"])
    old = EpisodeStore.open(store.path, "all")
    copied = copying.merge([(old, old.names)], tmp_path / "c.zarr")
    assert len(copied) == 3 and copied.digest == old.digest != store.digest


def test_a_copy_can_be_recorded_into_and_edited(tmp_path, store):
    copied = copying.merge([(store, ["000002"])], tmp_path / "c.zarr")
    assert copied.append(store.read("000001")) == "000001"
    editing.delete(copied, ["000000"])
    assert [entry.seed for entry in EpisodeStore.open(copied.path).entries.values()] == [1]


DIFFERENT = {
    "observation": lambda: make_specs(image=True).select(("goal",)),
    "action": lambda: dataclasses.replace(
        SPECS, action=ActionSpec((ActionPart("joint_position", ("a", "b", "c")),))
    ),
    "policy_rate": lambda: dataclasses.replace(SPECS, policy_rate=30.0),
    "robot": lambda: dataclasses.replace(SPECS, robot="fr3"),
}


@pytest.mark.parametrize("what", sorted(DIFFERENT))
def test_stores_of_other_specs_are_not_mixed(tmp_path, store, what):
    other = EpisodeStore.create(tmp_path / "o.zarr", DIFFERENT[what](), files=UnsyncedFiles())
    message = rf"s\.zarr and .*o\.zarr differ in \['{what}'\]"
    with pytest.raises(SpecError, match=message):
        copying.merge([(store, store.names), (other, [])], tmp_path / "m.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.zarr", "s.zarr"]


@pytest.mark.parametrize("content", ["store", "file", "folder"])
def test_nothing_is_overwritten(tmp_path, store, content):
    path = tmp_path / "c.zarr"
    if content == "store":
        make_store(path, (3,))
    elif content == "file":
        path.write_text("mine")
    else:
        path.mkdir()
    before = hashes(tmp_path)
    with pytest.raises(RunExistsError, match=re.escape(f"{path} already exists")):
        copying.merge([(store, store.names)], path)
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("names", [[], ["000009"]])
def test_nothing_to_copy_is_refused(tmp_path, store, names):
    with pytest.raises((ConfigError, StoreError), match=r"no episodes chosen|no episode '000009'"):
        copying.merge([(store, names)], tmp_path / "c.zarr")
    with pytest.raises(ConfigError, match="nothing to copy"):
        copying.merge([], tmp_path / "c.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_a_damaged_episode_is_named_and_nothing_is_left(tmp_path, store):
    """Any file of it, in turn cut, altered or gone: a copy never carries damage on."""
    folder = store.path / "episodes/000001"
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    assert len(files) > 10
    for turn, file in enumerate(files):
        data = file.read_bytes()
        spoilt = (data[:-1], data[:-9] + bytes([data[-9] ^ 4]) + data[-8:], None)[turn % 3]
        file.unlink()
        if spoilt is not None:
            file.write_bytes(spoilt)
        again = EpisodeStore.open(store.path)
        with pytest.raises(StoreError, match="episode 000001"):
            copying.merge([(again, again.names)], tmp_path / "c.zarr")
        file.write_bytes(data)
        assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"], file
    again = EpisodeStore.open(store.path)
    copying.merge([(again, ["000000", "000002"])], tmp_path / "c.zarr")


FULL = """
import resource, signal, sys
from pathlib import Path
from robopolicy.core.errors import StoreError
from robopolicy.datasets import copying
from robopolicy.datasets.store import EpisodeStore
store = EpisodeStore.open(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes beyond the limit then fail, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    copying.merge([(store, store.names)], sys.argv[3])
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 200, 4096])
def test_a_disk_that_refuses_midway_leaves_nothing(tmp_path, store, limit):
    before = hashes(tmp_path)
    message = run_python(FULL, store.path, limit, tmp_path / "c.zarr")
    assert message.strip() == f"cannot write to {tmp_path / 'c.zarr'}: File too large"
    assert hashes(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_a_destination_that_cannot_be_is_named(tmp_path, store):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"cannot write to .*file/c\.zarr"):
        copying.merge([(store, store.names)], tmp_path / "file" / "c.zarr")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> EpisodeStore:
    """60 episodes of three instructions: 30, 20 and 10."""
    store = make_store(tmp_path_factory.mktemp("tasks") / "t.zarr", (2,) * 60)
    editing.relabel(store, store.names[::3] + store.names[1::3][:10], Relabel("open"))
    rest = [name for name in store.names if store.entry(name).instruction == "do it"]
    editing.relabel(store, rest[:20], Relabel("close"))
    return store


@pytest.mark.parametrize(
    "shares",
    [{"train": 0.9, "val": 0.1}, {"a": 0.5, "b": 0.3, "c": 0.2}, {"all": 1.0}, {"x": 1 / 3, "y": 2 / 3}],
)
@pytest.mark.parametrize("by_instruction", [True, False])
def test_every_episode_is_in_exactly_one_part_and_the_shares_are_kept(tasks, shares, by_instruction):
    parts = copying.split(tasks, shares, seed=3, by_instruction=by_instruction)
    assert list(parts) == list(shares)
    assert sorted(name for names in parts.values() for name in names) == tasks.names
    for part, names in parts.items():
        assert names == sorted(names) and abs(len(names) - shares[part] * 60) <= 1


def test_each_instruction_is_split_by_the_same_shares(tasks):
    counts = {"open": 30, "close": 20, "do it": 10}
    instruction = {name: entry.instruction for name, entry in tasks.entries.items()}
    assert {text: list(instruction.values()).count(text) for text in counts} == counts
    for seed in range(20):
        parts = copying.split(tasks, {"train": 0.8, "val": 0.2}, seed=seed)
        for text, count in counts.items():
            held = sum(instruction[name] == text for name in parts["val"])
            assert abs(held - 0.2 * count) <= 1 and held, f"seed {seed}, {text}"


def test_a_split_is_a_function_of_the_seed(tasks):
    shares = {"train": 0.8, "val": 0.2}
    drawn = [copying.split(tasks, shares, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "shares",
    [{}, {"a": 0.5}, {"a": 0.7, "b": 0.7}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0.0}, {"a": float("nan")}],
)
def test_shares_that_make_no_sense_are_shown(tasks, shares):
    with pytest.raises(ConfigError, match=re.escape(f"must be positive and sum to 1, got {shares}")):
        copying.split(tasks, shares, seed=0)


def test_too_few_episodes_for_every_part_are_refused(store):
    with pytest.raises(ConfigError, match=r"3 episodes are too few: \['val'\] would stay empty"):
        copying.split(store, {"train": 0.9, "val": 0.1}, seed=0)
