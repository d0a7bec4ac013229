"""A recorder may die at any moment: what it had written becomes an episode, bit for bit, and nothing else."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from power import UnsyncedFiles
from stores import SPECS, hashes, make_store, run_python, start_python, steps_of
from synthetic import make_episode

from robopolicy.core.errors import StoreError
from robopolicy.datasets import journal
from robopolicy.datasets.draft import shard_path
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.recovery import Unfinished, discard, recover, unfinished
from robopolicy.datasets.store import EpisodeStore

STEPS = 6
EPISODE = make_episode(SPECS, STEPS, seed=77)


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    return make_store(tmp_path / "s.zarr", (4, 3))


def assert_prefix(recovered: Episode, at_least: int, at_most: int = STEPS) -> None:
    """Every signal begins as it was recorded, and so many steps of it are there."""
    assert at_least <= len(recovered) <= at_most
    whole = dict(EPISODE.signals())
    for name, signal_ in recovered.signals():
        count = len(signal_.value)
        assert signal_.value.dtype == whole[name].value.dtype
        assert count <= len(whole[name].value) // STEPS * at_most
        np.testing.assert_array_equal(signal_.value, whole[name].value[:count])
        np.testing.assert_array_equal(signal_.time_ns, whole[name].time_ns[:count])
    assert recovered.success is None and recovered.seed == 77
    assert recovered.metadata == {"who": "test", "recovered": True}


RECORDER = """
import os, signal, sys
from power import UnsyncedFiles
from stores import SPECS, steps_of
from synthetic import make_episode
from robopolicy.datasets.store import EpisodeStore

path, background, steps, moment = sys.argv[1], sys.argv[2] == "background", int(sys.argv[3]), sys.argv[4]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Files(UnsyncedFiles):
    def write_tree(self, root, files):
        if moment == "committing":
            die()
        super().write_tree(root, files)
        if moment == "committed":
            die()

store = EpisodeStore.open(path, files=Files())
episode = make_episode(SPECS, 6, seed=77)
facts = {"instruction": "do it", "success": True, "metadata": {"who": "test"}}
writer = store.begin(background=background, seed=77, **facts)
for step in range(steps):
    for name, part in steps_of(episode, step, step + 1):
        writer.add(name, part)
if moment == "waiting":
    print("ready", flush=True)
    sys.stdin.read() if not sys.stdin.closed else None
    signal.pause()
if moment.startswith("commit"):
    writer.commit()
