"""An episode is visible whole or not at all, comes back bit for bit, and bad ones leave no trace."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from synthetic import assert_same_episode, make_episode, make_specs

from robopolicy.core.errors import (
    NonFiniteValueError,
    RunExistsError,
    SchemaVersionError,
    ShapeError,
    SpecError,
    StoreError,
)
from robopolicy.datasets import schema
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.recovery import unfinished
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.writer import staging_folders

TESTS = Path(__file__).resolve().parents[1]


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run_python(code: str, *arguments: str, expect: int = 0) -> str:
    """Run code in its own process, with tests/ importable; returns its output."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, done.stderr
    return done.stdout


@pytest.mark.parametrize("success", [None, True, False])
@pytest.mark.parametrize("image", [False, True])
def test_an_episode_comes_back_bit_for_bit(tmp_path, image, success):
    specs = make_specs(image=image)
    facts = {"success": success, "wall_minus_clock_ns": 1_700_000_000_123_456_789}
    episode = make_episode(specs, 21, metadata={"deep": {"list": [1, "a", None]}}, **facts)
    episode = dataclasses.replace(episode, seed=None) if success is None else episode
    name = EpisodeStore.create(tmp_path / "s.zarr", specs, {"who": "me"}).append(episode)
    store = EpisodeStore.open(tmp_path / "s.zarr")
    assert store.specs == specs and list(store.specs.observation) == list(specs.observation)
    assert store.metadata == {"who": "me"}
    assert_same_episode(store.read(name), episode)


def test_episodes_come_in_recording_order(tiny_store):
    assert tiny_store.names == ["000000", "000001", "000002"]
    assert [len(e) for e in tiny_store.episodes()] == [9, 12, 5]
    assert [e.seed for e in tiny_store.episodes(keys=())] == [0, 1, 2]


def test_keys_limit_what_is_read(tiny_store):
    assert set(tiny_store.read("000000", keys=("goal",)).observation) == {"goal"}
    assert dict(tiny_store.read("000000", keys=()).observation) == {}


def test_unknown_episodes_and_signals_are_named(tiny_store):
    with pytest.raises(StoreError, match="no episode '7' in version 3; it has 000000, 000001, 000002"):
        tiny_store.read("7")
    with pytest.raises(StoreError, match="no signal 'observation/nose'"):
        tiny_store.read("000000", keys=("nose",))


def test_any_zarr_reader_can_open_it(tiny_store):
    root = zarr.open_group(tiny_store.path, mode="r")
    assert root.attrs["robopolicy"]["schema_version"] == schema.SCHEMA_VERSION
    episode = root["episodes/000001"]
    assert episode["observation/scene/value"].shape == (12, 16, 16, 3)
    assert episode["observation/goal/value"].attrs["units"] == ["m", "rad"]
    assert episode["action/value"].attrs["names"] == ["a", "b", "grip"]
    assert episode.attrs["robopolicy_episode"]["length"] == 12


@pytest.mark.parametrize("content", ["store", "file", "folder"])
def test_nothing_is_ever_overwritten(tmp_path, content):
    path, specs = tmp_path / "s.zarr", make_specs()
    if content == "store":
        EpisodeStore.create(path, specs)
    elif content == "file":
        path.write_text("mine")
    else:
        path.mkdir()
    before = everything_in(tmp_path)
    with pytest.raises(RunExistsError, match=re.escape(str(path))):
        EpisodeStore.create(path, specs)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_schema_version_is_refused_with_both_versions(tiny_store, version):
    root = zarr.open_group(tiny_store.path)
    root.attrs["robopolicy"] = {**root.attrs["robopolicy"], "schema_version": version}
    with pytest.raises(SchemaVersionError, match=rf"schema version {version!r}; this release reads 2"):
        EpisodeStore.open(tiny_store.path)


