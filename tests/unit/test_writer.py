"""The writer keeps all that was added, in order, and ends once."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import assert_same_episode, make_specs
from writing import (
    EPISODE,
    FACTS,
    MODES,
    assert_prefix,
    begun,
    new_store,
    recovered_from,
    samples,
    sound,
    staged,
    writer_threads,
)

from robopolicy.core.errors import ShapeError, SpecError, StoreError
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.recovery import recover, unfinished


@MODES
@pytest.mark.parametrize("journalled", [False, True])
def test_everything_added_arrives_in_order_at_its_own_rate(tmp_path, background, journalled):
    store = new_store(tmp_path)
    with store.begin(background=background, journalled=journalled, **FACTS) as episode:
        for name, block in samples(EPISODE):
            episode.add(name, block)
        assert len(store) == 0
        assert episode.commit() == "000000"
    assert_same_episode(sound(store).read("000000"), EPISODE)
    assert verify(sound(store)) == [] and staged(store) == []


@MODES
def test_blocks_of_any_length_make_the_same_bytes(tmp_path, background):
    """Sample by sample, all at once, or with empty blocks between: the data's SHA-256 is the same."""
    store = new_store(tmp_path)
    names = [store.append(EPISODE)]
    with store.begin(background=background, **FACTS) as episode:
        for name, signal in EPISODE.signals():
            empty = Signal(signal.value[:0], signal.time_ns[:0])
            for start in range(0, len(signal.value), 3):
                episode.add(name, empty)
                episode.add(name, Signal(signal.value[start : start + 3], signal.time_ns[start : start + 3]))
            episode.add(name, empty)
        names.append(episode.commit())
    assert store.entry(names[0]).data == store.entry(names[1]).data


@MODES
def test_the_writer_copies(tmp_path, background):
    """A camera driver may hand out the same buffer for every frame."""
    store = new_store(tmp_path)
    with store.begin(background=background, **FACTS) as episode:
        for name, block in samples(EPISODE):
            mine = Signal(block.value.copy(), block.time_ns.copy())
            episode.add(name, mine)
            mine.value[...] = 1
            mine.time_ns[...] = -1
        episode.commit()
    assert_same_episode(store.read("000000"), EPISODE)


def test_values_take_the_dtype_of_their_spec(tmp_path):
    store = new_store(tmp_path)
    with store.begin(**FACTS) as episode:
        for name, signal in EPISODE.signals():
            wide = {"f": np.float64, "i": np.int64}.get(signal.value.dtype.kind, signal.value.dtype)
            episode.add(name, Signal(signal.value.astype(wide), signal.time_ns))
        episode.commit()
    assert_same_episode(store.read("000000"), EPISODE)


def test_lists_are_taken_as_arrays(tmp_path):
    store = new_store(tmp_path, specs=make_specs().select(("goal",)))
    with store.begin() as episode:
        episode.add("observation/goal", Signal([[1.0, 2.0]], [0]))
        episode.add("extra/note", Signal([3, 4], [0, 1]))
        episode.add("action", Signal([[1, 2, 3]], [0]))
        episode.commit()
    back = store.read("000000")
    np.testing.assert_array_equal(back.observation["goal"].value, [[1, 2]])
    np.testing.assert_array_equal(back.extra["note"].value, [3, 4])


# -- facts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"colour": "red"}, r"unknown facts \['colour'\]; known: \['clock'"),
        ({"clock": "sundial"}, "clock 'sundial' is not one of"),
        ({"metadata": {"a": object()}}, "facts must be plain JSON"),
        ({"metadata": {"a": float("nan")}}, "facts must be plain JSON"),
        ({"metadata": {"a": np.float32(1)}}, "facts must be plain JSON"),
        ({"metadata": [1]}, "metadata must be a mapping"),
        ({"seed": "x"}, "seed: expected int, got 'x'"),
        ({"seed": 1.5}, "seed: expected int"),
        ({"success": 1}, "success: expected bool, got 1"),
        ({"instruction": None}, "instruction: expected str, got None"),
        ({"wall_minus_clock_ns": 1e18}, "wall_minus_clock_ns: expected int"),
    ],
)
def test_facts_that_no_store_could_give_back_are_refused(tmp_path, facts, message):
    """At the beginning, and nothing is left behind; a version file with them could not be read again."""
    store = new_store(tmp_path)
    with pytest.raises(SpecError, match=message):
        store.begin(where="episode 7", **facts)
    assert staged(store) == []


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"metadata": {"a": object()}}, "plain JSON"),
        ({"success": 1}, "success: expected bool"),
        ({"instruction": 3}, "instruction: expected str"),
    ],
)
def test_facts_told_at_the_end_are_held_to_the_same(tmp_path, told, message):
    store = new_store(tmp_path)
    episode = store.begin(**FACTS)
    for name, signal in EPISODE.signals():
        episode.add(name, signal)
    with pytest.raises(SpecError, match=message):
        episode.commit(**told)
    assert sound(store).names == [] and len(unfinished(store)) == 1


