"""Several stores as one source of batches: every row is a row of its store, in the shares asked for."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power import UnsyncedFiles
from synthetic import make_episode, make_specs

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import Specs
from robopolicy.datasets.goals import GoalConfig
from robopolicy.datasets.loader import Loader, TensorBatch
from robopolicy.datasets.mixture import Mixture, split_episodes
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Batch, Windows

KEYS = ("joints", "goal.points", "scene")
HORIZONS = Horizons(2, 4, 2)
SPECS = make_specs(image=True)
#: Lengths and instructions of the episodes of each store.
STORES = {
    "reach": [(7, "reach"), (3, "reach"), (5, "")],
    "push": [(20, "push"), (11, "reach")],
    "lift": [(2, "lift it"), (1, "push")],
}

NAMES = [f"{index:06d}" for index in range(25)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("stores")
    for number, (name, episodes) in enumerate(STORES.items()):
        store = EpisodeStore.create(root / name, SPECS, files=UnsyncedFiles())
        for index, (length, text) in enumerate(episodes):
            store.append(make_episode(SPECS, length, 100 * number + index, instruction=text))
    return root


@pytest.fixture(scope="module")
def parts(folder) -> list[Windows]:
    return [open_part(folder, name) for name in STORES]


def open_part(folder: Path, name: str, **options) -> Windows:
    goal = GoalConfig("future")
    return Windows(EpisodeStore.open(folder / name), HORIZONS, KEYS, goal=goal, **options)


def bits(batch: Batch | TensorBatch) -> bytes:
    values = [np.asarray(batch.observation[key]) for key in sorted(batch.observation)]
    rest = [np.asarray(value) for value in (batch.action, batch.mask, batch.instruction)]
    return b"".join(value.tobytes() for value in (*values, *rest))


@settings(max_examples=40)
@given(data=st.data())
def test_every_row_is_the_row_of_its_store(parts, data):
    mixture = Mixture(parts)
    places = [(part, index) for part in parts for index in range(len(part))]
    assert len(mixture) == len(places)
    rows = data.draw(st.lists(st.integers(0, len(places) - 1), min_size=1, max_size=12))
    ahead = data.draw(st.none() | st.lists(st.floats(0, 0.999), min_size=len(rows), max_size=len(rows)))
    batch = mixture.batch(np.array(rows), None if ahead is None else np.array(ahead))
    for row, chosen in enumerate(rows):
        part, index = places[chosen]
        alone = part.batch(np.array([index]), None if ahead is None else np.array(ahead[row : row + 1]))
        for key in KEYS:
            np.testing.assert_array_equal(batch.observation[key][row], alone.observation[key][0])
        np.testing.assert_array_equal(batch.action[row], alone.action[0])
        np.testing.assert_array_equal(batch.mask[row], alone.mask[0])
        text = part.instructions[alone.instruction[0]]
        assert mixture.instructions[batch.instruction[row]] == text
    assert batch.instruction.dtype == np.int64


def test_instructions_are_merged_in_order_of_appearance(parts):
    assert Mixture(parts).instructions == ["reach", "", "push", "lift it"]
    assert Mixture(parts[::-1]).instructions == ["lift it", "push", "reach", ""]
    assert parts[1].instructions == ["push", "reach"]


def test_without_weights_an_epoch_draws_every_window_once(parts):
    mixture = Mixture(parts)
    orders = [mixture.order(seed=s, epoch=e) for s, e in itertools.product(range(2), range(2))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(len(mixture)))
    assert len({order.tobytes() for order in orders}) == 4
    one = Mixture(parts[:1])  # of a single store: that store
    np.testing.assert_array_equal(one.order(seed=3, epoch=1), parts[0].order(seed=3, epoch=1))


def test_weights_are_the_shares_of_the_stores(parts):
    mixture, drawn = Mixture(parts, [1, 1, 2]), np.zeros(3)
    borders = np.cumsum([len(part) for part in parts])
    for epoch in range(200):
        order = mixture.order(seed=5, epoch=epoch)
        assert len(order) == len(mixture)
        drawn += np.bincount(np.searchsorted(borders, order, side="right"), minlength=3)
    share = drawn / drawn.sum()
    deviation = np.sqrt(0.25 / drawn.sum())
    assert np.abs(share - [0.25, 0.25, 0.5]).max() < 4 * deviation, share


def test_orders_are_not_what_splits_and_measurements_draw(parts):
    """Those have keys of (seed, what for): the epochs of these numbers must not come out alike."""
    for epoch in range(8):
        for source in (parts[0], Mixture(parts)):
            other = keyed_rng(0, epoch).permutation(len(source))
            assert (source.order(seed=0, epoch=epoch) != other).any()


def test_no_window_comes_twice_before_all_of_its_store_came_once(parts):
    order = Mixture(parts, [1, 1, 20]).order(seed=0, epoch=0)
    last = len(parts[0]) + len(parts[1])
    dealt = order[order >= last] - last
    assert len(dealt) > 10 * len(parts[2])  # three windows, passed many times
    for start in range(0, len(dealt) - 2, 3):
        assert sorted(dealt[start : start + 3]) == [0, 1, 2]
    passes = dealt[: len(dealt) // 3 * 3].reshape(-1, 3)
    assert len(np.unique(passes, axis=0)) > 1  # each pass is shuffled anew


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("weights", [None, [3, 1, 1]])
def test_a_resumed_run_continues_exactly(parts, weights, prefetch):
    """Windows and goals, across epochs, wherever one starts, and whatever was drawn before."""
    loader = Loader(Mixture(parts, weights), 8, seed=4, prefetch=prefetch)
    whole = take(loader, 16)
    assert len(set(whole)) == 16  # 49 windows: 6 batches an epoch
    for start in (1, 5, 6, 7, 13):
        assert take(loader, 16 - start, start) == whole[start:]
    assert take(Loader(Mixture(parts, weights), 8, seed=5, prefetch=prefetch), 16) != whole


def take(loader: Loader, count: int, start: int = 0) -> list[bytes]:
    batches = loader.batches(start)
    try:
        return [bits(batch) for batch in itertools.islice(batches, count)]
    finally:
        batches.close()


def test_processes_share_the_rows_of_every_batch(parts):
    mixture = Mixture(parts, [1, 1, 1])
    whole = list(mixture.epoch(8, seed=1, epoch=0))
    shares = [list(mixture.epoch(8, seed=1, epoch=0, share=slice(4 * r, 4 * r + 4))) for r in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        for key in KEYS:
            joined = np.concatenate([first.observation[key], second.observation[key]])
            np.testing.assert_array_equal(joined, batch.observation[key])
        np.testing.assert_array_equal(np.concatenate([first.action, second.action]), batch.action)
    (tensors,) = itertools.islice(Loader(mixture, 8, seed=1, share=slice(4, 8), prefetch=0).epoch(0), 1)
    assert bits(tensors) == bits(shares[1][0])


def test_normalisers_see_every_window_of_every_store_once(parts):
    for weights in (None, [1, 5, 1]):
        mixture = Mixture(parts, weights)
        fitted = Normalisers.fit(mixture.specs, mixture.observation, mixture.action, "min_max")
        actions = np.concatenate([part.action for part in parts]).astype(np.float64)
        np.testing.assert_allclose(
            fitted.action.offset, (actions.max(0) + actions.min(0)) / 2, rtol=0, atol=1e-12
        )
        every = mixture.batch(np.arange(len(mixture)))
        seen = fitted.observations(mixture.specs, every.observation)["joints"]
        assert seen.min() == pytest.approx(-1) and seen.max() == pytest.approx(1)
    assert sorted(mixture.observation) == ["goal.points", "joints"]  # states only


def test_what_was_used_can_be_said(folder, parts):
    mixture = Mixture(parts)
    assert list(mixture.names_by_store) == [str(folder / name) for name in STORES]
    assert [len(names) for names in mixture.names_by_store.values()] == [3, 2, 2]
    store = str(folder / "push")
    twice = Mixture([open_part(folder, "push", names=[name]) for name in ("000001", "000000")])
    assert twice.names_by_store == {store: ["000001", "000000"]}
    assert mixture.memory_bytes == sum(part.memory_bytes for part in parts)
    assert mixture.on_demand == []
    assert Mixture([open_part(folder, "reach", memory_bytes=0), parts[0]]).on_demand == ["scene"]


def test_specs_that_differ_are_told_by_key_with_what_would_fit(folder):
    store = EpisodeStore.open(folder / "reach")
    one, two, apart = (
        Windows(store, HORIZONS, k) for k in (("joints", "goal"), ("goal", "points"), ("points",))
    )
    with pytest.raises(SpecError) as refused:
        Mixture([one, two])
    told = str(refused.value)
    assert "reach has ['joints']; only" in told and "has ['points']; both have" in told
    assert told.endswith("--train.keys goal chooses") and len(told) < 600
    with pytest.raises(SpecError, match="they share no observation"):
        Mixture([Windows(store, HORIZONS, ("joints",)), apart])


def test_what_does_not_fit_is_refused(folder, parts, tmp_path):
    store = EpisodeStore.open(folder / "reach")
    with pytest.raises(ConfigError, match="at least one store"):
        Mixture([])
    with pytest.raises(ConfigError, match="horizons differ"):
        Mixture([parts[0], Windows(store, Horizons(1, 4, 2), KEYS)])
    faster = dataclasses.replace(SPECS, policy_rate=20.0)
    other = EpisodeStore.create(tmp_path / "other", faster, files=UnsyncedFiles())
    other.append(make_episode(faster))
    with pytest.raises(SpecError, match=r"policy_rate is 10.0 in .*reach and 20.0 in .*other"):
        Mixture([parts[0], Windows(other, HORIZONS, KEYS)])
    for weights in ([1, 1], [1, 1, 0], [1, 1, -1], [1, 1, float("nan")], [1, 1, float("inf")]):
        with pytest.raises(ConfigError, match="3 stores need as many positive weights"):
            Mixture(parts, weights)
    for index in (-1, 49):
        with pytest.raises(ConfigError, match=rf"0..48, got \[{index}\]"):
            Mixture(parts).batch(np.array([0, index]))


@given(fraction=st.floats(0, 0.9), seed=st.integers(0, 9))
def test_a_split_is_a_partition_that_repeats(fraction, seed):
    train, held_out = split_episodes(NAMES, fraction, seed)
    assert sorted(train + held_out) == NAMES
    assert train == sorted(train) and held_out == sorted(held_out)  # the given order
    assert len(held_out) == (max(1, round(25 * fraction)) if fraction else 0)
    assert split_episodes(NAMES, fraction, seed) == (train, held_out)


def test_splits_depend_on_the_seed_and_leave_something():
    assert len({tuple(split_episodes(NAMES, 0.2, seed)[1]) for seed in range(10)}) == 10
    assert split_episodes(["a", "b"], 0.01, 0)[1] != []
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"\[0, 1\), got"):
            split_episodes(NAMES, fraction, 0)
    with pytest.raises(ConfigError, match="holding out 1 of 1 episodes leaves none"):
        split_episodes(["a"], 0.5, 0)


def test_specs_of_the_mixture_are_those_of_its_parts(parts):
    mixture = Mixture(parts)
    assert isinstance(mixture.specs, Specs) and mixture.specs == parts[0].specs
    assert tuple(mixture.specs.observation) == KEYS and mixture.horizons == HORIZONS
