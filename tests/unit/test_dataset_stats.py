"""Streaming numbers against numpy on everything at once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import STEP_NS, make_episode, make_specs

from robopolicy.datasets.episode import Signal
from robopolicy.datasets.moments import Moments, Sample
from robopolicy.datasets.stats import describe
from robopolicy.datasets.store import EpisodeStore


def test_values_equal_numpy_on_the_concatenated_data(tiny_store: EpisodeStore) -> None:
    stats = describe(tiny_store)
    assert set(stats.signals) == {"joints", "goal", "points", "action"}  # pictures are not read
    episodes = [tiny_store.read(name) for name in tiny_store.names]
    for key, signal in stats.signals.items():
        parts = [(e.action if key == "action" else e.observation[key]).value for e in episodes]
        everything = np.concatenate(parts).astype(np.float64)
        expected = {
            "mean": everything.mean(axis=0),
            "std": everything.std(axis=0),
            "min": everything.min(axis=0),
            "max": everything.max(axis=0),
            "q01": np.quantile(everything, 0.01, axis=0),
            "median": np.median(everything, axis=0),
            "q99": np.quantile(everything, 0.99, axis=0),
        }
        for field, value in expected.items():
            np.testing.assert_allclose(
                getattr(signal, field), value, rtol=1e-12, atol=1e-12, err_msg=f"{key} {field}"
            )
        assert (signal.count, signal.non_finite, signal.exact) == (len(everything), 0, True)
    assert stats.signals["action"].names == ("a", "b", "grip")
    assert stats.signals["points"].units == ("m", "m") and np.shape(stats.signals["points"].mean) == (3, 2)


def test_lengths_labels_and_rates(tmp_path: Path) -> None:
    specs = make_specs()
    store = EpisodeStore.create(tmp_path / "s.zarr", specs)
    for seed, (length, success) in enumerate([(9, True), (12, None), (30, False), (5, True)]):
        store.append(make_episode(specs, length, seed, success=success, instruction="ab"[seed % 2]))
    stats = describe(store)
    assert stats.episodes == 4
    assert dataclasses.astuple(stats.steps) == (56, 5, 10.5, 14, 30)
    assert stats.seconds.total == pytest.approx((8 + 11 + 29 + 4) * STEP_NS / 1e9)
    assert stats.success == {"true": 2, "false": 1, "unknown": 1}
    assert stats.instructions == {"a": 2, "b": 2} and stats.clocks == {"monotonic": 4}
    assert stats.rates["action"].mean_hz == pytest.approx(10) and stats.rates[
        "joints"
    ].mean_hz == pytest.approx(20)
    assert stats.rates["action"].jitter_p99_ms == pytest.approx(0, abs=1e-9)
    assert json.loads(json.dumps(stats.tree))["steps"]["max"] == 30
    assert describe(store, store.names[:1]).steps.total == 9


def test_jitter_and_the_longest_step(tmp_path: Path, rng: np.random.Generator) -> None:
    specs = make_specs()
    episode = make_episode(specs, 400)
    steps = STEP_NS + rng.integers(-STEP_NS // 10, STEP_NS // 10, 400)
    steps[100] = 5 * STEP_NS
    times = np.cumsum(steps) - steps[0]
    store = EpisodeStore.create(tmp_path / "s.zarr", specs)
    store.append(dataclasses.replace(episode, action=Signal(episode.action.value, times)))
    rate = describe(store).rates["action"]
    deltas = np.diff(times) / 1e6
    assert rate.mean_hz == pytest.approx(1e3 / deltas.mean())
    assert rate.jitter_p99_ms == pytest.approx(np.quantile(np.abs(deltas - np.median(deltas)), 0.99))
    assert rate.longest_ms == pytest.approx(500)


def test_an_empty_store_is_described_too(tmp_path: Path) -> None:
    stats = describe(EpisodeStore.create(tmp_path / "s.zarr", make_specs()))
    assert stats.episodes == 0 and stats.signals == {} and stats.rates == {}
    json.dumps(stats.tree, allow_nan=False)


def test_moments_keep_their_digits_beside_a_large_offset(rng: np.random.Generator) -> None:
    values = 1e9 + rng.normal(size=(1000, 3))
    moments = Moments()
    for block in np.array_split(values, 7):
        moments.add(block)
    moments.add(values[:0])
    np.testing.assert_allclose(moments.std, (values - 1e9).std(axis=0), rtol=1e-6)
    np.testing.assert_array_equal([moments.min, moments.max], [values.min(axis=0), values.max(axis=0)])


def test_a_sample_stays_small_and_even(rng: np.random.Generator) -> None:
    rows = np.arange(10_000, dtype=np.float64)[:, None] * [1.0, 2.0]
    sample, whole = Sample(keep=1000), Sample()
    for block in np.array_split(rows, 37):
        sample.add(block)
        whole.add(block)
        assert sample._numbers <= 1000
    assert whole.exact and not sample.exact
    kept = np.concatenate(sample._rows)[:, 0]
    assert (np.diff(kept) == 32).all() and kept[0] == 0
    np.testing.assert_allclose(sample.quantiles((0.5,)), whole.quantiles((0.5,)), rtol=0.01)
    np.testing.assert_array_equal(whole.quantiles((0.01, 0.99)), np.quantile(rows, (0.01, 0.99), axis=0))
