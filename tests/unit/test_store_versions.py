"""Every change is a version; none touches what was there, and any can be looked at or restored."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
from power import UnsyncedFiles
from stores import SPECS, hashes, make_store, run_python, start_python
from synthetic import assert_same_episode, make_episode

from robopolicy.core.errors import ConfigError, StoreError
from robopolicy.datasets import editing, versions
from robopolicy.datasets.editing import Relabel
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.store import EpisodeStore


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    return make_store(tmp_path / "s.zarr")


def edit_everything(store: EpisodeStore) -> None:
    editing.relabel(store, ["000000"], Relabel("other", "no"))
    editing.trim(store, "000001", 2, 9)
    editing.delete(store, ["000002"])
    editing.restore(store, 3)


EDITS = {
    "delete": lambda s: editing.delete(s, ["000001"]),
    "trim": lambda s: editing.trim(s, "000001", 1, 5),
    "relabel": lambda s: editing.relabel(s, s.names, Relabel("fold the towel")),
    "restore": lambda s: editing.restore(s, 1),
    "tag": lambda s: editing.tag(s, "v1"),
    "append": lambda s: s.append(make_episode(SPECS, 4, seed=9)),
    "everything": edit_everything,
}


@pytest.mark.parametrize("edit", sorted(EDITS))
def test_no_change_touches_a_byte_of_what_was_there(store, edit):
    before = hashes(store.path)
    EDITS[edit](store)
    after = hashes(store.path)
    assert after.items() >= before.items()
    added = {name.partition("/")[0] for name in after.keys() - before.keys()}
    assert added == {"tag": {"tags"}, "append": {"episodes", "versions"}}.get(edit, {"versions"})
    assert verify(store) == []


BAD_EDITS = {
    "delete an unknown one": (lambda s: editing.delete(s, ["000001", "000009"]), StoreError, "000009"),
    "delete nothing": (lambda s: editing.delete(s, []), ConfigError, "no episode named"),
    "relabel an unknown one": (lambda s: editing.relabel(s, ["7"], Relabel("x")), StoreError, "'7'"),
    "relabel nothing": (lambda s: editing.relabel(s, [], Relabel("x")), ConfigError, "no episode named"),
    "trim an unknown one": (lambda s: editing.trim(s, "000009", 0, 1), StoreError, "000009"),
    "trim to nothing": (lambda s: editing.trim(s, "000000", 3, 3), ConfigError, r"0\.\.9"),
    "restore an unknown one": (lambda s: editing.restore(s, 9), StoreError, "no version 9 .*newest is 3"),
    "restore a negative one": (lambda s: editing.restore(s, -1), StoreError, "no version -1"),
    "tag an unknown one": (lambda s: editing.tag(s, "x", 9), StoreError, "no version 9"),
    "tag badly": (lambda s: editing.tag(s, "../x"), ConfigError, r"'\.\./x' is no tag"),
}


@pytest.mark.parametrize("case", sorted(BAD_EDITS))
def test_what_cannot_be_done_changes_nothing(store, case):
    edit, error, message = BAD_EDITS[case]
    before, entries = hashes(store.path), dict(store.entries)
    with pytest.raises(error, match=message):
        edit(store)
    assert hashes(store.path) == before
    assert (store.entries, store.version) == (entries, 3)


def test_the_log_says_what_was_done_and_when(store):
    times = iter(["noon", "one", "two", "three"])
    again = EpisodeStore.open(store.path, files=UnsyncedFiles(), now=lambda: next(times))
    edit_everything(again)
    told = [(v.number, v.time, v.message) for v in editing.log(again)]
    assert told[:4] == [
        (7, "three", "restore version 3"),
        (6, "two", "delete 000002"),
        (5, "one", "trim 000001 to 2..9"),
        (4, "noon", "relabel 000000"),
    ]
    assert [message for _, _, message in told[4:]] == [
        "record 000002",
        "record 000001",
        "record 000000",
        "create",
    ]


def test_a_store_opens_at_any_version_or_tag(store):
    editing.tag(store, "first-two", 2)
    editing.tag(store, "now")
    editing.delete(store, ["000000"])
    path = store.path
    assert [EpisodeStore.open(path, number).names for number in range(5)] == [
        [],
        ["000000"],
        ["000000", "000001"],
        ["000000", "000001", "000002"],
        ["000001", "000002"],
    ]
    assert EpisodeStore.open(path, "first-two").version == 2
    assert EpisodeStore.open(path, "now").version == 3
    assert EpisodeStore.open(path, "4").version == EpisodeStore.open(path).version == 4
    assert editing.tags(store) == {"first-two": 2, "now": 3}
    assert_same_episode(EpisodeStore.open(path, "now").read("000000"), make_episode(SPECS, 9, 0))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (5, r"no version 5 \(versions/00000005.json\); the newest is 3"),
        ("5", "no version 5"),
        (-1, "no version -1"),
        ("nope", "no tag 'nope'; known: v1"),
        ("-1", "no tag '-1'"),
        ("³", "no tag '³'"),
        ("", "no tag ''"),
    ],
)
def test_a_version_that_is_not_there_is_named(store, version, message):
    editing.tag(store, "v1")
    with pytest.raises(StoreError, match=message):
        EpisodeStore.open(store.path, version)


@pytest.mark.parametrize("change", [*sorted(set(EDITS) - {"tag"}), "begin"])
def test_a_store_opened_at_an_old_version_refuses_to_change(store, change):
    editing.delete(store, ["000002"])
    before = hashes(store.path)
    old = EpisodeStore.open(store.path, 3)
    with pytest.raises(StoreError, match="open at version 3; open the newest to change it"):
        EDITS.get(change, lambda s: s.begin())(old)
    assert hashes(store.path) == before
    assert editing.tag(old, "as-of-then") == 3  # a name is no change


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty", "other JSON", "remove"])
def test_a_damaged_version_file_is_named(store, spoil):
    path = store.path / versions.FOLDER / "00000002.json"
    data = path.read_bytes()
    if spoil == "remove":
        path.unlink()
    else:
        at = data.index(b"do it")  # a label; JSON still parses
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        spoilt = {"flip": flipped, "cut": data[: len(data) // 2], "empty": b"", "other JSON": b"[]\n"}
        path.write_bytes(spoilt[spoil])
    for version in (None, 2, 3):
        with pytest.raises(StoreError, match=r"00000002\.json"):
            EpisodeStore.open(store.path, version)
    assert EpisodeStore.open(store.path, 1).names == ["000000"]
    (damage,) = [d for d in verify(store) if not d.episode]
    assert damage.chunk == "versions/00000002.json" and "00000002.json" in damage.message


def test_every_bit_of_a_version_file_counts(store):
    path = store.path / versions.FOLDER / "00000003.json"
    data = path.read_bytes()
    entries = EpisodeStore.open(store.path).entries
    for at in range(0, len(data), 7):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            try:  # white space between JSON tokens says nothing
                assert EpisodeStore.open(store.path).entries == entries, f"byte {at}, bit {bit}"
            except StoreError as error:
                assert "00000003.json" in str(error)


def test_checkpoints_change_nothing_but_how_many_files_are_read(tmp_path):
    store = make_store(tmp_path / "s.zarr", ())
    recorded = {0: {}}
    for seed in range(70):
        store.append(make_episode(SPECS, 2, seed, wall_minus_clock_ns=seed))
        recorded[store.version] = dict(store.entries)
        if seed % 9 == 8:
            editing.delete(store, [store.names[seed // 9]])
            recorded[store.version] = dict(store.entries)
        if seed % 10 == 9:
            editing.relabel(store, store.names[-3:], Relabel(f"task {seed}"))
            recorded[store.version] = dict(store.entries)
    assert store.version == max(recorded) > 2 * versions.CHECKPOINT
    listed = {v.number for v in editing.log(store) if v.episodes is not None}
    assert listed == set(range(0, store.version + 1, versions.CHECKPOINT))
    read: list[int] = []

    def counting(number: int) -> versions.Version:
        read.append(number)
        return store.read_version(number)

    for number, entries in recorded.items():
        read.clear()
        found = versions.entries_at(number, counting)
        assert found == entries and list(found) == list(entries)
        assert len(read) == number % versions.CHECKPOINT + 1
    again = EpisodeStore.open(store.path, 50)
    assert again.entries == recorded[50]


def test_restoring_brings_back_everything_and_can_be_undone(store):
    before, digest = dict(store.entries), store.digest
    editing.relabel(store, ["000000"], Relabel("other", "unknown"))
    editing.trim(store, "000001", 3, 4)
    editing.delete(store, ["000002"])
    store.append(make_episode(SPECS, 4, seed=9))
    edited = dict(store.entries)
    assert editing.restore(store, 3) == 8
    assert (store.entries, store.digest) == (before, digest)
    editing.restore(store, 7)
    assert store.entries == edited == EpisodeStore.open(store.path).entries
    assert store.read("000003").seed == 9


def test_the_digest_is_equal_exactly_when_content_and_labels_are(tmp_path):
    ours, theirs = make_store(tmp_path / "a.zarr"), make_store(tmp_path / "b.zarr")
    assert ours.digest == theirs.digest
    seen = {ours.digest}
    for edit in (
        lambda s: editing.relabel(s, ["000001"], Relabel("other")),
        lambda s: editing.relabel(s, ["000001"], Relabel(success="no")),
        lambda s: editing.trim(s, "000000", 0, 8),
        lambda s: editing.delete(s, ["000002"]),
        lambda s: s.append(make_episode(SPECS, 4, seed=9)),
    ):
        edit(ours)
        assert ours.digest not in seen and ours.digest != theirs.digest
        seen.add(ours.digest)
        edit(theirs)
        assert ours.digest == theirs.digest
    one, other = make_store(tmp_path / "c.zarr", (5,)), make_store(tmp_path / "d.zarr", (5,), first=1)
    assert one.digest != other.digest


def test_one_bit_of_one_sample_changes_the_digest(tmp_path):
    ours, theirs = make_store(tmp_path / "a.zarr", ()), make_store(tmp_path / "b.zarr", ())
    episode = make_episode(SPECS, 6, 0)
    ours.append(episode)
    episode.observation["scene"].value[3, 4, 5, 1] ^= 1
    theirs.append(episode)
    assert ours.digest != theirs.digest


BUSY = """
import sys
from power import UnsyncedFiles
from stores import SPECS
from synthetic import make_episode
from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore
first, path = int(sys.argv[1]), sys.argv[2]
store = EpisodeStore.open(path, files=UnsyncedFiles())
for i in range(12):
    name = store.append(make_episode(SPECS, 3, seed=first + i))
    editing.relabel(store, [name], editing.Relabel(f"task {first + i}"))
    if i % 4 == 3:
        editing.delete(store, [name])
    elif i % 4 == 2:
        editing.trim(store, name, 1, 3)
