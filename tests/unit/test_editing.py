"""Deleting, trimming and relabelling say exactly what they will do, and do that."""

from __future__ import annotations

import numpy as np
import pytest
from stores import SPECS, make_store
from synthetic import STEP_NS, assert_same_episode, make_episode

from robopolicy.core.errors import ConfigError, StoreError
from robopolicy.core.horizons import Horizons
from robopolicy.datasets import editing
from robopolicy.datasets.editing import Relabel
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows, align


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    store = make_store(tmp_path / "s.zarr", (9, 12, 5, 6, 7))
    editing.delete(store, ["000003"])
    return store


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (["1"], [1]),
        (["000001"], [1]),
        (["0001"], [1]),
        (["0-2"], [0, 1, 2]),
        (["1-1"], [1]),
        (["2-4"], [2, 4]),  # what was deleted is not in a range
        (["2-99"], [2, 4]),
        (["4", "0-1"], [4, 0, 1]),
        (["1", "0-2", "000001"], [1, 0, 2]),  # each once
        ([], []),
    ],
)
def test_numbers_and_ranges_name_episodes(store, chosen, found):
    assert editing.resolve(store, chosen) == [f"{number:06d}" for number in found]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("3", StoreError, "no episode '000003' in version 6"),
        ("9", StoreError, "no episode '000009'"),
        ("3-3", StoreError, "no episode '000003'"),
        ("50-60", StoreError, "no episode '000050'"),
        ("4-2", ConfigError, "'4-2' is backwards"),
        ("-1", ConfigError, "'-1' is no episode: write a number"),
        ("1-", ConfigError, "'1-' is no episode"),
        ("1-2-3", ConfigError, "'1-2-3' is no episode"),
        ("one", ConfigError, "'one' is no episode"),
        ("1.0", ConfigError, r"'1\.0' is no episode"),
        (" 1", ConfigError, "' 1' is no episode"),
        ("1\n", ConfigError, "is no episode"),
        ("", ConfigError, "'' is no episode"),
        ("1,2", ConfigError, "'1,2' is no episode"),
    ],
)
def test_what_is_no_episode_is_said(store, text, error, message):
    with pytest.raises(error, match=message):
        editing.resolve(store, ["1", text])


def test_deleted_episodes_are_gone_from_everywhere(store):
    editing.delete(store, ["000000", "000002"])
    again = EpisodeStore.open(store.path)
    assert again.names == store.names == ["000001", "000004"] and len(again) == 2
    assert [episode.seed for episode in again.episodes()] == [1, 4]
    with pytest.raises(StoreError, match="no episode '000002'"):
        again.read("000002")
    assert len(Windows(again, Horizons(2, 4, 2), ("goal",))) == 12 + 7


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (0, 5), (3, 12), (3, 7), (11, 12), (0, 1)])
def test_a_trimmed_episode_holds_what_its_steps_see(store, start, stop):
    """Against a slow reference: which samples the steps, and the one after them, see."""
    whole = store.read("000001")
    editing.trim(store, "000001", start, stop)
    episode = EpisodeStore.open(store.path).read("000001")
    assert len(episode) == stop - start == store.facts("000001")["length"]
    np.testing.assert_array_equal(episode.action.value, whole.action.value[start:stop])
    np.testing.assert_array_equal(episode.action.time_ns, whole.action.time_ns[start:stop])
    steps = whole.action.time_ns
    end = steps[stop] if stop < len(steps) else np.iinfo(np.int64).max
    for key, signal in whole.observation.items():  # sensed twice per step, some of them
        first = [i for i, time in enumerate(signal.time_ns) if time <= steps[start]][-1]
        kept = [i for i, time in enumerate(signal.time_ns) if i >= first and time <= end]
        np.testing.assert_array_equal(episode.observation[key].value, signal.value[kept])
        np.testing.assert_array_equal(episode.observation[key].time_ns, signal.time_ns[kept])
    for key, signal in whole.extra.items():
        kept = [i for i, time in enumerate(signal.time_ns) if steps[start] <= time < end]
        np.testing.assert_array_equal(episode.extra[key].value, signal.value[kept])
    episode.check(store.specs, "trimmed")


