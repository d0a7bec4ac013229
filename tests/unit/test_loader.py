"""Batches for training: a pure function of seed and step, errors in their turn, no threads left."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import numpy as np
import pytest
import torch
from power import UnsyncedFiles
from synthetic import make_episode, make_specs

from robopolicy.core.errors import ConfigError, StoreError
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.loader import Loader, TensorBatch
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Batch, Windows

IMAGES = make_specs(image=True)
DEPTH = ArraySpec((4, 3, 1), "uint16", ("mm",), kind="depth")
SPECS = Specs({**IMAGES.observation, "range": DEPTH}, IMAGES.action, IMAGES.policy_rate)
KEYS = ("joints", "scene", "range")
LENGTHS = (9, 12, 5)  # 26 windows: with batches of 4, 6 batches an epoch and 2 windows left out


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    store = EpisodeStore.create(tmp_path / "s.zarr", SPECS, files=UnsyncedFiles())
    rng = np.random.default_rng(3)
    for seed, length in enumerate(LENGTHS):
        whole = make_episode(IMAGES, length, seed)
        depth = rng.integers(0, 65536, (length, *DEPTH.shape)).astype(np.uint16)
        observation = {**whole.observation, "range": Signal(depth, whole.action.time_ns)}
        store.append(Episode(observation, whole.action, seed=seed))
    return store


@pytest.fixture
def windows(store) -> Windows:
    return Windows(store, Horizons(2, 4, 2), KEYS)


def bits(batch: TensorBatch) -> bytes:
    tensors = [batch.observation[key] for key in sorted(batch.observation)]
    rest = (batch.action, batch.mask, batch.instruction)
    return b"".join(t.numpy().tobytes() for t in (*tensors, *rest))


def take(loader: Loader, count: int, start: int = 0) -> list[bytes]:
    batches = loader.batches(start)
    try:
        return [bits(batch) for batch in itertools.islice(batches, count)]
    finally:
        batches.close()


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loader"]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_batch_is_a_pure_function_of_seed_and_step(windows, prefetch):
    """Across the borders of epochs, wherever one starts."""
    whole = take(Loader(windows, 4, seed=7, prefetch=prefetch), 20)
    assert len(set(whole)) == 20
    for start in (0, 1, 5, 6, 7, 12, 17):
        assert take(Loader(windows, 4, seed=7, prefetch=prefetch), 20 - start, start) == whole[start:]
    assert take(Loader(windows, 4, seed=8, prefetch=prefetch), 20) != whole


def test_batches_ahead_are_the_same_batches(windows):
    assert take(Loader(windows, 4, prefetch=0), 15) == take(Loader(windows, 4, prefetch=3), 15)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_is_every_window_once_and_ends(windows, prefetch):
    loader = Loader(windows, 13, seed=1, prefetch=prefetch)
    first, second = loader.epoch(4)
    seen = torch.cat([first.action, second.action]).numpy()
    whole = windows.batch(np.arange(26)).action
    assert sorted(map(bytes, seen)) == sorted(map(bytes, whole))
    assert [bits(batch) for batch in loader.epoch(4, skip=1)] == [bits(second)]
    assert loader_threads() == []


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_tensors_hold_what_the_windows_hold(store, memory_bytes):
    windows = Windows(store, Horizons(2, 4, 2), KEYS, memory_bytes=memory_bytes)
    (batch,) = Loader(windows, 26, seed=2).epoch(0)
    expected = windows.batch(windows.order(seed=2, epoch=0))
    for key in KEYS:
        np.testing.assert_array_equal(batch.observation[key].numpy(), expected.observation[key])
    assert batch.observation["scene"].dtype == torch.uint8
    assert batch.observation["range"].dtype == torch.uint16
    assert (batch.action.dtype, batch.mask.dtype) == (torch.float32, torch.bool)
    np.testing.assert_array_equal(batch.action.numpy(), expected.action)
    np.testing.assert_array_equal(batch.mask.numpy(), expected.mask)
    assert batch.instruction.dtype == torch.int64
    np.testing.assert_array_equal(batch.instruction.numpy(), expected.instruction)
    assert bits(batch.to("cpu")) == bits(batch)


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_tensors_own_their_memory(store, memory_bytes, prefetch):
    """Augmenting in place spoils neither the data nor later batches."""
    windows = Windows(store, Horizons(2, 4, 2), KEYS, memory_bytes=memory_bytes)
    expected = take(Loader(windows, 4), 14)
    loader, batches = Loader(windows, 4, prefetch=prefetch), []
    for batch in itertools.islice(loader.batches(), 14):
        batches.append(bits(batch))
        for tensor in (*batch.observation.values(), batch.action):
            tensor.view(torch.uint8).fill_(255)
        batch.mask.logical_not_()
    assert batches == expected == take(Loader(windows, 4), 14)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_transform_is_applied_once_to_every_batch(windows, prefetch):
    def double(batch: Batch) -> Batch:
        return dataclasses.replace(batch, action=batch.action * 2)

    plain = list(Loader(windows, 4).epoch(0))
    doubled = list(Loader(windows, 4, transform=double, prefetch=prefetch).epoch(0))
    assert len(plain) == len(doubled) == 6
    for before, after in zip(plain, doubled):
        torch.testing.assert_close(after.action, before.action * 2, rtol=0, atol=0)
        torch.testing.assert_close(after.mask, before.mask, rtol=0, atol=0)


class OddBatchError(Exception):
    """From a user's transform."""


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_of_the_transform_comes_out_in_its_turn(windows, prefetch):
    calls = itertools.count()

    def fail_third(batch: Batch) -> Batch:
        if next(calls) == 2:
            raise OddBatchError("third batch")
        return batch

    batches = Loader(windows, 4, transform=fail_third, prefetch=prefetch).batches()
    expected = take(Loader(windows, 4), 2)
    assert [bits(next(batches)), bits(next(batches))] == expected
    with pytest.raises(OddBatchError, match="third batch"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)
    assert loader_threads() == []


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_damaged_frame_comes_out_by_its_name(store, prefetch, threads):
    """Found only when its batch is drawn: frames that do not fit into memory are read then."""
    windows = Windows(store, Horizons(2, 4, 2), KEYS, memory_bytes=0, threads=threads)
    frames = store.reader("000001").frames("observation/scene")
    path, (offset, size) = store.path / frames.file, frames.places[3].tolist()
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(StoreError, match="episode 000001, observation/scene, frame 3: checksum"):
        for _ in Loader(windows, 4, prefetch=prefetch).epoch(0):
            pass
    assert loader_threads() == []