die()
"""


@pytest.mark.parametrize(
    ("background", "steps", "moment"),
    [
        ("background", 6, "recording"),
        ("background", 6, "committing"),
        ("", 1, "recording"),
        ("", 4, "recording"),
        ("", 6, "recording"),
        ("", 6, "committing"),  # the shards already have their index
        ("", 6, "committed"),  # every file is there, but the episode got no name
    ],
)
def test_a_killed_recorder_loses_nothing_that_was_written(store, background, steps, moment):
    run_python(RECORDER, store.path, background, steps, moment, expect=-signal.SIGKILL)
    again = EpisodeStore.open(store.path, files=UnsyncedFiles())
    assert again.names == ["000000", "000001"]
    (item,) = unfinished(again)
    assert item.bytes > 100 and item.folder.name == item.name
    if background and moment == "recording":  # the thread may have had no time at all
        try:
            name = recover(again, item)
        except StoreError as error:
            assert "nothing was written" in str(error)
            return
        assert_prefix(again.read(name), 1, steps)
    else:
        name = recover(again, item)
        assert_prefix(again.read(name), steps, steps)
        assert dict(again.read(name).extra).keys() == {"force", "contacts"}
    assert (name, again.read(name).instruction) == ("000002", "do it")
    assert unfinished(again) == [] and not item.folder.exists() and verify(again) == []
    assert [e.seed for e in EpisodeStore.open(store.path).entries.values()] == [0, 1, 77]


def test_a_recorder_killed_from_outside_while_it_waits(store):
    with start_python(RECORDER, store.path, "", 3, "waiting") as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            assert unfinished(store) == []  # it lives
            (folder,) = [p for p in (store.path / ".staging").iterdir() if p.is_dir()]
            with pytest.raises(StoreError, match="is being recorded"):
                recover(store, Unfinished(folder.name, folder, 0))
        finally:
            process.kill()
            process.communicate()
    (item,) = unfinished(store)
    assert item.folder == folder
    assert_prefix(store.read(recover(store, item)), 3, 3)


def test_the_store_goes_on_beside_an_unfinished_episode(store):
    run_python(RECORDER, store.path, "", 3, "recording", expect=-signal.SIGKILL)
    before = hashes(store.path / ".staging")
    store.append(make_episode(SPECS, 4, seed=9))
    with store.begin(seed=10) as writer:
        writer.add(*steps_of(EPISODE, 0, 1)[0])
        writer.discard()
    assert hashes(store.path / ".staging") == before
    (item,) = unfinished(store)
    assert_prefix(store.read(recover(store, item)), 3, 3)
    assert [entry.seed for entry in store.entries.values()] == [0, 1, 9, 77]


@pytest.fixture
def dead(store):
    """Makes stores, each with the same unfinished episode of ``STEPS`` steps; gives store and item."""
    writer = store.begin(background=False, seed=77, metadata={"who": "test"}, instruction="do it")
    for step in range(STEPS):
        for name, part in steps_of(EPISODE, step, step + 1):
            writer.add(name, part)
    left = store.path.parent / "left"
    shutil.copytree(writer.staging, left)
    writer.discard()
    count = iter(range(10**6))

    def make(spoil=lambda folder: None) -> tuple[EpisodeStore, Unfinished]:
        path = store.path.parent / f"{next(count)}.zarr"
        shutil.copytree(store.path, path)
        folder = path / ".staging" / "dead"
        shutil.copytree(left, folder)
        spoil(folder)
        again = EpisodeStore.open(path, files=UnsyncedFiles())
        (item,) = unfinished(again)
        return again, item

    return make


def recovered_or_left(store: EpisodeStore, item: Unfinished) -> int:
    """Steps recovered, each bit for bit; 0 when nothing was usable, and then everything is as before."""
    before = hashes(store.path)
    try:
        name = recover(store, item)
    except StoreError as error:
        assert "discard it" in str(error)
        assert hashes(store.path) == before and unfinished(store) == [item]
        return 0
    episode = store.read(name)
    assert_prefix(episode, 1)
    assert verify(store) == [] and unfinished(store) == []
    return len(episode)


def test_a_journal_cut_at_any_byte_gives_what_is_whole(dead):
    size = (dead()[1].folder / journal.FILE).stat().st_size
    steps = []
    for length in [*range(0, size, size // 40), size - 1, size]:
        store, item = dead(lambda folder, n=length: os.truncate(folder / journal.FILE, n))
        steps.append(recovered_or_left(store, item))
        shutil.rmtree(store.path)
    assert steps == sorted(steps) and steps[0] == 0 and set(steps) == set(range(STEPS + 1))


def test_a_shard_cut_at_any_byte_gives_the_frames_that_are_whole(dead):
    """A power cut may keep the journal and lose the end of the pictures."""
    shard = shard_path(Path("episode"), "observation/scene")
    size = (dead()[1].folder / shard).stat().st_size
    frames = []
    for length in [*range(0, size, size // 20), size - 1, size]:
        store, item = dead(lambda folder, n=length: os.truncate(folder / shard, n))
        if recovered_or_left(store, item):
            frames.append(len(store.read("000002").observation["scene"].value))
        shutil.rmtree(store.path)
    assert frames == sorted(frames) and set(frames) == set(range(1, STEPS + 1))


def spoil_tail(how: str):
    def spoil(folder: Path) -> None:
        with (folder / journal.FILE).open("ab") as file:
            file.write({"zeros": bytes(4096), "garbage": bytes(range(1, 200)), "half": b"\x40\0\0\0"}[how])

    return spoil


@pytest.mark.parametrize("how", ["zeros", "garbage", "half"])
def test_what_a_power_cut_leaves_at_the_end_is_no_record(dead, how):
    assert recovered_or_left(*dead(spoil_tail(how))) == STEPS


def test_one_flipped_bit_costs_what_comes_after_it_and_invents_nothing(dead):
    size = (dead()[1].folder / journal.FILE).stat().st_size
    steps = set()
    for at in range(5, size, size // 30):
        store, item = dead(lambda folder, n=at: flip(folder / journal.FILE, n))
        steps.add(recovered_or_left(store, item))
        shutil.rmtree(store.path)
    assert 0 in steps and len(steps) > 3


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: os.truncate(folder / journal.FILE, 0), "nothing was written; discard it"),
        (lambda folder: (folder / journal.FILE).write_bytes(b"\xff" * 5000), "nothing was written"),
        (lambda folder: shutil.rmtree(folder / "episode" / "observation"), "cannot be read"),
    ],
)
def test_nothing_usable_is_said_and_it_stays(dead, spoil, message):
    store, item = dead(spoil)
    before = hashes(store.path)
    with pytest.raises(StoreError, match=message):
        recover(store, item)
    assert hashes(store.path) == before and unfinished(store) == [item]


@pytest.mark.parametrize("lacking", ["action", "observation/scene", "observation/goal"])
def test_an_episode_that_lacks_a_signal_names_it_and_stays(store, lacking):
    writer = store.begin(background=False)
    for name, part in steps_of(EPISODE, 0, 3):
        if name != lacking:
            writer.add(name, part)
    writer.close()
    (item,) = unfinished(store)
    before = hashes(store.path)
    with pytest.raises(StoreError, match=rf"nothing was written of \['{lacking}'\]; discard it"):
        recover(store, item)
    assert hashes(store.path) == before


def test_actions_before_the_first_picture_are_left_out(store):
    """A camera that starts late: steps count from when everything was there."""
    writer = store.begin(background=False)
    for name, part in EPISODE.signals():
        late = part if name != "observation/scene" else Signal(part.value[2:], part.time_ns[2:])
        writer.add(name, late)
    writer.close()
    (item,) = unfinished(store)
    episode = store.read(recover(store, item))
    np.testing.assert_array_equal(episode.action.value, EPISODE.action.value[2:])
    np.testing.assert_array_equal(
        episode.observation["goal"].value, EPISODE.observation["goal"].value
    )  # history may be longer
    assert verify(store) == []


def test_a_camera_that_came_too_late_for_any_action_leaves_nothing_usable(store):
    writer = store.begin(background=False)
    for name, part in EPISODE.signals():
        late = Signal(part.value, part.time_ns + 10**10) if name == "observation/scene" else part
        writer.add(name, late)
    writer.close()
    (item,) = unfinished(store)
    before = hashes(store.path)
    with pytest.raises(StoreError, match="no action after every observation was there; discard it"):
        recover(store, item)
    assert hashes(store.path) == before


def test_an_episode_of_other_specs_is_refused_and_stays(tmp_path, dead):
    _, item = dead()
    specs = dataclasses.replace(SPECS, policy_rate=99.0)
    other = EpisodeStore.create(tmp_path / "other.zarr", specs, files=UnsyncedFiles())
    shutil.copytree(item.folder, other.path / ".staging" / "stray")
    (stray,) = unfinished(other)
    with pytest.raises(StoreError, match=r"stray: recorded under other specs than .*other\.zarr"):
        recover(other, stray)
    assert unfinished(other) == [stray]


def test_live_recorders_are_neither_listed_nor_touched(store):
    with store.begin(background=False) as writer:
        writer.add(*steps_of(EPISODE, 0, 1)[0])
        assert unfinished(store) == []
        item = Unfinished(writer.staging.name, writer.staging, 0)
        before = hashes(store.path)
        for act in (recover, discard):
            with pytest.raises(StoreError, match=f"{writer.staging.name} is being recorded"):
                act(store, item)
        assert hashes(store.path) == before
    assert [one.name for one in unfinished(store)] == [item.name]  # left without a commit


def test_discarding_removes_one_and_only_that(store):
    for seed in (70, 71):
        with store.begin(background=False, seed=seed) as writer:
            for name, part in steps_of(EPISODE, 0, 2):
                writer.add(name, part)
    first, second = unfinished(store)
    discard(store, first)
    assert unfinished(store) == [second] and not first.folder.exists()
    for act in (recover, discard):
        with pytest.raises(StoreError, match="is gone: somebody else recovered or discarded it"):
            act(store, first)
    assert len(store.read(recover(store, second))) == 2


WATCHED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from robopolicy.datasets.recovery import unfinished
from robopolicy.datasets.store import EpisodeStore
store = EpisodeStore.open(sys.argv[1])
(item,) = unfinished(store)
assert item.bytes > 200_000_000, item
assert [path for path in opened if path.endswith("zarr.json")], "the hook sees what is opened"
print([path for path in opened if "/.staging/" in path and not path.endswith("lock")])
"""


def test_opening_and_listing_read_nothing_of_a_huge_unfinished_episode(dead):
    def grow(folder: Path) -> None:
        os.truncate(shard_path(folder / "episode", "observation/scene"), 200 << 20)
        (folder / journal.FILE).write_bytes(b"\xff" * 1000)  # nor is it looked into

    store, _ = dead(grow)
    assert run_python(WATCHED, store.path).strip() == "[]"
