"""Windows against the slow reference: never across episodes, padded by holding still, in a seeded order.

Whatever is held in memory, in a file or not at all, and however an episode is trimmed.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power import UnsyncedFiles
from reference.windows import newest, window
from synthetic import STATES, STEP_NS, make_episode, make_specs

from robopolicy.core.errors import ConfigError, SpecError, StoreError
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets import editing
from robopolicy.datasets.episode import Episode, Signal
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
    windows = Windows(store, Horizons(), KEYS)
    for index in (-1, -14, 14, 1 << 40):  # a negative one is not counted from the end
        with pytest.raises(ConfigError, match=rf"numbered 0\.\.13, got \[{index}\]"):
            windows.batch(np.array([3, index]))
    assert windows.batch(np.array([], np.int64)).action.shape == (0, 16, windows.specs.action.dim)
    empty = EpisodeStore.create(tmp_path / "empty.zarr", make_specs())
    with pytest.raises(StoreError, match="has no episodes"):
        Windows(empty, Horizons(), KEYS)


# -- cameras, memory and trims -----------------------------------------------------------------------------

#: Sampling periods, in steps; each signal starts somewhere in the period before the first action.
PERIODS = {"joints": 0.31, "goal": 2.6, "scene": 1.7, "range": 1.0}
MIXED = Specs(
    {
        "joints": STATES["joints"],
        "goal": STATES["goal"],
        "scene": ArraySpec((2, 3, 3), "uint8", kind="image"),
        "range": ArraySpec((3, 2, 1), "uint16", ("mm",), kind="depth"),
    },
    ACTIONS["absolute"],
    policy_rate=10.0,
)
MIXED_LENGTHS = (5, 1, 8, 3)
BUDGETS = (0, 1, 200, 400, 900, 1 << 30)


def mixed_episode(length: int, seed: int) -> Episode:
    """Signals at different rates, with jitter, from before the first action to after the last."""
    rng = np.random.default_rng(seed)
    observation = {}
    for key, period in PERIODS.items():
        spec, count = MIXED.observation[key], int((length + 2) / period) + 2
        jitter = rng.uniform(0.8, 1.0, count).cumsum() - rng.uniform(0.8, 1.0)
        times = ((jitter - jitter[0]) * period * STEP_NS).astype(np.int64)
        times -= rng.integers(0, int(0.5 * STEP_NS))
        value = rng.integers(0, 200, (count, *spec.shape)).astype(spec.dtype)
        observation[key] = Signal(value, times)
    action = rng.integers(0, 100, (length, MIXED.action.dim)).astype(np.float32)
    return Episode(observation, Signal(action, np.arange(length, dtype=np.int64) * STEP_NS), seed=seed)


@cache
def mixed() -> tuple[EpisodeStore, list[Episode]]:
    """A store of such episodes, and the episodes."""
    recorded = [mixed_episode(length, seed) for seed, length in enumerate(MIXED_LENGTHS)]
    path = Path(tempfile.mkdtemp()) / "s.zarr"
    store = EpisodeStore.create(path, MIXED, files=UnsyncedFiles())
    for episode in recorded:
        store.append(episode)
    return store, recorded


def reference_steps(episode: Episode, start: int, stop: int) -> dict:
    """Steps ``start`` to ``stop`` of an episode, aligned one sample at a time."""
    observation = {}
    for key, signal in episode.observation.items():
        times, now = signal.time_ns.tolist(), episode.action.time_ns[start:stop].tolist()
        observation[key] = signal.value[[newest(times, instant) for instant in now]]
    return {"action": episode.action.value[start:stop], "observation": observation}


def assert_reference_windows(windows: Windows, aligned: list[dict]) -> None:
    where = [(e, t) for e, steps in enumerate(aligned) for t in range(len(steps["action"]))]
    assert len(windows) == len(where)
    batch = windows.batch(np.arange(len(where)))
    parts = [(part.space, len(part.names)) for part in MIXED.action.parts]
    horizons = windows.horizons
    for row, (episode, t) in enumerate(where):
        expected = window(aligned[episode], parts, t, horizons.observation, horizons.prediction)
        for key in PERIODS:
            np.testing.assert_array_equal(batch.observation[key][row], np.stack(expected[0][key]))
        np.testing.assert_array_equal(batch.action[row], np.array(expected[1], np.float32))
        np.testing.assert_array_equal(batch.mask[row], expected[2])


spans = st.tuples(st.floats(0, 1), st.floats(0, 1))


def span_of(length: int, share: tuple[float, float]) -> tuple[int, int]:
    """A span of at least one step."""
    start = min(int(share[0] * length), length - 1)
    return start, start + 1 + int(share[1] * (length - 1 - start))


@settings(max_examples=30)
@given(
    trims=st.lists(st.tuples(st.integers(0, len(MIXED_LENGTHS) - 1), spans), max_size=4),
    budget=st.sampled_from(BUDGETS),
    threads=st.integers(1, 2),
    observed=st.integers(1, 3),
    extra=st.integers(0, 3),
)
def test_windows_of_trimmed_episodes_are_those_of_the_trimmed_reference(
    trims, budget, threads, observed, extra
):
    store, recorded = mixed()
    editing.restore(store, len(recorded))  # as recorded
    kept = [(0, len(episode)) for episode in recorded]
    for index, share in trims:  # the same episode may be trimmed again
        first, last = kept[index]
        start, stop = span_of(last - first, share)
        editing.trim(store, store.names[index], start, stop)
        kept[index] = (first + start, first + stop)
    aligned = [reference_steps(episode, *span) for episode, span in zip(recorded, kept)]
    horizons = Horizons(observed, observed + extra, 1)
    windows = Windows(store, horizons, tuple(PERIODS), memory_bytes=budget, threads=threads)
    assert_reference_windows(windows, aligned)
    for name, steps in zip(store.names, aligned):
        episode = store.read(name)
        episode.check(MIXED, name)  # a trimmed episode is an episode
        observation, action = align(episode, MIXED)
        np.testing.assert_array_equal(action, steps["action"])
        for key in PERIODS:
            np.testing.assert_array_equal(observation[key], steps["observation"][key])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("budget", BUDGETS)
def test_memory_changes_no_batch_and_is_kept_to(budget, threads):
    store, recorded = mixed()
    editing.restore(store, len(recorded))
    keys, horizons = tuple(PERIODS), Horizons(2, 4, 2)
    plenty = Windows(store, horizons, keys)
    windows = Windows(store, horizons, keys, memory_bytes=budget, threads=threads)
    for first, second in zip(
        plenty.epoch(3, seed=1, epoch=2), windows.epoch(3, seed=1, epoch=2), strict=True
    ):
        for key in keys:
            assert first.observation[key].dtype == second.observation[key].dtype
            np.testing.assert_array_equal(first.observation[key], second.observation[key])
        np.testing.assert_array_equal(first.action, second.action)
        np.testing.assert_array_equal(first.mask, second.mask)
    cameras = 2
    episodes = 24 * len(store)  # first and last step, and the instruction
    index = len(windows) * (4 + 24 * cameras) + episodes
    assert windows.memory_bytes <= budget + index
    row = 4 * MIXED.action.dim + sum(
        np.dtype(spec.dtype).itemsize * int(np.prod(spec.shape)) for spec in MIXED.observation.values()
    )
    assert plenty.memory_bytes == len(windows) * (4 + row) + episodes  # and all of it is said


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_no_window_sees_another_episode(tmp_path, budget):
    """Every number of an episode is the episode's own."""
    store = EpisodeStore.create(tmp_path / "s.zarr", MIXED, files=UnsyncedFiles())
    lengths = (1, 4, 2, 7)
    for index, length in enumerate(lengths):
        episode = mixed_episode(length, index)
        same = {k: Signal(np.full_like(s.value, index), s.time_ns) for k, s in episode.observation.items()}
        action = Signal(np.full_like(episode.action.value, index), episode.action.time_ns)
        store.append(Episode(same, action))
    windows = Windows(store, Horizons(4, 9, 2), tuple(PERIODS), memory_bytes=budget)
    batch = windows.batch(np.arange(len(windows)))
    owners = np.repeat(np.arange(len(lengths)), lengths)
    for value in (*batch.observation.values(), batch.action):
        others = value.reshape(len(owners), -1) != owners[:, None]
        assert not others.any()


