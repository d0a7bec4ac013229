"""Every check of demonstrations: a case that must fire, one like it that must not, and real data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robopolicy import robots
from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets import quality
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.quality.findings import Finding, fold
from robopolicy.datasets.quality.jumps import isolated
from robopolicy.datasets.quality.lag import delay, pool
from robopolicy.datasets.quality.summaries import Summary
from robopolicy.datasets.store import EpisodeStore

STEP = 33_333_333  # [ns], 30 Hz
LENGTH = 200
LAG = 4  # steps by which the synthetic robot follows
NAMES = ("a", "b", "c")
SPECS = Specs(
    {
        "joints": ArraySpec((3,), units=("rad",) * 3, names=NAMES),
        "cube": ArraySpec((2,), units=("m", "m"), names=("x", "y")),
        "camera": ArraySpec((24, 32, 3), "uint8", kind="image"),
        "depth": ArraySpec((24, 32, 1), "uint16", units=("mm",), kind="depth"),
    },
    ActionSpec((ActionPart("joint_position", NAMES),), "start"),
    policy_rate=30.0,
)


def make(seed: int = 0, length: int = LENGTH, **facts: Any) -> Episode:
    """A robot that follows smooth commands ``LAG`` steps later, an object moved once, noisy cameras."""
    rng = np.random.default_rng(seed)
    time_ns = np.arange(length, dtype=np.int64) * STEP
    seconds = (np.arange(-LAG, length)[:, None] * STEP / 1e9) + rng.uniform(0, 3, 3)
    path = np.sin(2.1 * seconds) + 0.4 * np.sin(5.3 * seconds + 1)
    joints = path[:length] + rng.normal(0, 1e-4, (length, 3))
    cube = np.where(np.arange(length)[:, None] < length // 2, rng.uniform(0, 1, 2), rng.uniform(0, 1, 2))
    values: dict[str, np.ndarray] = {
        "joints": joints.astype(np.float32),
        "cube": cube.astype(np.float32),
        "camera": rng.integers(0, 256, (length, 24, 32, 3), dtype=np.uint8),
        "depth": rng.integers(0, 3000, (length, 24, 32, 1), dtype=np.uint16),
    }
    action = Signal(path[LAG : LAG + length].astype(np.float32), time_ns)
    observation = {key: Signal(value, time_ns) for key, value in values.items()}
    labels: dict[str, Any] = {"instruction": "stack", "success": seed % 2 == 0, **facts}
    return Episode(observation, action, **labels)


def changed(episode: Episode, key: str, change: Callable[[np.ndarray], object]) -> Episode:
    """A copy of the episode with ``change`` applied to the values of one signal, in place."""
    old = episode.action if key == "action" else episode.observation[key]
    value = old.value.copy()
    change(value)
    return replaced(episode, key, Signal(value, old.time_ns))


def replaced(episode: Episode, key: str, signal: Signal) -> Episode:
    if key == "action":
        return dataclasses.replace(episode, action=signal)
    return dataclasses.replace(episode, observation={**episode.observation, key: signal})


def found(episode: Episode, check: str, specs: Specs = SPECS) -> list[Finding]:
    return [f for f in quality.check_episode("000007", episode, specs) if f.check == check]


def found_in_all(episodes: list[Episode], check: str, specs: Specs = SPECS) -> list[Finding]:
    module = quality.load(check)
    measure = getattr(module, "measure", None)
    summaries = [
        Summary(
            f"{i:06d}",
            len(e),
            float(e.action.time_ns[-1]) / 1e9,
            e.instruction,
            e.success,
            {check: measure(f"{i:06d}", e, specs)} if measure else {},
        )
        for i, e in enumerate(episodes)
    ]
    return list(module.check_all(summaries, specs))


def assign(place: Any, new: Any) -> Callable[[np.ndarray], None]:
    def change(value: np.ndarray) -> None:
        value[place] = new

    return change


def test_a_clean_dataset_gives_one_note_on_its_lag_and_nothing_else(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "clean.zarr", SPECS)
    for seed in range(4):
        store.append(make(seed))
    calls: list[tuple[int, int]] = []
    findings = quality.check_store(store, on_progress=lambda *at: calls.append(at), images=True)
    assert [(f.severity, f.check) for f in findings] == [("note", "lag")]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_cameras_of_a_store_are_looked_at_only_when_asked(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "dark.zarr", SPECS)
    names = [store.append(make(0)), store.append(changed(make(1), "camera", assign(..., 0)))]
    assert not [f for f in quality.check_store(store) if f.key == "camera"]
    (finding,) = [f for f in quality.check_store(store, images=True) if f.check == "cameras"]
    assert (finding.severity, finding.key, finding.episode) == ("error", "camera", names[1])
    assert not [f for f in quality.check_store(store, names[:1], images=True) if f.check == "cameras"]


def test_every_check_offers_what_the_package_asks_for() -> None:
    assert len(quality.names()) >= 16
    for name in quality.names():
        module = quality.load(name)
        assert hasattr(module, "check") or hasattr(module, "check_all"), name
        assert hasattr(module, "check_all") or not hasattr(module, "measure"), name
    with pytest.raises(UnknownNameError, match="known: action_copy"):
        quality.load("summaries")


def test_findings_are_json_and_back() -> None:
    finding = Finding("warning", "gaps", "000001", "camera", "two", (3, 9))
    assert Finding.from_tree(json.loads(json.dumps(finding.tree))) == finding
    with pytest.raises(ConfigError, match=r"'fatal'.*error"):
        Finding("fatal", "gaps", "", "", "")


def test_folding_joins_many_episodes_and_leaves_few_alone() -> None:
    many = [Finding("warning", "gaps", f"{i:06d}", "camera", "lost 2") for i in range(5)]
    few = [Finding("error", "finite", "000001", "joints", "1 sample")]
    folded = fold([*many, *few])
    assert folded[0] == few[0]
    assert len(folded) == 2 and folded[1].episode == "" and folded[1].message.startswith("in 5 episodes")


# --- what the other checks take for granted


def test_nan_is_an_error_and_hides_the_signal_from_other_checks() -> None:
    findings = quality.check_episode("e", changed(make(), "joints", assign((5, 1), np.nan)), SPECS)
    assert [(f.severity, f.check, f.key, f.frames) for f in findings] == [
        ("error", "finite", "joints", (5, 5))
    ]
    assert "columns [1]" in findings[0].message
    findings = quality.check_episode("e", changed(make(), "action", assign((8, 0), np.inf)), SPECS)
    assert [(f.check, f.key) for f in findings] == [("finite", "action")]


def test_clock_that_stands_or_runs_back() -> None:
    episode = make()
    times = episode.action.time_ns.copy()
    times[10] = times[9]
    (equal,) = found(replaced(episode, "cube", Signal(episode.observation["cube"].value, times)), "clock")
    assert equal.frames == (10, 10) and "equal" in equal.message and "back" not in equal.message
    times[20] = times[15]
    (back,) = found(replaced(episode, "cube", Signal(episode.observation["cube"].value, times)), "clock")
    assert back.severity == "error" and "1 of 199 steps go back" in back.message and back.frames == (10, 20)


# --- time


def test_gaps_are_counted_and_the_longest_named() -> None:
    episode = make()
    keep = np.ones(LENGTH, dtype=bool)
    keep[50] = False
    old = episode.observation["camera"]
    (note,) = found(replaced(episode, "camera", Signal(old.value[keep], old.time_ns[keep])), "gaps")
    assert note.severity == "note" and note.frames == (49, 50)
    keep[120:128] = False
    (gap,) = found(replaced(episode, "camera", Signal(old.value[keep], old.time_ns[keep])), "gaps")
    assert gap.severity == "warning" and gap.key == "camera"
    assert (
        "2 gaps" in gap.message
        and "about 9 frames" in gap.message
        and "300 ms after frame 118" in gap.message
    )


def test_jitter_and_events_are_no_gaps(rng: np.random.Generator) -> None:
    episode = make()
    old = episode.observation["cube"]
    jitter = old.time_ns + rng.integers(0, STEP // 3, LENGTH)
    assert not found(replaced(episode, "cube", Signal(old.value, jitter)), "gaps")
    events = np.cumsum(rng.exponential(STEP, LENGTH).astype(np.int64) + 1)
    events = events * (LENGTH * STEP) // events[-1]
    assert not found(replaced(episode, "cube", Signal(old.value, events)), "gaps")


def test_a_signal_that_ends_early_is_named() -> None:
    episode = make()
    old = episode.observation["camera"]
    (end,) = found(replaced(episode, "camera", Signal(old.value[:150], old.time_ns[:150])), "gaps")
    assert "1.67 s older than the last action" in end.message
    assert not found(replaced(episode, "camera", Signal(old.value[:195], old.time_ns[:195])), "gaps")


# --- values of states


def test_a_state_that_hangs_while_commands_move() -> None:
    def hang(value: np.ndarray) -> None:
        value[60:90] = value[60]

    (hold,) = found(changed(make(), "joints", hang), "frozen")
    assert hold.frames == (60, 89) and "0.97 s" in hold.message
    still = changed(changed(make(), "joints", hang), "action", assign(slice(55, 92), 0.3))
    assert not found(still, "frozen")
    assert not found(changed(make(), "cube", assign(..., 0.3)), "frozen")  # objects do rest


def test_a_robot_state_that_never_moves_in_one_episode() -> None:
    episodes = [make(seed) for seed in range(6)]
    stuck = changed(make(9), "joints", assign(..., 0.5))
    (finding,) = found_in_all([*episodes, stuck], "frozen")
    assert (finding.severity, finding.episode, finding.key) == ("warning", "000006", "joints")
    unused = [changed(e, "joints", assign((slice(None), 2), 0.25)) for e in episodes]
    (note,) = found_in_all(unused, "frozen")
    assert note.severity == "note" and "c = 0.25" in note.message and "a =" not in note.message
    assert not found_in_all([*episodes, changed(make(9), "cube", assign(..., 0.5))], "frozen")


def test_zero_observations() -> None:
    dead = [changed(make(seed), "cube", assign(..., 0)) for seed in range(3)]
    (finding,) = found_in_all(dead, "zeros")
    assert finding.key == "cube" and finding.episode == "" and "every episode" in finding.message
    (once,) = found_in_all([make(1), dead[0], make(2)], "zeros")
    assert once.episode == "000001"
    assert not found_in_all([changed(make(), "cube", assign((slice(None), 0), 0))], "zeros")


def test_a_spike_and_a_step_are_jumps_and_motion_is_not() -> None:
    (spike,) = found(changed(make(), "joints", assign((100, 1), 9.0)), "jumps")
    assert (
        spike.key == "joints" and spike.frames in ((99, 100), (100, 101)) and "b jumps once" in spike.message
    )

    def shift(value: np.ndarray) -> None:
        value[100:, 0] += 5.0

    (step,) = found(changed(make(), "joints", shift), "jumps")
    assert step.frames == (99, 100)
    assert not found(make(), "jumps")  # its cube is moved within one frame


def test_an_object_that_flickers_is_a_jump(rng: np.random.Generator) -> None:
    def track(value: np.ndarray) -> None:
        value[:] = 0.3 + rng.normal(0, 1e-3, value.shape)
        value[70, 1] = 0.9

    (finding,) = found(changed(make(), "cube", track), "jumps")
    assert finding.key == "cube" and "y jumps once" in finding.message


def test_stairs_and_a_stuck_finger_that_slips_are_no_jumps() -> None:
    smooth = np.sin(np.arange(300) / 20)
    assert not isolated(np.diff(smooth[np.arange(300) // 4 * 4])).size  # a sensor four times too slow
    assert isolated(np.diff(np.where(np.arange(300) == 99, 4.0, smooth))).size == 1

    def slip(value: np.ndarray) -> None:
        value[:100, 2] = 0.2 + 0.001 * np.arange(100) % 2
        value[100:, 2] = 0.8 + 0.001 * np.arange(100) % 2

    asked = changed(make(), "action", assign((slice(None), 2), 0.8))
    assert not found(changed(asked, "joints", slip), "jumps")
    refused = changed(make(), "action", assign((slice(None), 2), 0.2))
    assert found(changed(refused, "joints", slip), "jumps")


def test_velocity_limits_of_a_known_robot() -> None:
    names = tuple(f"fr3_joint{i}" for i in range(1, 8))
    spec = ArraySpec((7,), units=("rad",) * 7, names=names)
    specs = Specs({"q": spec}, ActionSpec((ActionPart("joint_position", names),)), 30.0, robot="fr3")
    time_ns = np.arange(100, dtype=np.int64) * STEP
    sway = 0.5 * np.sin(np.arange(100)[:, None] * STEP / 1e9)
    path = (sway + robots.load("fr3").home).astype(np.float32)
    episode = Episode({"q": Signal(path, time_ns)}, Signal(path, time_ns))
    assert not found(episode, "jumps", specs)
    (finding,) = found(changed(episode, "q", assign((50, 3), path[50, 3] + 0.4)), "jumps", specs)
    assert "fr3_joint4" in finding.message and "2.62" in finding.message
    low = changed(episode, "action", assign((slice(20, 60), 3), -3.0421))
    (limit,) = found(low, "saturation", specs)
    assert limit.severity == "warning" and "fr3_joint4 (40%)" in limit.message


def test_degrees_in_a_column_of_radians() -> None:
    degrees = changed(make(), "joints", lambda v: np.multiply(v, 180 / np.pi, out=v))
    (finding,) = found(degrees, "units")
    assert finding.key == "joints" and "degrees" in finding.message
    (far,) = found(changed(make(), "cube", assign((3, 0), 400.0)), "units")
    assert "x: up to 400 m" in far.message
    assert not found(make(), "units")


def test_a_sensor_slower_than_its_stamps() -> None:
    def stairs(value: np.ndarray) -> None:
        value[:] = value[np.arange(LENGTH) // 4 * 4]

    (finding,) = found(changed(make(), "joints", stairs), "held")
    assert "about 7." in finding.message and "stamps at 30 Hz" in finding.message
    assert not found(make(), "held")


# --- actions


def test_action_copied_from_a_state() -> None:
    episode = make()
    joints = episode.observation["joints"].value
    after = replaced(episode, "action", Signal(np.vstack([joints[1:], joints[-1:]]), episode.action.time_ns))
    (finding,) = found(after, "action_copy")
    assert "next 'joints'" in finding.message and "a, b, c" in finding.message
    (finding,) = found(replaced(episode, "action", episode.observation["joints"]), "action_copy")
    assert "current 'joints'" in finding.message
    assert not found(make(), "action_copy")


def test_increments_copied_from_states() -> None:
    specs = dataclasses.replace(SPECS, action=ActionSpec((ActionPart("joint_delta", NAMES, "relative"),)))
    episode = make()
    joints = episode.observation["joints"].value
    steps = np.diff(joints, axis=0, append=joints[-1:])
    (finding,) = found(
        replaced(episode, "action", Signal(steps, episode.action.time_ns)), "action_copy", specs
    )
    assert "next" in finding.message
    asked = np.diff(episode.action.value, axis=0, append=episode.action.value[-1:])
    assert not found(replaced(episode, "action", Signal(asked, episode.action.time_ns)), "action_copy", specs)


def test_clipped_commands_are_noted_and_a_switch_is_not() -> None:
    clipped = changed(make(), "action", lambda v: np.clip(v, -0.7, 0.7, out=v))
    (note,) = found(clipped, "saturation")
    assert note.severity == "note" and "0.7" in note.message
    switch = changed(make(), "action", lambda v: np.sign(v, out=v))
    assert not found(switch, "saturation")
    assert not found(make(), "saturation")


def test_extremes_are_the_datasets_not_an_episodes() -> None:
    clipped = changed(make(), "action", lambda v: np.clip(v, -0.7, 0.7, out=v))
    assert not found_in_all([clipped, make(1), make(2)], "saturation")


@pytest.mark.parametrize("lag", [-3.0, 0.0, 2.4, 7.75])
def test_delay_finds_fractions_of_a_sample(lag: float, rng: np.random.Generator) -> None:
    frames = np.arange(400)
    waves = rng.uniform(0.02, 0.3, 6), rng.uniform(0, 6, 6)
    command, state = (sum(np.cos(w * (frames - late) + p) for w, p in zip(*waves)) for late in (0.0, lag))
    assert delay(command, state + rng.normal(0, 0.05, 400), 20, 5) == pytest.approx(lag, abs=0.15)


def test_delay_of_what_does_not_correlate_is_unknown(rng: np.random.Generator) -> None:
    assert delay(rng.normal(size=300), rng.normal(size=300), 20, 5) is None
    assert delay(rng.normal(size=300), np.zeros(300), 20, 5) is None


def test_lag_of_the_synthetic_robot_and_of_one_that_knows_the_future() -> None:
    (note,) = found_in_all([make(seed) for seed in range(3)], "lag")
    assert note.severity == "note" and "133 ms (4.0 steps)" in note.message
    episode = make()
    early = replaced(
        episode,
        "joints",
        Signal(np.roll(episode.observation["joints"].value, -8, 0)[:-8], episode.action.time_ns[:-8]),
    )
    (warning,) = found(early, "lag")
    assert warning.severity == "warning" and "before their commands by 133 ms" in warning.message


def test_lag_of_increments_equals_that_of_positions() -> None:
    specs = dataclasses.replace(SPECS, action=ActionSpec((ActionPart("joint_delta", NAMES, "relative"),)))
    episodes = [make(seed) for seed in range(3)]
    steps = [np.diff(e.action.value, axis=0, prepend=e.action.value[:1]) for e in episodes]
    asked = [replaced(e, "action", Signal(s, e.action.time_ns)) for e, s in zip(episodes, steps)]
    (note,) = found_in_all(asked, "lag", specs)
    assert "133 ms (4.0 steps)" in note.message


def test_turns_are_not_compared_with_poses() -> None:
    names = ("x", "y", "z", "r0", "r1", "r2", "r3", "r4", "r5")
    spec = ArraySpec((9,), names=names)
    specs = Specs({"tool": spec}, ActionSpec((ActionPart("ee_delta", names, "relative"),)), 30.0)
    time_ns = np.arange(LENGTH, dtype=np.int64) * STEP
    path = np.sin(np.arange(LENGTH)[:, None] / 9 + np.arange(9)).astype(np.float32)
    asked = np.roll(path, -3, axis=0)
    asked[:, 3] = np.minimum(asked[:, 3], 0.7)
    episode = Episode({"tool": Signal(path, time_ns)}, Signal(asked, time_ns))
    assert not quality.check_episode("e", episode, specs)
    posed = dataclasses.replace(specs, action=ActionSpec((ActionPart("ee_pose", names),)))
    assert [f.check for f in quality.check_episode("e", episode, posed)] == ["lag"]


# --- cameras


def test_black_plain_burnt_and_drawn_pictures(rng: np.random.Generator) -> None:
    (black,) = found(changed(make(), "camera", assign(slice(20, 60), 3)), "cameras")
    assert black.severity == "warning" and black.frames == (20, 59) and "black in 40 of 200" in black.message
    (plain,) = found(changed(make(), "camera", assign(..., 90)), "cameras")
    assert plain.severity == "error" and "nearly one colour" in plain.message
    (burnt,) = found(changed(make(), "camera", assign((slice(None), slice(0, 18)), 255)), "cameras")
    assert burnt.severity == "warning" and "over-exposed in 200" in burnt.message

    def drawn(value: np.ndarray) -> None:
        value[:] = 255
        value[:, 3:12, 4:20] = (119, 136, 153)

    assert not found(changed(make(), "camera", drawn), "cameras")
    assert not found(changed(make(), "camera", assign((slice(None), slice(0, 12)), 0)), "cameras")


def test_depth_without_readings() -> None:
    (finding,) = found(changed(make(), "depth", assign(..., 0)), "cameras")
    assert finding.severity == "error" and finding.key == "depth" and "reading" in finding.message
    assert not found(changed(make(), "depth", assign((slice(None), slice(0, 12)), 0)), "cameras")


def test_a_camera_that_hangs_or_is_slow() -> None:
    def hang(value: np.ndarray) -> None:
        value[40:80] = value[40]

    (hung,) = found(changed(make(), "camera", hang), "repeats")
    assert hung.frames == (40, 79) and "1.30 s" in hung.message

    def slow(value: np.ndarray) -> None:
        value[:] = value[np.arange(LENGTH) // 2 * 2]

    (half,) = found(changed(make(), "camera", slow), "repeats")
    assert "50% of the pictures" in half.message and "about 15" in half.message
    still = changed(changed(make(), "joints", assign(slice(38, 82), 0.1)), "camera", hang)
    assert not found(still, "repeats")


# --- the dataset


def test_instructions_spelled_differently_missing_or_rare() -> None:
    def findings(*texts: str) -> list[str]:
        return [f.message for f in found_in_all([make(0, 5, instruction=t) for t in texts], "instructions")]

    (case,) = findings("Lift the cube.", "lift the  cube")
    assert "case, spaces or punctuation" in case
    (typo,) = findings("push the block left", "push the blokc left")
    assert "one letter" in typo
    (blank,) = findings("lift", "")
    assert "no instruction" in blank
    (rare,) = findings(*["lift"] * 40, "stack")
    assert "few episodes" in rare and "'stack' (1)" in rare
    assert not findings("push left", "push right", "lift cup", "lift cap", "go to shelf 1", "go to shelf 2")
    assert not findings("", "")


def test_success_labels_all_alike() -> None:
    def severities(*labels: bool | None) -> list[str]:
        return [f.severity for f in found_in_all([make(0, 5, success=s) for s in labels], "success")]

    assert severities(None, None) == ["note"]
    assert severities(True, True) == ["note"]
    assert severities(False, False) == ["warning"]
    assert severities(True, False, None) == ["note"]
    assert severities(True, False) == severities(True) == []


def test_lengths_far_from_the_usual() -> None:
    usual = [make(seed, 90 + 4 * seed) for seed in range(9)]
    short, long = found_in_all([*usual, make(1, 6), make(2, 900)], "lengths")
    assert "very short: 6 steps" in short.message and short.episode == "000009"
    assert "very long: 900 steps" in long.message and long.episode == "000010"
    assert not found_in_all([*usual, make(1, 60), make(2, 200)], "lengths")
    assert not found_in_all([*usual, make(1, 900, instruction="clear the table")], "lengths")


def test_duplicates_by_content_not_by_facts() -> None:
    (finding,) = found_in_all([make(3), make(4), make(3, instruction="again", success=None)], "duplicates")
    assert finding.episode == "000002" and "bit-equal to 000000" in finding.message
    nearly = changed(make(3), "cube", assign((0, 0), 0.123))
    assert not found_in_all([make(3), nearly], "duplicates")


# --- a real robot


def read_g1(folder: Path, index: int) -> tuple[Episode, Specs]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    info = json.loads((folder / "meta/info.json").read_text())
    names = tuple(info["features"]["action"]["names"][0])
    table = parquet.read_table(folder / f"data/chunk-000/episode_{index:06d}.parquet")
    time_ns = np.round(table["timestamp"].to_numpy().astype(float) * 1e9).astype(np.int64)
    state, action = (
        np.array(table[column].to_pylist(), dtype=np.float32) for column in ("observation.state", "action")
    )
    parts = ActionPart("joint_position", names[:14]), ActionPart("normalised", names[14:])
    specs = Specs({"state": ArraySpec((26,), names=names)}, ActionSpec(parts, "start"), float(info["fps"]))
    return Episode({"state": Signal(state, time_ns)}, Signal(action, time_ns)), specs


def test_lag_and_rates_of_a_real_g1(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("g1_inspire_teleop")
    summaries = []
    for index in range(0, 100, 10):
        episode, specs = read_g1(folder, index)
        measures = {check: quality.load(check).measure("", episode, specs) for check in ("lag", "held")}
        assert not [f for f in quality.check_episode(str(index), episode, specs) if f.severity == "error"]
        summaries.append(Summary(f"{index:06d}", len(episode), 0.0, measures=measures))
    arms, hands = pool(summaries)
    assert all("Hand" not in joint for joint in arms.joints) and all(
        "Hand" in joint for joint in hands.joints
    )
    assert 0.133 <= arms.seconds <= 0.167 and 4 <= arms.steps <= 5
    assert 0.3 < hands.seconds < 0.4
    (held,) = quality.load("held").check_all(summaries, specs)
    assert "Hand" in held.message and "Shoulder" not in held.message


def test_pictures_of_a_real_camera_that_halves_its_rate(shared_data: Callable[[str], Path]) -> None:
    """Frames 52 to 194 of this recording come in equal pairs: 15 Hz, written at 30."""
    cv2 = pytest.importorskip("cv2", reason="needs opencv to decode")
    folder = shared_data("g1_inspire_teleop")
    episode, specs = read_g1(folder, 10)
    video = cv2.VideoCapture(str(folder / "videos/chunk-000/observation.images.cam_high/episode_000010.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][::4, ::4])
    if len(frames) != len(episode):
        pytest.skip(f"this opencv decodes {len(frames)} of {len(episode)} AV1 frames")
    spec = ArraySpec((120, 160, 3), "uint8", kind="image")
    specs = dataclasses.replace(specs, observation={**specs.observation, "cam": spec})
    camera = Signal(np.stack(frames), episode.action.time_ns)
    episode = dataclasses.replace(episode, observation={**episode.observation, "cam": camera})
    (finding,) = [f for f in quality.check_episode("10", episode, specs) if f.key == "cam"]
    assert finding.check == "repeats" and "stamps say 30 Hz" in finding.message
    assert finding.frames is not None and finding.frames[0] >= 50 and finding.frames[1] <= 200


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_shortest_episodes_and_stores_without_states(tmp_path: Path, length: int) -> None:
    assert not [f for f in quality.check_episode("e", make(1, length), SPECS) if f.severity != "note"]
    specs = SPECS.select(("camera",))
    store = EpisodeStore.create(tmp_path / "blind.zarr", specs)
    for seed in (1, 1):
        episode = make(seed, length)
        store.append(dataclasses.replace(episode, observation={"camera": episode.observation["camera"]}))
    (twice, failed) = quality.check_store(store, images=True)
    assert "the only thing compared" in twice.message and failed.check == "success"