def test_training_sees_exactly_the_steps_that_are_left(store):
    """What was seen at a step does not change because others were cut away."""
    seen, commands = align(store.read("000001"), SPECS)
    editing.trim(store, "000001", 3, 8)
    now, left = align(store.read("000001"), SPECS)
    np.testing.assert_array_equal(left, commands[3:8])
    for key in SPECS.observation:
        np.testing.assert_array_equal(now[key], seen[key][3:8])
    for memory in (1 << 30, 0):  # pictures held, pictures on demand
        windows = Windows(store, Horizons(1, 1, 1), ("goal", "scene"), ["000001"], memory_bytes=memory)
        batch = windows.batch(np.arange(5))
        np.testing.assert_array_equal(batch.action[:, 0], commands[3:8])
        for key in SPECS.observation:
            np.testing.assert_array_equal(batch.observation[key][:, 0], seen[key][3:8])


def test_a_trim_counts_from_the_trim_before(store):
    editing.trim(store, "000001", 2, 11)
    editing.trim(store, "000001", 3, 6)
    twice = store.read("000001")
    editing.restore(store, 6)
    editing.trim(store, "000001", 5, 8)
    assert_same_episode(twice, store.read("000001"))
    with pytest.raises(ConfigError, match=r"000001 has steps 0\.\.3; cannot keep 0\.\.4"):
        editing.trim(store, "000001", 0, 4)
    assert (store.entry("000001").start, store.entry("000001").stop) == (5, 8)


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 13), (5, 5), (6, 5), (12, 12), (12, 13), (0, 0)])
def test_a_trim_beyond_the_episode_shows_its_steps(store, start, stop):
    with pytest.raises(ConfigError, match=rf"000001 has steps 0\.\.12; cannot keep {start}\.\.{stop}"):
        editing.trim(store, "000001", start, stop)


def test_damage_in_a_trimmed_episode_is_still_found(store):
    """Its camera's shard, where the trim no longer looks."""
    from robopolicy.datasets.integrity import verify

    editing.trim(store, "000001", 6, 12)
    shard = store.path / "episodes/000001/observation/scene/value/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    (damage,) = verify(EpisodeStore.open(store.path))
    assert (damage.episode, damage.key, damage.chunk) == ("000001", "observation/scene/value", "frame 0")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (Relabel(instruction="fold"), ("fold", True)),
        (Relabel(instruction=""), ("", True)),
        (Relabel(success="no"), ("do it", False)),
        (Relabel(success="unknown"), ("do it", None)),
        (Relabel("wipe", "yes"), ("wipe", True)),
    ],
)
def test_labels_change_and_nothing_else(store, labels, expected):
    before = make_episode(SPECS, 12, 1)
    editing.relabel(store, ["000001", "000004"], labels)
    again = EpisodeStore.open(store.path)
    for name in ("000001", "000004"):
        assert (again.read(name).instruction, again.read(name).success) == expected
        assert (again.facts(name)["instruction"], again.facts(name)["success"]) == expected
    assert (again.read("000000").instruction, again.read("000000").success) == ("do it", True)
    episode = again.read("000001")
    np.testing.assert_array_equal(episode.action.value, before.action.value)
    assert (episode.seed, episode.metadata) == (before.seed, before.metadata)


def test_labels_survive_a_trim_and_trims_a_relabel(store):
    editing.relabel(store, ["000001"], Relabel("fold", "no"))
    editing.trim(store, "000001", 1, 4)
    editing.relabel(store, ["000001"], Relabel(success="yes"))
    entry = EpisodeStore.open(store.path).entry("000001")
    assert (entry.instruction, entry.success, entry.start, entry.stop) == ("fold", True, 1, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "nothing to relabel"), ({"success": "maybe"}, "must be 'yes', 'no' or 'unknown', got 'maybe'")],
)
def test_labels_that_say_nothing_or_something_odd_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        Relabel(**given)


@pytest.mark.parametrize("name", ["1st", "", "a b", "a/b", "../a", ".a", "é", "-a", "a\n"])
def test_tags_are_plain_names(store, name):
    with pytest.raises(ConfigError, match="is no tag: a letter, then"):
        editing.tag(store, name)


def test_times_of_a_trimmed_episode_stay_on_its_clock(store):
    editing.trim(store, "000001", 4, 6)
    assert store.read("000001").action.time_ns.tolist() == [4 * STEP_NS, 5 * STEP_NS]


def test_a_long_list_of_episodes_makes_a_short_message(tmp_path):
    store = make_store(tmp_path / "many.zarr", (2,) * 12)
    editing.delete(store, store.names[:11])
    message = editing.log(store)[0].message
    assert message == "delete " + ", ".join(f"{i:06d}" for i in range(7)) + " and 4 more"