"""


def test_two_processes_at_once_lose_nothing(tmp_path):
    store = make_store(tmp_path / "s.zarr", (3,))
    both = [start_python(BUSY, first, store.path) for first in (100, 200)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    store.refresh()
    kept = {first + i for first in (100, 200) for i in range(12) if i % 4 != 3}
    held = {entry.seed: entry for entry in store.entries.values()}
    assert set(held) == {0} | kept
    for seed in kept:
        assert held[seed].instruction == f"task {seed}"
        assert held[seed].length == (2 if seed % 100 % 4 == 2 else 3)
    assert store.version == 1 + 2 * (12 + 12 + 3 + 3)
    assert len(list((store.path / "episodes").glob("0*"))) == 25
    assert verify(store) == []


def test_an_edit_of_what_somebody_else_has_just_changed_is_refused(store):
    other = EpisodeStore.open(store.path)
    editing.relabel(other, ["000000"], Relabel("theirs"))
    editing.delete(other, ["000001"])
    before = hashes(store.path)
    for edit in (
        lambda: editing.trim(store, "000000", 0, 4),
        lambda: editing.relabel(store, ["000001"], Relabel("mine")),
    ):
        with pytest.raises(StoreError, match=r"version 5 has changed 00000[01] since version 3; refresh"):
            edit()
    assert hashes(store.path) == before
    editing.relabel(store, ["000002"], Relabel("mine"))  # nobody else's business
    assert [entry.instruction for entry in store.entries.values()] == ["theirs", "mine"]
    editing.trim(store, "000000", 0, 4)
    assert store.entry("000000").instruction == "theirs" and store.entry("000000").length == 4


KILLED_BEFORE_THE_VERSION = """
import os, signal, sys
from power import UnsyncedFiles
from stores import SPECS
from synthetic import make_episode
from robopolicy.datasets.store import EpisodeStore

