"""What `commit` returned for outlives a power cut at any moment; what it did not is whole or absent."""

from __future__ import annotations

import contextlib

import pytest
from power import PowerCutError, PowerFiles, UnsyncedFiles
from synthetic import assert_same_episode, make_episode, make_specs

from robopolicy.datasets import editing
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.recovery import recover, unfinished
from robopolicy.datasets.store import EpisodeStore

SPECS = make_specs(image=True).select(("goal", "scene"))
EPISODES = [make_episode(SPECS, 4, seed=seed, wall_minus_clock_ns=None) for seed in range(2)]
FACTS = {"instruction": "do it", "success": True, "metadata": {"who": "test"}}


def record(store: EpisodeStore, done: list[int]) -> None:
    """An episode as a recorder writes it, beside one that is there, and an edit; tells what has returned."""
    with store.begin(background=False, seed=1, **FACTS) as writer:
        for name, signal in EPISODES[1].signals():
            writer.add(name, signal)
        writer.commit()
    done.append(1)
    editing.relabel(store, ["000000"], editing.Relabel(instruction="other"))
    done.append(99)


def cut_and_reopen(folder, cut_at: int | None, luck: int | None):
    """Record until the cut; returns the layer, what had returned, and the store that outlived it."""
    (folder / "a").mkdir(parents=True)
    EpisodeStore.create(folder / "a" / "s.zarr", SPECS, files=UnsyncedFiles()).append(EPISODES[0])
    layer = PowerFiles(folder / "a", folder / "b", cut_at, luck)
    done = [0]
    with contextlib.suppress(PowerCutError):
        record(EpisodeStore.open(folder / "a" / "s.zarr", files=layer), done)
    if not layer.is_cut:
        return layer, done, None
    return layer, done, EpisodeStore.open(folder / "b" / "s.zarr", files=UnsyncedFiles())


@pytest.mark.parametrize(("luck", "every"), [(None, 1), (1, 7), (2, 5)])
def test_a_power_cut_before_any_operation_loses_no_committed_episode(tmp_path, luck, every):
    total = cut_and_reopen(tmp_path / "dry", None, luck)[0].operations
    assert total > 100
    for cut_at in range(1, total + 1, every):
        layer, done, store = cut_and_reopen(tmp_path / str(cut_at), cut_at, luck)
        assert store is not None, f"no cut at {cut_at} of {total}; it took {layer.operations}"
        held = [store.entry(name).seed for name in store.names]
        assert held[: len([s for s in done if s != 99])] == [s for s in done if s != 99], f"cut at {cut_at}"
        assert verify(store) == [], f"cut at {cut_at}"
        for name, seed in zip(store.names, held):
            relabelled = store.entry(name).instruction != "do it"
            assert relabelled or 99 not in done or seed != 0
            if not relabelled:
                assert_same_episode(store.read(name), EPISODES[seed])
        store.append(make_episode(SPECS, 3, seed=7))  # and it goes on
        assert [store.entry(name).seed for name in store.names][-1] == 7
        assert verify(store) == []


def test_a_layer_that_syncs_nothing_would_be_caught(tmp_path, monkeypatch):
    """The layer above is a test only if it can fail."""
    monkeypatch.setattr(PowerFiles, "_remember", lambda self, folder: None)
    (tmp_path / "a").mkdir()
    EpisodeStore.create(tmp_path / "a" / "s.zarr", SPECS)
    layer = PowerFiles(tmp_path / "a", tmp_path / "b", None)
    store = EpisodeStore.open(tmp_path / "a" / "s.zarr", files=layer)
    store.append(EPISODES[0])
    layer.cut_at = layer.operations + 1
    with pytest.raises(PowerCutError):
        layer.tick()
    assert not (tmp_path / "b" / "s.zarr").exists()


def test_an_unfinished_episode_loses_only_what_was_not_synced(tmp_path):
    """Half of the samples, a sync, the other half, a cut: the first half is recovered, bit for bit."""
    (tmp_path / "a").mkdir()
    EpisodeStore.create(tmp_path / "a" / "s.zarr", SPECS)
    layer = PowerFiles(tmp_path / "a", tmp_path / "b", None)
    now = [0.0]
    store = EpisodeStore.open(tmp_path / "a" / "s.zarr", files=layer)
    writer = store.begin(background=False, now_s=lambda: now[0], seed=5)
    episode = make_episode(SPECS, 10, seed=5)
    signals = dict(episode.signals())
    for step in range(10):
        if step == 6:
            now[0] += 1.0  # the next sample finds that it is time to sync
        for name, whole in signals.items():
            share = len(whole.value) // 10
            part = slice(step * share, (step + 1) * share)
            writer.add(name, type(whole)(whole.value[part], whole.time_ns[part]))
    layer.cut_at = layer.operations + 1
    with pytest.raises(PowerCutError):
        layer.tick()
    survivor = EpisodeStore.open(tmp_path / "b" / "s.zarr")
    assert len(survivor) == 0
    (item,) = unfinished(survivor)
    recovered = survivor.read(recover(survivor, item))
    assert recovered.success is None and recovered.metadata["recovered"] is True and recovered.seed == 5
    assert len(recovered) == 6
    for name, signal in recovered.signals():
        whole = signals[name]
        assert len(signal.value) >= len(whole.value) // 10 * 6
        assert (signal.value == whole.value[: len(signal.value)]).all()
    assert unfinished(survivor) == [] and verify(survivor) == []