def test_what_is_told_at_the_end_goes_before_what_was_told_at_first(tmp_path):
    store, metadata = new_store(tmp_path), {"who": "me", "deep": {"list": [1, None]}}
    with store.begin(success=True, instruction="old", metadata=metadata) as episode:
        metadata["deep"]["list"].append("changed since")
        for name, signal in EPISODE.signals():
            episode.add(name, signal)
        episode.commit(success=False, instruction="new", metadata={"who": "you", "more": 1})
    back = sound(store).read("000000")
    assert (back.success, back.instruction) == (False, "new")
    assert back.metadata == {"who": "you", "deep": {"list": [1, None]}, "more": 1}


@pytest.mark.parametrize("success", [True, False, None])
def test_what_is_not_told_at_the_end_stays(tmp_path, success):
    store = new_store(tmp_path)
    with store.begin(**{**FACTS, "success": success}) as episode:
        for name, signal in EPISODE.signals():
            episode.add(name, signal)
        episode.commit()
    assert store.entry("000000").success is success
    assert store.read("000000").metadata == FACTS["metadata"]


# -- ends --------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("missing", ["action", "observation/goal", "observation/wrist"])
def test_a_signal_that_never_came_stops_the_commit_and_keeps_the_rest(tmp_path, background, missing):
    store = new_store(tmp_path)
    episode = store.begin(where="episode 7", background=background, **FACTS)
    for name, signal in EPISODE.signals():
        if name != missing:
            episode.add(name, signal)
    with pytest.raises(ShapeError, match=f"episode 7, {missing}: no samples"):
        episode.commit()
    assert sound(store).names == []
    (item,) = unfinished(store)
    with pytest.raises(StoreError, match=f"nothing was written of .*{missing}"):
        recover(sound(store), item)
    assert [left.name for left in unfinished(store)] == [item.name]


@MODES
def test_an_observation_that_starts_after_the_first_action_stops_the_commit(tmp_path, background):
    store = new_store(tmp_path)
    episode = store.begin(background=background, **FACTS)
    for name, signal in EPISODE.signals():
        late = name == "observation/goal"
        episode.add(name, Signal(signal.value, signal.time_ns + late))
    with pytest.raises(SpecError, match="observation/goal: its first sample comes after the first action"):
        episode.commit()
    (item,) = unfinished(store)
    recovered = recovered_from(store, item)
    assert len(recovered) == len(EPISODE) - 1  # without the action that came too early
    assert recovered.success is None


@MODES
def test_after_the_end_nothing_is_taken_and_nothing_is_written_twice(tmp_path, background):
    store = new_store(tmp_path)
    episode = begun(store, background=background)
    episode.commit()
    for attempt in (episode.commit, lambda: episode.add("action", EPISODE.action)):
        with pytest.raises(StoreError, match="this episode is finished"):
            attempt()
    episode.discard()  # neither takes back what was committed
    episode.close()
    assert sound(store).names == ["000000"] and staged(store) == []
    assert_same_episode(sound(store).read("000000"), EPISODE)
    assert verify(sound(store)) == []


@MODES
def test_discard_leaves_nothing(tmp_path, background):
    store = new_store(tmp_path)
    episode = begun(store, background=background)
    assert len(staged(store)) == 1
    episode.discard()
    assert staged(store) == [] and unfinished(store) == [] and sound(store).names == []
    for attempt in (episode.commit, lambda: episode.add("action", EPISODE.action)):
        with pytest.raises(StoreError, match="this episode is finished"):
            attempt()
    assert store.append(EPISODE) == "000000"


@MODES
def test_leaving_without_commit_keeps_an_unfinished_episode(tmp_path, background):
    store = new_store(tmp_path)
    with pytest.raises(KeyboardInterrupt), begun(store, background=background):
        raise KeyboardInterrupt
    assert sound(store).names == []
    (item,) = unfinished(store)
    recovered = recovered_from(store, item)
    assert_prefix(recovered, EPISODE)
    assert len(recovered) == len(EPISODE) and recovered.metadata == {"who": "test", "recovered": True}


@MODES
def test_without_a_journal_nothing_is_kept(tmp_path, background):
    store = new_store(tmp_path)
    with begun(store, background=background, journalled=False):
        pass
    assert staged(store) == [] and sound(store).names == []


@pytest.mark.parametrize("end", ["commit", "discard", "close"])
def test_no_thread_is_left(tmp_path, end):
    before = writer_threads()
    getattr(begun(new_store(tmp_path)), end)()
    assert writer_threads() == before