class Dying(UnsyncedFiles):
    def create(self, path, data):
        os.kill(os.getpid(), signal.SIGKILL)

store = EpisodeStore.open(sys.argv[1], files=Dying())
with store.begin(journalled=sys.argv[2] == "True", seed=77, instruction="last words") as writer:
    for name, whole in make_episode(SPECS, 6, seed=77).signals():
        writer.add(name, whole)
    writer.commit(success=True)
"""


@pytest.mark.parametrize("journalled", [True, False])
@pytest.mark.parametrize("how", ["append", "recover"])
def test_an_episode_whose_recorder_died_before_it_was_listed_is_taken_in_once(store, how, journalled):
    from robopolicy.datasets.recovery import unfinished

    run_python(KILLED_BEFORE_THE_VERSION, store.path, journalled, expect=-signal.SIGKILL)
    again = EpisodeStore.open(store.path, files=UnsyncedFiles())
    assert again.names == ["000000", "000001", "000002"]  # not listed, but its folder is there
    assert (store.path / "episodes" / "000003").is_dir()
    assert unfinished(again) == []  # nothing of it is left to recover: else there would be two
    if how == "append":
        assert again.append(make_episode(SPECS, 4, seed=9)) == "000004"
    else:
        assert again.adopt() == ["000003"]
    assert [e.seed for e in again.entries.values()] == [0, 1, 2, 77] + [9] * (how == "append")
    adopted = again.read("000003")
    assert (adopted.instruction, adopted.success) == ("last words", True)
    assert (adopted.action.value == make_episode(SPECS, 6, seed=77).action.value).all()
    assert verify(again) == [] and again.adopt() == []
    again.append(make_episode(SPECS, 4, seed=10))
    assert len([e for e in again.entries.values() if e.seed == 77]) == 1
    assert [p.name for p in (again.path / ".staging").iterdir() if p.is_dir()] == []


class FullDisk(UnsyncedFiles):
    """Refuses version files, ``times`` times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def create(self, path, data) -> None:
        if path.parent.name == versions.FOLDER and self.times:
            self.times -= 1
            raise OSError(28, "No space left on device")
        super().create(path, data)


