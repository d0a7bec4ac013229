"""Disks that fill up or stand still, encoders that fail, threads that get in each other's way."""

from __future__ import annotations

import itertools
import sys
import threading

import numpy as np
import pytest
from synthetic import assert_same_episode, assert_same_signal, make_specs
from writing import (
    EPISODE,
    FACTS,
    MODES,
    STATES,
    FullFiles,
    GatedFiles,
    assert_prefix,
    begun,
    episode_of,
    in_thread,
    new_store,
    recovered_from,
    samples,
    sound,
    staged,
    writer_threads,
)

from robopolicy.core.errors import StoreError
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets import journal, writer
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.recovery import recover, unfinished
from robopolicy.datasets.writer import EpisodeWriter


def add_all(episode: EpisodeWriter, blocks: list[tuple[str, Signal]]) -> None:
    for name, block in blocks:
        episode.add(name, block)
    episode.commit()


LONG = episode_of(60)
PLENTY = 1 << 30  # bytes


@MODES
@pytest.mark.parametrize("room", [12_000, 40_000, 120_000])
def test_a_full_disk_stops_the_episode_and_what_was_written_is_recovered(tmp_path, background, room):
    disk = FullFiles(room)
    store = new_store(tmp_path, disk)
    with store.begin(background=background, **FACTS) as episode:
        with pytest.raises(StoreError, match=r"cannot write to .*s\.zarr: No space left on device"):
            add_all(episode, samples(LONG))
        disk.room = PLENTY  # too late: what the failed write left behind is in the way
        with pytest.raises(StoreError):
            episode.add("action", Signal(np.zeros((1, 3), np.float32), np.array([10**15])))
        with pytest.raises(StoreError):
            episode.commit()
    assert sound(store).names == []
    (item,) = unfinished(store)
    recovered = recovered_from(store, item)
    assert_prefix(recovered, LONG)
    assert 0 < len(recovered) < len(LONG) and recovered.success is None
    assert verify(sound(store)) == []


@MODES
def test_a_disk_that_fills_before_the_first_sample_keeps_nothing_of_use(tmp_path, background):
    disk = FullFiles(PLENTY)
    store = new_store(tmp_path, disk)
    episode = store.begin(background=background, **FACTS)
    disk.room = 10
    with pytest.raises(StoreError, match="No space left on device"):
        add_all(episode, samples(LONG))
    episode.close()
    (item,) = unfinished(store)
    with pytest.raises(StoreError, match=r"nothing was written of .*; discard it"):
        recover(sound(store), item)
    assert unfinished(store) == [item]


@pytest.mark.parametrize("room", [0, 100])
def test_a_disk_too_full_to_begin_leaves_nothing(tmp_path, room):
    store = new_store(tmp_path, FullFiles(room))
    with pytest.raises(StoreError, match="No space left on device"):
        store.begin(**FACTS)
    assert staged(store) == [] and writer_threads() == []


def test_a_disk_that_fills_while_committing_keeps_the_journal(tmp_path):
    """At any write of the commit, the version file included."""
    disk = FullFiles(PLENTY)
    episode = begun(new_store(tmp_path / "dry", disk), background=False)
    before = disk.room
    episode.commit()
    for room in np.linspace(0, before - disk.room - 1, 12).astype(int).tolist():
        disk.room = PLENTY
        store = new_store(tmp_path / str(room), disk)
        episode = begun(store, background=False)
        disk.room = room
        with pytest.raises(StoreError, match="No space left on device"):
            episode.commit()
        assert sound(store).names == []
        (item,) = unfinished(store)
        disk.room = PLENTY
        assert store.append(EPISODE) == "000000"  # the next one goes on, and adopts nothing
        assert sound(store).names == ["000000"]
        recovered = recovered_from(store, item)
        assert_prefix(recovered, EPISODE)
        assert len(recovered) == len(EPISODE)
        assert unfinished(store) == [] and verify(sound(store)) == []


@MODES
def test_an_encoder_that_fails_is_told(tmp_path, background):
    """JPEG allows no picture wider than 65500 pixels; OpenCV says so only when it encodes one."""
    pytest.importorskip("cv2", reason="JPEG needs OpenCV")
    wide = ArraySpec((1, 66_000, 3), "uint8", kind="image")
    specs = Specs({"wide": wide}, STATES.action, STATES.policy_rate)
    store = new_store(tmp_path, specs=specs, image_codec="jpeg")
    frame = Signal(np.zeros((1, *wide.shape), np.uint8), np.array([0]))
    action = Signal(np.zeros((1, 3), np.float32), np.array([0]))
    with store.begin(where="episode 7", background=background) as episode:
        with pytest.raises(StoreError, match="JPEG cannot encode a frame"):
            add_all(episode, [("observation/wide", frame), ("action", action)])
        with pytest.raises(StoreError, match="episode 7"):
            episode.commit()
    assert sound(store).names == [] and writer_threads() == []


