"""Transitions against a slow sum over one episode; they never cross episodes, and any run can resume them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from power import UnsyncedFiles
from synthetic import make_episode, make_specs

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Normalisers
from robopolicy.datasets.goals import GoalConfig
from robopolicy.datasets.loader import Loader, as_tensors
from robopolicy.datasets.mixture import Mixture
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.transitions import (
    Label,
    TransitionBatch,
    TransitionConfig,
    Transitions,
    transitions_of,
)
from robopolicy.datasets.windows import Windows

SPECS = make_specs()
KEYS = ("joints", "points")
HORIZONS = Horizons(2, 6, 3)
LENGTHS = (9, 4, 1), (12, 2)  # of the episodes of two stores; some are shorter than a chunk
LATER = 4000  # steps after which nothing counts any more


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> list[Windows]:
    folder = tmp_path_factory.mktemp("stores")
    found = []
    for number, lengths in enumerate(LENGTHS):
        store = EpisodeStore.create(folder / str(number), SPECS, files=UnsyncedFiles())
        for index, length in enumerate(lengths):
            store.append(make_episode(SPECS, length, 10 * number + index, instruction=f"task {index}"))
        found.append(Windows(store, HORIZONS, KEYS))
    return found


def labels_of(lengths: tuple[int, ...], seed: int = 0) -> list[Label]:
    rng = np.random.default_rng(seed)
    return [Label(rng.normal(size=length), bool(place % 2)) for place, length in enumerate(lengths)]


@pytest.fixture
def transitions(parts) -> Transitions:
    return Transitions(Mixture(parts), [labels_of(lengths) for lengths in LENGTHS])


def slow(label: Label, step: int, count: int, config: TransitionConfig) -> tuple[float, float, float]:
    """Reward, discount and return of one step, by adding up what follows it one step at a time."""
    rewards = list(label.reward)
    after_end = 0.0 if label.success else rewards[-1]
    for_ever = rewards + [after_end] * LATER
    whole = sum(config.gamma**i * r for i, r in enumerate(for_ever[step:]))
    left = len(rewards) - step
    if left > count:
        summed = sum(config.gamma**i * rewards[step + i] for i in range(count))
        return summed, config.gamma**count, whole
    return whole, 0.0, whole


@given(
    rewards=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=12),
    success=st.booleans(),
    count=st.integers(1, 14),
    gamma=st.sampled_from((0.0, 0.5, 0.9, 0.98)),
)
def test_targets_are_what_the_slow_sum_gives(rewards, success, count, gamma):
    label = Label(np.array(rewards), success)
    config = TransitionConfig(gamma)
    fast = transitions_of(label, count, config)
    for step in range(len(rewards)):
        found = (fast.reward[step], fast.discount[step], fast.mc_return[step])
        np.testing.assert_allclose(found, slow(label, step, count, config), rtol=1e-5, atol=1e-5)
        assert fast.after[step] == min(step + count, len(rewards) - 1)


def test_returns_are_the_fixed_point_of_the_transitions(transitions):
    target = transitions.reward + transitions.discount * transitions.mc_return[transitions.next_index]
    np.testing.assert_allclose(target, transitions.mc_return, rtol=1e-5, atol=1e-5)


def test_a_step_of_minus_one_costs_fifty_where_it_never_ends():
    failed = transitions_of(Label(-np.ones(20), False), 8, TransitionConfig(0.98))
    np.testing.assert_allclose(failed.mc_return, -50, rtol=1e-6)
    rewards = -np.ones(20)
    rewards[-3:] = 0
    reached = transitions_of(Label(rewards, True), 8, TransitionConfig(0.98))
    assert reached.mc_return[16] == -1 and reached.mc_return[17] == 0
    assert (np.diff(reached.mc_return) >= 0).all() and reached.mc_return[0] > -17
    assert (reached.discount == 0).tolist() == [False] * 12 + [True] * 8


def test_what_follows_lies_in_the_same_episode(transitions):
    assert (transitions.episode[transitions.next_index] == transitions.episode).all()
    assert (transitions.next_index >= np.arange(len(transitions))).all()
    assert transitions.returns.lowest <= transitions.mc_return.min()
    assert transitions.returns.highest >= transitions.mc_return.max()


def test_rows_are_those_of_the_windows(parts, transitions):
    mixture, indices = Mixture(parts), np.array([0, 27, 5, 13, 8, 14])
    batch = transitions.batch(indices)
    now, then = mixture.batch(indices), mixture.batch(transitions.next_index[indices])
    for key in KEYS:
        np.testing.assert_array_equal(batch.observation[key], now.observation[key])
        np.testing.assert_array_equal(batch.next_observation[key], then.observation[key])
    np.testing.assert_array_equal(batch.action, now.action)
    np.testing.assert_array_equal(batch.next_action, then.action)
    np.testing.assert_array_equal(batch.instruction, now.instruction)
    np.testing.assert_array_equal(batch.index, indices)
    np.testing.assert_array_equal(batch.next_index, [3, 27, 8, 13, 8, 17])
    assert batch.success.tolist() == [False, True, False, False, False, False]


def with_goals(folder, success: bool) -> Transitions:
    store = EpisodeStore.create(folder / "s.zarr", SPECS, files=UnsyncedFiles())
    store.append(make_episode(SPECS, 9, 0))
    store.append(make_episode(SPECS, 4, 1))
    windows = Windows(store, HORIZONS, ("joints", "goal.points"), goal=GoalConfig("future"))
    return Transitions(windows, [[Label(np.zeros(9), True), Label(np.zeros(4), success)]])


def test_goals_are_those_of_the_end_now_and_next(tmp_path):
    """Drawn ones would change between the two windows, and the rewards would be those of another goal."""
    transitions = with_goals(tmp_path, success=True)
    batch = transitions.batch(np.arange(9))
    end = transitions.source.observation["goal.points"][8]
    for observation in (batch.observation, batch.next_observation):
        found = observation["goal.points"]
        np.testing.assert_array_equal(found, np.broadcast_to(end, found.shape))
    assert not transitions.samples_ahead and transitions.source.samples_ahead


def test_a_goal_that_gives_the_outcome_away_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"goals \['goal.points'\] are taken from how each episode ended"):
        with_goals(tmp_path, success=False)


def test_recorded_goals_give_nothing_away(tmp_path):
    store = EpisodeStore.create(tmp_path / "s.zarr", SPECS, files=UnsyncedFiles())
    store.append(make_episode(SPECS, 9, 0))
    Transitions(Windows(store, HORIZONS, ("joints", "goal")), [[Label(np.zeros(9), False)]])


def test_only_a_store_and_an_instruction_together_are_one_group(transitions):
    starts = np.searchsorted(transitions.episode, np.arange(5))
    assert len(set(transitions.group[starts])) == 5  # both stores have a "task 0"
    assert (transitions.group == transitions.group[starts][transitions.episode]).all()


def test_the_digest_is_of_what_the_windows_are_worth(parts):
    told = labels_of(LENGTHS[1])
    first = Transitions(parts[1], [told]).digest
    assert first == Transitions(parts[1], [labels_of(LENGTHS[1])]).digest
    other = [dataclasses.replace(told[0], reward=told[0].reward + 1e-3), told[1]]
    judged = [told[0], dataclasses.replace(told[1], success=False)]
    assert len({first, *(Transitions(parts[1], [labels]).digest for labels in (other, judged))}) == 3


@pytest.mark.parametrize(
    ("won", "lost", "highest"),
    [(-np.ones(12), -np.ones(2), -1.0), (np.arange(12.0) == 11, np.zeros(2), 1.0), (None, np.ones(2), 100.0)],
)
def test_no_target_lies_above_the_best_that_was_seen_or_that_failing_for_ever_brings(
    parts, won, lost, highest
):
    labels = [Label(np.zeros(12) if won is None else won.astype(float), True), Label(lost, False)]
    found = Transitions(parts[1], [labels], TransitionConfig(0.99)).returns
    assert found.highest == pytest.approx(highest) and found.lowest <= found.mean <= found.highest


def test_one_store_or_several(parts, transitions):
    alone = Transitions(parts[1], [labels_of(LENGTHS[1])])
    shift = len(parts[0])
    for name in ("reward", "discount", "mc_return", "success"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(transitions, name)[shift:])
    np.testing.assert_array_equal(alone.next_index + shift, transitions.next_index[shift:])


def test_the_loader_resumes_and_shares_them(transitions):
    def bits(batch: TransitionBatch) -> tuple[bytes, ...]:
        fields = (batch.index, batch.next_index, batch.reward, batch.next_observation["joints"], batch.action)
        return tuple(tensor.numpy().tobytes() for tensor in fields)

    def first(start: int, **options) -> list[TransitionBatch]:
        loader = Loader(transitions, 5, seed=3, into=TransitionBatch, **options)
        return list(itertools.islice(loader.batches(start), 8 - start))

    whole = first(0)
    assert [bits(b) for b in first(4, prefetch=0)] == [bits(b) for b in whole[4:]]
    assert len({bits(b) for b in whole}) == 8
    for one, part in zip(whole, first(0, share=np.array([1, 4]))):
        assert one.index[[1, 4]].tolist() == part.index.tolist()
        torch.testing.assert_close(one.mc_return[[1, 4]], part.mc_return)


def test_tensors_keep_what_is_not_there(transitions):
    batch = as_tensors(transitions.batch(np.arange(6)), TransitionBatch)
    moved = batch.to("cpu").rows(slice(2, 4))
    assert moved.policy_chunks is None and moved.index.tolist() == [2, 3]
    pooled = dataclasses.replace(batch, policy_chunks=torch.arange(6.0)[:, None, None, None])
    assert pooled.rows(slice(1, 3)).policy_chunks.flatten().tolist() == [1, 2]
    assert set(moved.next_observation) == set(KEYS) and len(moved.next_observation["joints"]) == 2


def test_both_windows_are_normalised(transitions):
    normalisers = Normalisers.fit(transitions.specs, transitions.observation, transitions.action, "min_max")
    raw = transitions.batch(np.arange(6))
    seen = raw.normalised(transitions.specs, normalisers)
    for name in ("observation", "next_observation"):
        expected = normalisers.observation["joints"].forward(getattr(raw, name)["joints"])
        np.testing.assert_array_equal(getattr(seen, name)["joints"], expected)
    np.testing.assert_array_equal(seen.next_action, normalisers.action.forward(raw.next_action))
    np.testing.assert_array_equal(seen.mc_return, raw.mc_return)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda told: told[:1], ShapeError, "2 stores need as many lists of labels, got 1"),
        (lambda told: [told[0][:2], told[1]], ShapeError, "3 episodes need as many labels, got 2"),
        (
            lambda told: [[told[0][0], Label(np.zeros(5), True), told[0][2]], told[1]],
            ShapeError,
            r"episode 000001: 4 steps need rewards \(4,\), got \(5,\)",
        ),
        (
            lambda told: [told[0], [told[1][0], Label(np.array([0.0, np.nan]), True)]],
            NonFiniteValueError,
            "episode 000001: the reward of step 1 is nan",
        ),
    ],
)
def test_labels_that_do_not_fit_name_the_episode(parts, change, error, message):
    told = [labels_of(lengths) for lengths in LENGTHS]
    with pytest.raises(error, match=message):
        Transitions(Mixture(parts), change(told))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.0}, r"gamma 1.0 not in \[0, 1\)"),
        ({"steps": -1}, "steps must be >= 0, got -1"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        TransitionConfig(**options)