def test_a_store_that_uses_features_unknown_here_is_refused_by_their_name(tiny_store):
    root = zarr.open_group(tiny_store.path)
    root.attrs["robopolicy"] = {**root.attrs["robopolicy"], "features": ["av1_images"]}
    with pytest.raises(SchemaVersionError, match=r"uses \['av1_images'\]"):
        EpisodeStore.open(tiny_store.path)


def test_facts_that_an_older_store_does_not_state_have_defaults(tiny_store):
    path = tiny_store.path / schema.EPISODES / "000001" / "zarr.json"
    tree = json.loads(path.read_text())
    tree["attributes"]["robopolicy_episode"] = {"length": 12, "from_the_future": 1}
    path.write_text(json.dumps(tree))
    assert tiny_store.read("000001").metadata == schema.EPISODE_FIELDS["metadata"]
    assert schema.read_episode(tree["attributes"], "here") == {**schema.EPISODE_FIELDS, "length": 12}


def test_facts_are_those_of_the_episode_and_the_digest_tells_stores_apart(tiny_store):
    episode, before = tiny_store.read("000002"), tiny_store.digest
    expected = {name: getattr(episode, name) for name in schema.ENTRY_FIELDS}
    assert tiny_store.facts("000002") == {**expected, "length": len(episode)}
    assert EpisodeStore.open(tiny_store.path).digest == before
    tiny_store.append(make_episode(tiny_store.specs, 3))
    assert tiny_store.digest != before


def test_what_is_not_a_store_is_refused_by_its_path(tmp_path):
    def refuse(path: Path, why: str) -> None:
        with pytest.raises(StoreError, match=f"{re.escape(str(path))}.*{why}|{why}.*{re.escape(str(path))}"):
            EpisodeStore.open(path)

    refuse(tmp_path / "absent", "no store")
    (tmp_path / "file").write_text("x")
    refuse(tmp_path / "file", "no store")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "not a robopolicy store")
    zarr.create_group(tmp_path / "v2", zarr_format=2)
    refuse(tmp_path / "v2", "not a robopolicy store")
    zarr.create_group(tmp_path / "plain")
    refuse(tmp_path / "plain", "not a robopolicy store")