def test_closing_early_stops_the_thread(windows):
    batches = Loader(windows, 4, prefetch=2).batches()
    assert loader_threads() == []  # it starts with the first batch
    next(batches)
    assert len(loader_threads()) == 1
    batches.close()
    assert loader_threads() == []


def test_a_forgotten_loader_leaves_no_thread(windows):
    for _ in Loader(windows, 4, prefetch=1).batches():
        break
    assert loader_threads() == []


def test_no_more_than_so_many_batches_are_drawn_ahead(windows):
    """Memory stays bounded: the queue holds ``prefetch``, and one more is in the thread's hands."""
    drawn, enough = [], threading.Event()

    def count(batch: Batch) -> Batch:
        drawn.append(1)
        if len(drawn) == 1 + 3 + 1:
            enough.set()
        return batch

    batches = Loader(windows, 4, transform=count, prefetch=3).batches()
    next(batches)
    assert enough.wait(10)
    assert not wait_for_more(drawn, 5)
    batches.close()


def wait_for_more(drawn: list[int], limit: int) -> bool:
    """Gives the thread a chance to draw too many."""
    threading.Event().wait(0.15)
    return len(drawn) > limit


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (27, {}, "26 windows are fewer than one batch of 27"),
        (0, {}, "batch_size must be >= 1 .* got 0"),
        (-1, {}, "batch_size must be >= 1 .* got -1"),
        (4, {"prefetch": -1}, "prefetch >= 0, got 4 and -1"),
    ],
)
def test_sizes_out_of_range_are_refused(windows, size, options, message):
    with pytest.raises(ConfigError, match=message):
        Loader(windows, size, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_pinning_without_cuda_is_refused_at_once(windows):
    with pytest.raises(ConfigError, match="pin=True needs a CUDA device"):
        Loader(windows, 4, pin=True)
    assert not next(Loader(windows, 4, prefetch=0).batches()).action.is_pinned()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_are_pinned_where_a_gpu_takes_them(windows, prefetch):
    batches = Loader(windows, 4, prefetch=prefetch).batches()
    batch = next(batches)
    batches.close()
    assert batch.action.is_pinned() and all(v.is_pinned() for v in batch.observation.values())
    moved = batch.to("cuda")
    torch.cuda.synchronize()
    assert bits(moved.to("cpu")) == bits(batch)