@pytest.mark.parametrize(("limit", "waits_at"), [(4, 4), (256, 2)])
def test_a_slow_disk_blocks_and_nothing_is_dropped(tmp_path, monkeypatch, limit, waits_at):
    """The disk stands still: ``add`` waits at the fifth frame of a backlog of four, or for a frame that is
    a second old; until the clock says five, when the disk moves on."""
    monkeypatch.setattr(writer, "BACKLOG_BLOCKS", limit)
    disk, now, turn, at_work = GatedFiles("wrist", "write"), [0.0], [-1], threading.Event()

    def clock() -> float:
        reading = now[0]
        if turn[0] == waits_at:
            at_work.set()
        return reading

    store = new_store(tmp_path, disk)
    episode = store.begin(now_s=clock, **FACTS)
    wrist = LONG.observation["wrist"]
    began = 0.0 if limit == 4 else 1.0

    def record() -> None:
        for i in range(len(wrist.value)):
            if i == waits_at:
                now[0] = began
            turn[0] = i
            episode.add("observation/wrist", Signal(wrist.value[i : i + 1], wrist.time_ns[i : i + 1]))

    producer = in_thread(record)
    assert at_work.wait(20) and disk.waits.wait(20)
    producer.join(0.1)  # time enough to run on, were it not held up
    assert producer.is_alive() and turn[0] == waits_at
    now[0] = 5.0
    disk.gate.set()
    producer.join()
    assert episode.blocked_s == 5.0 - began
    for name, signal in EPISODE.signals():
        if name != "observation/wrist":
            episode.add(name, signal)
    episode.commit()
    assert_same_signal(sound(store).read("000000").observation["wrist"], wrist)


def test_a_camera_may_appear_while_another_is_being_synced(tmp_path):
    """What ``add`` opens, the writer's thread may just be looking through."""
    disk, ticks = GatedFiles("wrist", "sync"), itertools.count(0, 10)

    def clock() -> float:  # to the writer's thread it is always time to sync
        return next(ticks) if threading.current_thread() in writer_threads() else 0.0

    store = new_store(tmp_path, disk)
    episode, signals = store.begin(now_s=clock, **FACTS), dict(EPISODE.signals())
    episode.add("observation/wrist", signals.pop("observation/wrist"))
    assert disk.waits.wait(20)
    episode.add("observation/range", signals.pop("observation/range"))
    disk.gate.set()
    for name, signal in signals.items():
        episode.add(name, signal)
    episode.commit()
    assert_same_episode(sound(store).read("000000"), EPISODE)


@pytest.fixture
def hasty_threads():
    """Threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@MODES
def test_threads_may_add_different_signals_at_once(tmp_path, background, hasty_threads):
    store = new_store(tmp_path)
    errors: list[BaseException] = []
    with store.begin(background=background, **FACTS) as episode:

        def record(name: str, signal: Signal) -> None:
            try:
                for i in range(len(signal.value)):
                    episode.add(name, Signal(signal.value[i : i + 1], signal.time_ns[i : i + 1]))
            except BaseException as error:
                errors.append(error)

        threads = [in_thread(lambda n=n, s=s: record(n, s)) for n, s in LONG.signals()]
        for thread in threads:
            thread.join()
        assert errors == []
        journalled = (episode.staging / journal.FILE).read_bytes()
        episode.commit()
    assert_same_episode(sound(store).read("000000"), LONG)
    assert verify(sound(store)) == []
    if not background:  # all of it is in the journal, whole
        _, *heads = (head for head, _ in journal.records(journalled))
        assert sum(head["shape"][0] for head in heads) == len(samples(LONG))


def test_what_add_returned_for_while_another_thread_commits_is_in_the_episode(tmp_path, hasty_threads):
    store, added = new_store(tmp_path, specs=make_specs().select(("goal",))), [0]
    episode = store.begin()
    episode.add("observation/goal", Signal([[0.0, 0]], [0]))
    episode.add("action", Signal([[0.0, 0, 0]], [0]))

    def record() -> None:
        try:
            for time_ns in itertools.count(1):
                episode.add("extra/x", Signal([time_ns], [time_ns]))
                added[0] = time_ns
        except StoreError as error:
            assert "this episode is finished" in str(error)

    producer = in_thread(record)
    while added[0] < 50:
        pass
    episode.commit()
    producer.join()
    np.testing.assert_array_equal(store.read("000000").extra["x"].value, np.arange(1, added[0] + 1))