@pytest.mark.parametrize("damage", ["truncated", "no specs", "specs of another shape"])
def test_a_damaged_description_is_refused_by_its_path(tiny_store, damage):
    path = tiny_store.path / "zarr.json"
    tree = json.loads(path.read_text())
    if damage == "no specs":
        del tree["attributes"]["robopolicy"]["specs"]
    elif damage == "specs of another shape":
        tree["attributes"]["robopolicy"]["specs"]["surprise"] = 1
    text = json.dumps(tree)
    path.write_text(text[: len(text) // 2] if damage == "truncated" else text)
    with pytest.raises(StoreError, match=re.escape(str(tiny_store.path))):
        EpisodeStore.open(tiny_store.path)


@pytest.mark.parametrize("name", ["action", "observation/scene", "extra/force"])
def test_a_damaged_signal_is_refused_by_its_name(tiny_store, name):
    folder = tiny_store.path / schema.EPISODES / "000001" / name / "value" / "c"
    (data,) = [p for p in folder.rglob("*") if p.is_file()]
    data.write_bytes(b"this was never compressed by anybody at all")
    with pytest.raises(StoreError, match=f"000001.*{name}"):
        tiny_store.read("000001")


def changed(episode, part: str, name: str, value=None, time_ns=None):
    """The episode with one signal replaced."""
    signal_ = episode.action if part == "action" else getattr(episode, part)[name]
    new = Signal(signal_.value if value is None else value, signal_.time_ns if time_ns is None else time_ns)
    if part == "action":
        return dataclasses.replace(episode, action=new)
    return dataclasses.replace(episode, **{part: {**getattr(episode, part), name: new}})


def poke(array: np.ndarray, frame: int, value: float) -> np.ndarray:
    array = array.copy()
    array[frame, ..., 0] = value
    return array


EPISODE = make_episode(make_specs(image=True), 12)
GOAL = EPISODE.observation["goal"]
BACKWARDS = GOAL.time_ns.copy()
BACKWARDS[6] = BACKWARDS[5]
BAD = {
    "NaN observation": (
        changed(EPISODE, "observation", "goal", poke(GOAL.value, 4, np.nan)),
        NonFiniteValueError,
        "episode 3, goal, frame 4",
    ),
    "infinite action": (
        changed(EPISODE, "action", "", poke(EPISODE.action.value, 11, np.inf)),
        NonFiniteValueError,
        "episode 3, action, frame 11",
    ),
    "NaN extra": (
        changed(EPISODE, "extra", "force", poke(EPISODE.extra["force"].value, 7, np.nan)),
        NonFiniteValueError,
        "episode 3, force, frame 7",
    ),
    "wrong shape": (
        changed(EPISODE, "observation", "goal", np.zeros((12, 3), np.float32)),
        ShapeError,
        r"episode 3, goal: expected frames of \(2,\), got \(3,\)",
    ),
    "wrong action": (
        changed(EPISODE, "action", "", np.zeros((12, 2), np.float32)),
        ShapeError,
        r"episode 3, action: expected frames of \(3,\), got \(2,\)",
    ),
    "fewer samples than times": (
        changed(EPISODE, "observation", "goal", GOAL.value[:-1]),
        ShapeError,
        "episode 3, goal: 11 samples but times",
    ),
    "no samples": (
        changed(EPISODE, "action", "", EPISODE.action.value[:0], EPISODE.action.time_ns[:0]),
        ShapeError,
        "episode 3, action: no samples",
    ),
    "time stands still": (
        changed(EPISODE, "observation", "goal", time_ns=BACKWARDS),
        SpecError,
        "episode 3, goal, frame 6: time does not increase",
    ),
    "sensed only after the first action": (
        changed(EPISODE, "observation", "goal", time_ns=GOAL.time_ns + 1),
        SpecError,
        "episode 3, goal: its first sample comes after the first action",
    ),
    "unknown clock": (
        dataclasses.replace(EPISODE, clock="sundial"),
        SpecError,
        "episode 3: clock 'sundial' is not one of .*'monotonic'",
    ),
    "image as float": (
        changed(EPISODE, "observation", "scene", np.zeros((12, 16, 16, 3), np.float32)),
        SpecError,
        "episode 3, scene: .*float32.*uint8",
    ),
    "missing key": (
        dataclasses.replace(EPISODE, observation={"goal": GOAL}),
        SpecError,
        r"episode 3: observations \['goal'\] are not \['goal', 'joints'",
    ),
    "unknown key": (
        dataclasses.replace(EPISODE, observation={**EPISODE.observation, "nose": GOAL}),
        SpecError,
        "'nose'",
    ),
    "name with a slash": (
        dataclasses.replace(EPISODE, extra={"a/b": GOAL}),
        SpecError,
        "'a/b' may hold letters",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_bad_episode_is_refused_by_episode_and_frame_and_leaves_nothing(tiny_store, case):
    episode, error, message = BAD[case]
    before = everything_in(tiny_store.path)
    with pytest.raises(error, match=message):
        tiny_store.append(episode)
    assert everything_in(tiny_store.path) == before


@pytest.mark.parametrize("name", ["a/b", "", "..", ".hidden"])
def test_observation_names_become_folders_so_they_are_checked(tmp_path, name):
    specs = make_specs()
    odd = dataclasses.replace(specs, observation={name: specs.observation["goal"]})
    with pytest.raises(SpecError, match="may hold letters"):
        EpisodeStore.create(tmp_path / "s.zarr", odd)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from synthetic import make_episode
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.writer import staging_folders
store = EpisodeStore.open(sys.argv[1])
store.append(make_episode(store.specs, 6, seed=100))
episode = make_episode(store.specs, 6, seed=101)
writer = store.begin(seed=101, journalled=False, background=False)
for name, whole in list(episode.signals())[:3]:
    writer.add(name, whole)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_recorder_killed_mid_episode_leaves_the_finished_ones(tiny_store):
    run_python(KILLED, str(tiny_store.path), expect=-signal.SIGKILL)
    store = EpisodeStore.open(tiny_store.path)
    assert len(staging_folders(tiny_store.path)) == 1  # set aside, invisible
    assert [e.seed for e in store.episodes()] == [0, 1, 2, 100]
    store.append(make_episode(store.specs, 4, seed=7))
    assert staging_folders(tiny_store.path) == []  # it kept no journal, so there is nothing to recover
    assert [e.seed for e in store.episodes()] == [0, 1, 2, 100, 7]


@pytest.mark.parametrize("journalled", [False, True])
def test_a_live_recorder_is_not_swept_away(tiny_store, journalled):
    """Two recorders, one store: the first one's half-written episode is none of the second's business."""
    episode = make_episode(tiny_store.specs, 5, seed=50)
    second = EpisodeStore.open(tiny_store.path)
    with tiny_store.begin(seed=50, journalled=journalled) as writer:
        signals = list(episode.signals())
        for name, whole in signals[:2]:
            writer.add(name, whole)
        second.append(make_episode(tiny_store.specs, 4, seed=51))
        assert unfinished(second) == []
        for name, whole in signals[2:]:
            writer.add(name, whole)
        writer.commit()
    assert [e.seed for e in tiny_store.episodes()] == [0, 1, 2, 51, 50]


def test_two_recorders_never_take_the_same_name(tiny_store):
    code = (
        "import sys; from synthetic import make_episode; from robopolicy.datasets.store import EpisodeStore\n"
        "store = EpisodeStore.open(sys.argv[1])\n"
        "for i in range(8): store.append(make_episode(store.specs, 3, seed=int(sys.argv[2]) + i))"
    )
    command = [sys.executable, "-c", code, str(tiny_store.path)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    both = [subprocess.Popen([*command, str(first)], env=environment) for first in (100, 200)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert len(tiny_store) == 3  # what was opened stays as it was
    tiny_store.refresh()
    seeds = [episode.seed for episode in tiny_store.episodes(keys=())]
    assert sorted(seeds) == [0, 1, 2, *range(100, 108), *range(200, 208)]


FULL_DISK = """
import resource, signal, sys
from synthetic import make_episode
from robopolicy.core.errors import StoreError
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.writer import staging_folders
store = EpisodeStore.open(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes beyond the limit then fail, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.append(make_episode(store.specs, 60, seed=100))
except StoreError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_store_as_it_was(tiny_store):
    before = everything_in(tiny_store.path)
    message = run_python(FULL_DISK, str(tiny_store.path))
    assert message.strip() == f"cannot write to {tiny_store.path}: File too large; the store is unchanged"
    assert everything_in(tiny_store.path) == before
    assert tiny_store.append(make_episode(tiny_store.specs, 60, seed=100)) == "000003"


def test_a_read_only_folder_is_named(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes into read-only folders")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="cannot write to"):
            EpisodeStore.create(tmp_path / "s.zarr", make_specs())
    finally:
        tmp_path.chmod(0o700)


def test_a_path_inside_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"cannot write to .*file/s\.zarr"):
        EpisodeStore.create(tmp_path / "file" / "s.zarr", make_specs())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("spoil", [lambda b: bytes([b[0] ^ 1]) + b[1:], lambda b: b[: len(b) // 2]])
def test_one_flipped_bit_or_a_cut_chunk_is_noticed(tiny_store, spoil):
    episode = tiny_store.path / schema.EPISODES / tiny_store.names[0]
    chunks = [p for p in sorted(episode.rglob("c/**/*")) if p.is_file()]
    assert len(chunks) >= 6
    for chunk in chunks:
        before = chunk.read_bytes()
        chunk.write_bytes(spoil(before))
        with pytest.raises(StoreError, match=re.escape(chunk.relative_to(episode).parts[0])):
            tiny_store.read(tiny_store.names[0])
        chunk.write_bytes(before)