def test_batches_are_new_arrays(tmp_path):
    """Whoever changes a batch changes nothing else."""
    store, recorded = mixed()
    editing.restore(store, len(recorded))
    for budget in (0, 1 << 30):
        windows = Windows(store, Horizons(1, 1, 1), tuple(PERIODS), memory_bytes=budget)
        before, spoilt = windows.batch(np.arange(5)), windows.batch(np.arange(5))
        for value in (*spoilt.observation.values(), spoilt.action, spoilt.mask):
            assert type(value) is np.ndarray
            value[...] = 1 - value if value.dtype != bool else ~value
        after = windows.batch(np.arange(5))
        np.testing.assert_array_equal(after.action, before.action)
        np.testing.assert_array_equal(after.mask, before.mask)
        for key in PERIODS:
            np.testing.assert_array_equal(after.observation[key], before.observation[key])


def test_every_window_knows_its_episode_and_instruction(tmp_path):
    store = EpisodeStore.create(tmp_path / "s.zarr", make_specs(), files=UnsyncedFiles())
    texts = ("push", "", "lift", "push")
    for seed, text in enumerate(texts):
        store.append(make_episode(make_specs(), 2 + seed, seed, instruction=text))
    windows = Windows(store, Horizons(1, 2, 1), KEYS, ["000001", "000003", "000002"])
    assert windows.instructions == ["", "push", "lift"]
    batch = windows.batch(np.arange(len(windows)))
    said = [windows.instructions[row] for row in batch.instruction]
    assert said == [""] * 3 + ["push"] * 5 + ["lift"] * 4
    assert windows.episode.tolist() == [0] * 3 + [1] * 5 + [2] * 4
    assert windows.names_by_store == {str(store.path): ["000001", "000003", "000002"]}