def test_a_refused_version_file_leaves_no_episode_behind_so_trying_again_makes_no_second(store):
    before = hashes(store.path)
    again = EpisodeStore.open(store.path, files=FullDisk(2))
    for _ in range(2):
        with pytest.raises(StoreError, match="No space left on device; the store is unchanged"):
            again.append(make_episode(SPECS, 4, seed=9))
    assert hashes(store.path) == before
    assert again.append(make_episode(SPECS, 4, seed=9)) == "000003"
    assert [e.seed for e in again.entries.values()] == [0, 1, 2, 9]


@pytest.mark.parametrize("edit", sorted(set(EDITS) - {"everything", "tag", "append"}))
def test_a_refused_edit_is_not_made(store, edit):
    before, again = hashes(store.path), EpisodeStore.open(store.path, files=FullDisk(1))
    with pytest.raises(StoreError, match="No space left on device; the store is unchanged"):
        EDITS[edit](again)
    assert hashes(store.path) == before and again.entries == store.entries and again.version == 3
    EDITS[edit](again)
    assert again.version == 4


@pytest.mark.parametrize("emptied", [False, True])
def test_names_are_never_given_twice(store, emptied):
    editing.delete(store, ["000002"])
    if emptied:  # by hand, to make room
        shutil.rmtree(store.path / "episodes" / "000002")
    assert store.append(make_episode(SPECS, 4, seed=9)) == "000003"
    editing.delete(store, store.names)
    again = EpisodeStore.open(store.path, files=UnsyncedFiles())
    assert len(again) == 0
    assert again.append(make_episode(SPECS, 4, seed=10)) == "000004"


def test_a_tag_never_moves(store):
    editing.tag(store, "v1", 2)
    before = hashes(store.path)
    with pytest.raises(StoreError, match="tag 'v1' is version 2; tags never move"):
        editing.tag(store, "v1", 3)
    assert hashes(store.path) == before


def test_a_damaged_tag_is_named(store):
    editing.tag(store, "v1")
    path = store.path / versions.TAGS / "v1.json"
    for text in ("", "{}", '{"version": "x"}', "[1]"):
        path.write_text(text)
        for look in (lambda: EpisodeStore.open(store.path, "v1"), lambda: editing.tags(store)):
            with pytest.raises(StoreError, match="v1"):
                look()
        assert [(d.episode, d.chunk) for d in verify(store)] == [("", versions.TAGS)]


def test_a_version_file_is_plain_json_that_outlives_this_library(store):
    tree = json.loads((store.path / versions.FOLDER / "00000003.json").read_text())
    assert tree["put"][0]["name"] == "000002" and tree["put"][0]["instruction"] == "do it"


def test_a_damaged_folder_that_no_version_lists_does_not_stop_recording(tmp_path):
    store = EpisodeStore.create(tmp_path / "s.zarr", SPECS, files=UnsyncedFiles())
    store.append(make_episode(SPECS, 3, seed=0))
    orphan = store.path / "episodes" / "000001"
    orphan.mkdir()
    (orphan / "zarr.json").write_text("{")
    assert store.append(make_episode(SPECS, 3, seed=1)) == "000001"
    assert [entry.seed for entry in store.entries.values()] == [0, 1]
    (aside,) = (store.path / ".staging").glob("damaged-000001-*")
    assert (aside / "zarr.json").read_text() == "{"  # nothing is thrown away unasked
