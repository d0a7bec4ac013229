"""Windows against the slow reference: never across episodes, padded by holding still, in a seeded order."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.windows import newest, window
from synthetic import STEP_NS, make_episode, make_specs

from robopolicy.core.errors import SpecError, StoreError
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart, ActionSpec
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows, align

POSE = tuple("xyzuvwrst")
ACTIONS = {
    "absolute": ActionSpec((ActionPart("joint_position", ("a",)), ActionPart("gripper_opening", ("g",)))),
    "joint_delta": ActionSpec(
        (ActionPart("joint_delta", ("a", "b"), "relative"), ActionPart("gripper_opening", ("g",)))
    ),
    "ee_pose": ActionSpec((ActionPart("ee_pose", POSE),)),
    "ee_delta": ActionSpec((ActionPart("gripper_opening", ("g",)), ActionPart("ee_delta", POSE, "relative"))),
}
LENGTHS = (1, 2, 7, 4)
KEYS = ("joints", "goal")  # the first is sensed at twice the rate


@cache
def episodes(kind: str) -> tuple[EpisodeStore, list[dict]]:
    """A store, and its episodes aligned one sample at a time."""
    specs = make_specs(action=ACTIONS[kind])
    store = EpisodeStore.create(Path(tempfile.mkdtemp()) / "s.zarr", specs)
    aligned = []
    for seed, length in enumerate(LENGTHS):
        episode = make_episode(specs, length, seed)
        store.append(episode)
        observation = {}
        for key in KEYS:
            signal = episode.observation[key]
            picks = [newest(signal.time_ns.tolist(), int(now)) for now in episode.action.time_ns]
            observation[key] = signal.value[picks]
        aligned.append({"action": episode.action.value, "observation": observation})
    return store, aligned


@given(
    kind=st.sampled_from(sorted(ACTIONS)),
    observed=st.integers(1, 4),
    extra=st.integers(0, 6),
    data=st.data(),
)
def test_every_window_is_the_reference_window(kind, observed, extra, data):
    store, aligned = episodes(kind)
    horizons = Horizons(observed, observed + extra, 1)
    windows = Windows(store, horizons, KEYS)
    assert len(windows) == sum(LENGTHS)
    chosen = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=6))
    batch = windows.batch(np.array(chosen))
    where = [(e, t) for e, length in enumerate(LENGTHS) for t in range(length)]
    parts = [(part.space, len(part.names)) for part in store.specs.action.parts]
    for row, index in enumerate(chosen):
        episode, t = where[index]
        frames, actions, inside = window(aligned[episode], parts, t, observed, horizons.prediction)
        for key in KEYS:
            np.testing.assert_array_equal(batch.observation[key][row], np.stack(frames[key]))
        np.testing.assert_array_equal(batch.action[row], np.array(actions, np.float32))
        np.testing.assert_array_equal(batch.mask[row], inside)


def order(windows: Windows, size: int, **key: int) -> list[bytes]:
    return [batch.action.tobytes() for batch in windows.epoch(size, **key)]


@given(seed=st.integers(0, 5), epoch=st.integers(0, 5), size=st.integers(1, 6), skip=st.integers(0, 20))
def test_a_resumed_epoch_continues_exactly(seed, epoch, size, skip):
    windows = Windows(episodes("absolute")[0], Horizons(2, 4, 2), KEYS)
    whole = order(windows, size, seed=seed, epoch=epoch)
    assert len(whole) == len(windows) // size
    assert order(windows, size, seed=seed, epoch=epoch, skip=skip) == whole[skip:]


def test_the_order_depends_on_seed_and_epoch_alone():
    store = episodes("absolute")[0]
    orders = {}
    for seed in range(3):
        for epoch in range(3):
            first, second = (Windows(store, Horizons(1, 1, 1), KEYS) for _ in range(2))
            np.random.seed(epoch)  # nobody may read the global generator
            orders[seed, epoch] = tuple(order(first, 1, seed=seed, epoch=epoch))
            list(second.epoch(3, seed=9, epoch=9))
            assert tuple(order(second, 1, seed=seed, epoch=epoch)) == orders[seed, epoch]
    assert len(set(orders.values())) == len(orders)
    assert len({tuple(sorted(o)) for o in orders.values()}) == 1  # each is a permutation of the same windows


def test_the_newest_sample_that_is_not_from_the_future_is_taken():
    specs = make_specs()
    episode = make_episode(specs, 3)
    late = Signal(np.arange(8, dtype=np.float32).reshape(4, 2), np.array([-1, 0, 1, STEP_NS]))
    observation, _ = align(
        type(episode)({**episode.observation, "joints": late}, episode.action), specs.select(("joints",))
    )
    np.testing.assert_array_equal(observation["joints"][:, 0], [2, 6, 6])


def test_bad_input_is_refused(tmp_path):
    store = episodes("absolute")[0]
    with pytest.raises(SpecError, match=r"\['nose'\]; there are"):
        Windows(store, Horizons(), ("nose",))
    empty = EpisodeStore.create(tmp_path / "empty.zarr", make_specs())
    with pytest.raises(StoreError, match="has no episodes"):
        Windows(empty, Horizons(), KEYS)
