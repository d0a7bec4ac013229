"""Bags written with rosbags are imported bit for bit, or refused by topic and message with nothing left."""

from __future__ import annotations

import re
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

cv2 = pytest.importorskip("cv2")
pytest.importorskip("rosbags")
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

from robopolicy.core.errors import (  # noqa: E402
    ConfigError,
    ImportFormatError,
    NonFiniteValueError,
    RobopolicyError,
    UnknownNameError,
)
from robopolicy.core.geometry import matrix_from_quat_wxyz, rotation_6d_from_matrix  # noqa: E402
from robopolicy.datasets import importers  # noqa: E402
from robopolicy.datasets.importers import rosbag2  # noqa: E402
from robopolicy.datasets.importers.importing import import_dataset  # noqa: E402
from robopolicy.datasets.importers.rosbag2.mapping import load_mapping  # noqa: E402
from robopolicy.datasets.importers.source import ImportOptions  # noqa: E402

START = 1_700_000_000_123_456_789  # [Unix ns]
SECOND = 1_000_000_000
STORE = get_typestore(Stores.ROS2_HUMBLE)
STORE.register(
    get_types_from_msg("float64 position\nfloat64 max_effort", "control_msgs/msg/GripperCommand")
    | get_types_from_msg("float64 a\nbool b", "own_msgs/msg/Odd")
)
T = {name.split("/")[-1]: kind for name, kind in STORE.types.items()}
JOINTS = ["j2", "j1", "finger"]
MAPPING: dict[str, Any] = {
    "instruction": "push",
    "observation": {
        "position": {"topic": "/joints", "select": ["j1", "j2"], "units": ["rad", "rad"]},
        "camera": {"topic": "/camera", "kind": "image"},
    },
    "action": {"parts": [{"topic": "/command", "space": "joint_position", "names": ["j1", "j2"]}]},
}
PLUGINS = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]
Message = tuple[str, int, Any]  # topic, receive time [ns from START], message


def header(time_ns: int | None) -> Any:
    total = 0 if time_ns is None else START + time_ns
    stamp = T["Time"](sec=total // SECOND, nanosec=total % SECOND)
    return T["Header"](stamp=stamp, frame_id="base")


def joints(time_ns: int | None, position: Any, names: list[str] = JOINTS) -> Any:
    empty = np.zeros(0)
    return T["JointState"](header(time_ns), names, np.asarray(position, dtype=np.float64), empty, empty)


def array64(values: Any) -> Any:
    return T["Float64MultiArray"](T["MultiArrayLayout"]([], 0), np.asarray(values, dtype=np.float64))


def picture(number: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth, so that JPEG is kind to it; differs by number."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 8 + number, x * 6, x + y + number], axis=-1).astype(np.uint8)


def jpeg(number: int) -> np.ndarray:
    return cv2.imencode(".jpg", picture(number)[..., ::-1])[1]


def compressed(time_ns: int | None, data: np.ndarray, form: str = "jpeg") -> Any:
    return T["CompressedImage"](header(time_ns), form, data)


def image(time_ns: int, encoding: str, pixels: np.ndarray, pad: int = 0, big: bool = False) -> Any:
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = np.ascontiguousarray(rows).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, pad)))
    height, width = pixels.shape[:2]
    return T["Image"](header(time_ns), height, width, encoding, int(big), rows.shape[1], rows.ravel())


def recording(seconds: float = 1.0) -> list[Message]:
    """Joint states at 100 Hz, JPEG at 30 Hz, commands at 20 Hz; stamps come 2 ms before receipt."""
    late = 2_000_000
    messages: list[Message] = []
    for i in range(round(seconds * 100)):
        time = 5_000_000 + i * 10_000_000
        names = JOINTS if i % 2 else JOINTS[::-1]  # the order is not guaranteed
        value = {"j1": np.sin(i), "j2": i / 7, "finger": 0.01}
        messages.append(("/joints", time + late, joints(time, [value[n] for n in names], names)))
    for i in range(round(seconds * 30)):
        time = 7_000_000 + i * SECOND // 30
        messages.append(("/camera", time + late, compressed(time, jpeg(i))))
    for i in range(round(seconds * 20)):
        messages.append(("/command", 20_000_000 + i * 50_000_000, array64([i / 3, -i])))
    return sorted(messages, key=lambda message: message[1])


def write_bag(
    path: Path,
    messages: list[Message],
    plugin: StoragePlugin = PLUGINS[0],
    mode: CompressionMode | None = None,
) -> Path:
    writer = Writer(path, version=9, storage_plugin=plugin)
    if mode:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
            raw = bytes(STORE.serialize_cdr(message, message.__msgtype__))
            writer.write(connections[topic], START + time_ns, raw)
    return path


def mapped(tmp_path: Path, **changes: Any) -> ImportOptions:
    text = yaml.safe_dump({**MAPPING, **changes})
    file = tmp_path / f"{zlib.crc32(text.encode())}.yaml"  # several in one test
    file.write_text(text)
    return ImportOptions(mapping=str(file))


def replaced(messages: list[Message], topic: str, number: int, **fields: Any) -> list[Message]:
    """The same messages, but one with other fields."""
    at = [i for i, message in enumerate(messages) if message[0] == topic][number]
    old = messages[at][2]
    kept = {name: getattr(old, name) for name in old.__dataclass_fields__ if name != "__msgtype__"}
    changed = list(messages)
    changed[at] = (topic, messages[at][1], type(old)(**{**kept, **fields}))
    return changed


def refused(
    source: Path, tmp_path: Path, options: ImportOptions, *words: str, kind: Any = ImportFormatError
) -> None:
    """Importing raises ``kind`` with all words in its message and leaves nothing behind."""
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(kind) as caught:
        import_dataset(source, tmp_path / "refused", options, format="rosbag2")
    for word in words:
        assert word in str(caught.value), f"{word!r} not in {caught.value}"
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("mode", [None, CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_signal_keeps_its_values_and_times(tmp_path, plugin, mode):
    bag = write_bag(tmp_path / "demo", recording(), plugin, mode)
    assert importers.recognise(bag) == "rosbag2"
    store, report = import_dataset(bag, tmp_path / "store", mapped(tmp_path))
    episode = store.read(store.names[0])
    assert (len(store), episode.instruction, episode.clock) == (1, "push", "monotonic")
    assert episode.wall_minus_clock_ns == START + 7_000_000  # the first message was received then
    assert store.specs.policy_rate == 20.0

    position, i = (
        episode.observation["position"],
        np.arange(1, 100),
    )  # one sample at or before the first action
    np.testing.assert_array_equal(position.value, np.stack([np.sin(i), i / 7], axis=1))
    np.testing.assert_array_equal(position.time_ns, 5_000_000 + i * 10_000_000 - 7_000_000)
    assert position.value.dtype == np.float64
    assert store.specs.observation["position"].names == ("j1", "j2")

    camera = episode.observation["camera"]
    expected = [cv2.imdecode(jpeg(n), cv2.IMREAD_COLOR)[..., ::-1] for n in range(30)]
    np.testing.assert_array_equal(camera.value, np.stack(expected))
    assert np.abs(camera.value[3].astype(int) - picture(3)).mean() < 4  # red is red
    np.testing.assert_array_equal(camera.time_ns, [n * SECOND // 30 for n in range(30)])

    step = np.arange(20)
    np.testing.assert_array_equal(
        episode.action.value, np.stack([step / 3, -step], axis=1).astype(np.float32)
    )
    np.testing.assert_array_equal(episode.action.time_ns, 13_000_000 + step * 50_000_000)
    assert "observation/position: header stamps" in report.guessed
    assert "action/0: receive stamps" in report.guessed
    assert report.mapped["observation/position"] == "/joints ['j1', 'j2']"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_bare_file_and_folder_of_bags(tmp_path, plugin):
    folder = tmp_path / "bags"
    for number in range(3):
        write_bag(folder / f"take_{number}", recording(0.2 + 0.1 * number), plugin)
    store, _ = import_dataset(folder, tmp_path / "all", mapped(tmp_path))
    assert [store.facts(name)["length"] for name in store.names] == [4, 6, 8]
    bare = next(p for p in (folder / "take_1").iterdir() if p.suffix in (".mcap", ".db3"))
    assert rosbag2.matches(bare) and rosbag2.matches(folder)
    (one, _), whole = import_dataset(bare, tmp_path / "one", mapped(tmp_path)), store.read(store.names[1])
    np.testing.assert_array_equal(one.read(one.names[0]).action.value, whole.action.value)
    chosen = ImportOptions(mapped(tmp_path).mapping, episodes=(2,))
    some, _ = import_dataset(folder, tmp_path / "some", chosen)
    assert [some.facts(name)["length"] for name in some.names] == [8]
    beyond = ImportOptions(chosen.mapping, episodes=(3,))
    refused(folder, tmp_path, beyond, "[3]", "0 to 2")


def test_shipped_mapping_fits_a_recording(tmp_path):
    names = [f"fr3_joint{n}" for n in range(1, 8)]
    rng = np.random.default_rng(0)
    q, effort = rng.normal(size=(40, 7)), np.zeros(7)
    point = T["JointTrajectoryPoint"]
    zero = T["Duration"](0, 0)
    quat = np.array([0.1, -0.5, 0.3, 0.8]) / np.linalg.norm([0.1, -0.5, 0.3, 0.8])  # x, y, z, w
    pose = T["Pose"](T["Point"](0.1, 0.2, 0.3), T["Quaternion"](*quat))
    depth = (np.arange(24 * 32).reshape(24, 32) * 80).astype(np.uint16)
    messages: list[Message] = [
        ("/instruction", 0, T["String"]("stack")),
        ("/episode", 1, T["String"]("start")),
    ]
    for i in range(40):
        t = SECOND // 10 + i * 50_000_000
        messages += [
            ("/joint_states", t, T["JointState"](header(t), names, q[i], q[i] / 2, effort)),
            ("/franka_gripper/joint_states", t, joints(t, [0.01 * (i % 4)] * 2, ["fr3_finger_joint1", "f2"])),
            ("/franka_robot_state_broadcaster/current_pose", t, T["PoseStamped"](header(t), pose)),
            ("/wrist/color/image_raw/compressed", t, compressed(t, jpeg(i))),
            (
                "/wrist/aligned_depth_to_color/image_raw",
                t,
                image(t, "16UC1", depth + i, pad=6, big=i % 2 == 1),
            ),
            (
                "/fr3_arm_controller/joint_trajectory",
                t + 1,
                T["JointTrajectory"](
                    header(None), names[::-1], [point(q[i, ::-1].copy(), effort, effort, effort, zero)]
                ),
            ),
        ]
    messages.append(("/gripper/command", 2 * SECOND // 10, T["GripperCommand"](0.02, 5.0)))
    messages.append(("/gripper/command", 13 * SECOND // 10 + 7, T["GripperCommand"](0.04, 5.0)))
    messages.append(("/episode", 3 * SECOND, T["String"]("stop")))
    bag = write_bag(tmp_path / "fr3", sorted(messages, key=lambda message: message[1]))
    store, report = import_dataset(bag, tmp_path / "store", ImportOptions("rosbag2_fr3"))
    episode = store.read(store.names[0])
    assert (episode.instruction, store.specs.robot, store.specs.policy_rate) == ("stack", "fr3", 20.0)
    rotation = rotation_6d_from_matrix(matrix_from_quat_wxyz(quat[[3, 0, 1, 2]]))
    np.testing.assert_array_equal(episode.observation["ee_pose"].value[0], [0.1, 0.2, 0.3, *rotation])
    assert store.specs.observation["ee_pose"].units[:4] == ("m", "m", "m", "1")
    assert store.specs.observation["wrist_depth"].kind == "depth"
    first = 2  # the gripper's first command comes 0.1 s after the arm's
    np.testing.assert_array_equal(episode.observation["joint_velocity"].value, q[first:] / 2)
    expected = np.stack([depth + i for i in range(first, 40)])[..., None]
    np.testing.assert_array_equal(episode.observation["wrist_depth"].value, expected)
    np.testing.assert_array_equal(episode.action.value[:, :7], q[first:].astype(np.float32))
    opening = np.where(np.arange(first, 40) < 25, 0.04, 0.08).astype(np.float32)
    np.testing.assert_array_equal(episode.action.value[:, 7], opening)
    assert any("2 leading actions dropped" in line for line in report.converted)


@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", picture(1), picture(1)),
        ("bgr8", picture(1)[..., ::-1], picture(1)),
        ("mono8", picture(1)[..., 0], np.repeat(picture(1)[..., :1], 3, axis=-1)),
        ("bgra8", np.concatenate([picture(1)[..., ::-1], picture(2)[..., :1]], axis=-1), picture(1)),
    ],
)
def test_raw_images_become_rgb(tmp_path, encoding, pixels, expected):
    messages = [m for m in recording(0.3) if m[0] != "/camera"]
    messages.insert(0, ("/camera", 0, image(0, encoding, np.ascontiguousarray(pixels), pad=5)))
    store, _ = import_dataset(write_bag(tmp_path / "bag", messages), tmp_path / "store", mapped(tmp_path))
    np.testing.assert_array_equal(store.read(store.names[0]).observation["camera"].value[0], expected)


def test_png_is_lossless_in_colour_and_depth(tmp_path):
    depth = (np.arange(24 * 32).reshape(24, 32) * 85).astype(np.uint16)
    packed = np.concatenate([np.zeros(12, np.uint8), cv2.imencode(".png", depth)[1]])
    messages = [m for m in recording(0.3) if m[0] != "/camera"]
    messages.insert(0, ("/camera", 0, compressed(0, cv2.imencode(".png", picture(4)[..., ::-1])[1], "png")))
    messages.insert(0, ("/depth", 0, compressed(0, packed, "16UC1; compressedDepth png")))
    observation = {**MAPPING["observation"], "depth": {"topic": "/depth", "kind": "depth"}}
    options = mapped(tmp_path, observation=observation)
    store, _ = import_dataset(write_bag(tmp_path / "bag", messages), tmp_path / "store", options)
    episode = store.read(store.names[0])
    np.testing.assert_array_equal(episode.observation["camera"].value[0], picture(4))
    np.testing.assert_array_equal(episode.observation["depth"].value[0, ..., 0], depth)
    assert store.specs.observation["depth"].units == ("mm",)


def test_long_video_comes_in_bounded_blocks(tmp_path):
    bag = write_bag(tmp_path / "bag", recording(5.0))
    with rosbag2.open_source(bag, mapped(tmp_path)) as source:
        episode = next(iter(source.episodes()))
        sizes = [len(block.value) for block in episode.signals["observation/camera"]]
    assert sizes == [64, 64, 22]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_text_marker_cuts_episodes(tmp_path, plugin):
    text = T["String"]
    marks = [(0.5, "start"), (1.0, "stop"), (1.5, "start"), (2.5, "stop")]
    messages = recording(3.0) + [("/mark", round(t * SECOND), text(word)) for t, word in marks]
    messages += [("/say", round(t * SECOND), text(word)) for t, word in [(0.1, "one"), (1.2, "two")]]
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda message: message[1]), plugin)
    options = mapped(
        tmp_path, episodes={"marker": {"topic": "/mark"}}, instruction="", instruction_topic="/say"
    )
    store, _ = import_dataset(bag, tmp_path / "store", options)
    read = [store.read(name) for name in store.names]
    assert [len(episode) for episode in read] == [10, 20]
    assert [episode.instruction for episode in read] == ["one", "two"]
    np.testing.assert_array_equal(read[1].action.value[:, 1], -np.arange(30, 50))
    for episode in read:
        for signal in episode.observation.values():
            assert signal.time_ns[0] <= episode.action.time_ns[0] < signal.time_ns[1]


def test_truth_marker_and_ranges_cut_episodes(tmp_path):
    states = [(0.1, False), (0.5, True), (0.7, True), (1.0, False), (1.2, False), (1.5, True)]
    messages = recording(2.0) + [("/mark", round(t * SECOND), T["Bool"](on)) for t, on in states]
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda message: message[1]))
    options = mapped(tmp_path, episodes={"marker": {"topic": "/mark"}})
    store, report = import_dataset(bag, tmp_path / "marked", options)
    assert [store.facts(name)["length"] for name in store.names] == [10, 10]
    assert any("no stop on /mark" in line for line in report.guessed)
    options = mapped(tmp_path, episodes={"ranges": [[0.0, 0.5], [1.0, 1.25]]})
    store, _ = import_dataset(bag, tmp_path / "ranges", options)
    assert [store.facts(name)["length"] for name in store.names] == [10, 5]


def test_marker_without_sense_is_refused_by_message(tmp_path):
    options = mapped(tmp_path, episodes={"marker": {"topic": "/mark"}})
    cases = {"start,start": "message 1", "stop": "without a start", "go": "neither 'start' nor 'stop'"}
    for number, (words, message) in enumerate(cases.items()):
        marks = [("/mark", i + 1, T["String"](word)) for i, word in enumerate(words.split(","))]
        bag = write_bag(tmp_path / f"bag{number}", marks + recording(0.5))
        refused(bag, tmp_path, options, "/mark, message", message)


def test_resampling_holds_the_last_command(tmp_path):
    times = [0.02, 0.021, 0.35, 0.36, 0.9]
    messages = [m for m in recording(1.0) if m[0] != "/command"]
    messages += [("/command", round(t * SECOND), array64([n, -n])) for n, t in enumerate(times)]
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda message: message[1]))
    refused(bag, tmp_path, mapped(tmp_path), "/command", "jitter", "Hz", "resample")
    action = {**MAPPING["action"], "resample": {"rate": 10.0, "method": "hold"}}
    store, report = import_dataset(bag, tmp_path / "store", mapped(tmp_path, action=action))
    episode = store.read(store.names[0])
    np.testing.assert_array_equal(episode.action.value[:, 0], [0, 1, 1, 1, 3, 3, 3, 3, 3])
    np.testing.assert_array_equal(np.diff(episode.action.time_ns), np.full(8, SECOND // 10))
    assert store.specs.policy_rate == 10.0
    assert "action: resampled to 10 Hz, method hold" in report.converted


def test_missing_commands_in_a_row_are_refused(tmp_path):
    messages = [m for m in recording(1.0) if m[0] != "/command" or not 400e6 < m[1] < 600e6]
    bag = write_bag(tmp_path / "bag", messages)
    refused(bag, tmp_path, mapped(tmp_path), "longest interval 0.25 s", "resample: {rate: 20}")


def test_leading_actions_wait_for_the_last_observation(tmp_path):
    messages = [m for m in recording(1.0) if m[0] != "/camera" or m[1] > 300e6]
    store, report = import_dataset(write_bag(tmp_path / "bag", messages), tmp_path / "s", mapped(tmp_path))
    episode = store.read(store.names[0])
    assert len(episode) == 14 and episode.action.value[0, 1] == -6
    assert [line for line in report.converted if "6 leading actions dropped" in line]


def test_disorder_is_refused_or_sorted(tmp_path):
    messages = recording(1.0)
    swapped = replaced(messages, "/joints", 40, header=header(5_000_000 + 38 * 10_000_000 + 5))
    bag = write_bag(tmp_path / "bag", swapped)
    refused(bag, tmp_path, mapped(tmp_path), "/joints, message 40", "comes before", "reorder: true")
    position = {**MAPPING["observation"]["position"], "reorder": True}
    options = mapped(tmp_path, observation={"position": position})
    store, report = import_dataset(bag, tmp_path / "store", options)
    signal = store.read(store.names[0]).observation["position"]
    np.testing.assert_array_equal(signal.value[36:41, 1] * 7, [37, 38, 40, 39, 41])
    assert (np.diff(signal.time_ns) > 0).all() and len(signal.value) == 99
    assert any("1 stamps out of order, sorted; 0 equal" in line for line in report.converted)
    equal = replaced(messages, "/joints", 40, header=header(5_000_000 + 39 * 10_000_000))
    bag = write_bag(tmp_path / "equal", equal)
    refused(bag, tmp_path, mapped(tmp_path), "/joints, message 40", "equals")
    store, _ = import_dataset(bag, tmp_path / "store2", options)
    signal = store.read(store.names[0]).observation["position"]
    np.testing.assert_array_equal(np.round(signal.value[36:41, 1] * 7), [37, 38, 40, 41, 42])


def test_receive_times_by_choice_and_for_unset_headers(tmp_path):
    messages = recording(0.5)
    unset = [
        (t, r, joints(None, m.position, m.name)) if t == "/joints" else (t, r, m) for t, r, m in messages
    ]
    bag = write_bag(tmp_path / "bag", unset)
    store, report = import_dataset(bag, tmp_path / "store", mapped(tmp_path))
    expected = [r - 7_000_000 for t, r, _ in messages if t == "/joints"]
    np.testing.assert_array_equal(store.read(store.names[0]).observation["position"].time_ns, expected[1:])
    assert "observation/position: receive stamps" in report.guessed
    position = {**MAPPING["observation"]["position"], "stamp": "header"}
    refused(bag, tmp_path, mapped(tmp_path, observation={"p": position}), "/joints, message 0", "not set")
    half = replaced(messages, "/joints", 7, header=header(None))
    refused(write_bag(tmp_path / "half", half), tmp_path, mapped(tmp_path), "/joints, message 7", "not set")


def test_simulated_stamps_are_not_mixed_with_unix_time(tmp_path):
    messages = [(t, r, joints(r - START, m.position, m.name)) if t == "/joints" else (t, r, m)
                for t, r, m in recording(0.5)]  # fmt: skip
    refused(write_bag(tmp_path / "bag", messages), tmp_path, mapped(tmp_path), "position", "another clock")


BROKEN: dict[str, tuple[str, int, dict[str, Any], tuple[str, ...], type]] = {
    "nan": ("/joints", 20, {"position": np.array([0.0, np.nan, 0.0])}, ("position",), NonFiniteValueError),
    "infinite action": ("/command", 3, {"data": np.array([np.inf, 0])}, ("data",), NonFiniteValueError),
    "huge action": ("/command", 3, {"data": np.array([1e300, 0])}, ("too large",), NonFiniteValueError),
    "short action": ("/command", 3, {"data": np.array([1.0])}, ("shape (1,)",), ImportFormatError),
    "duplicate": ("/joints", 20, {"name": ["j1", "j1", "j2"]}, ("duplicate",), ImportFormatError),
    "lost joint": ("/joints", 21, {"name": ["j1", "x", "y"]}, ("no joint ['j2']",), ImportFormatError),
    "no numbers": ("/joints", 20, {"position": np.zeros(0)}, ("expected numbers",), ImportFormatError),
    "fewer numbers": ("/joints", 20, {"position": np.zeros(2)}, ("for 3 joints",), ImportFormatError),
    "cut-off jpeg": ("/camera", 5, {"data": jpeg(5)[:-200]}, ("cut-off",), ImportFormatError),
    "no jpeg": ("/camera", 5, {"data": np.zeros(99, np.uint8)}, ("JPEG or PNG",), ImportFormatError),
    "empty jpeg": ("/camera", 5, {"data": np.zeros(0, np.uint8)}, ("JPEG or PNG",), ImportFormatError),
    "other size": (
        "/camera",
        5,
        {"data": cv2.imencode(".jpg", picture(0, 16, 16))[1]},
        ("(16, 16, 3)",),
        ImportFormatError,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_messages_are_refused_by_topic_and_number(tmp_path, case):
    topic, number, fields, words, kind = BROKEN[case]
    bag = write_bag(tmp_path / "bag", replaced(recording(0.5), topic, number, **fields))
    where = f"bag, {topic}" + ("" if case == "huge action" else f", message {number}")
    refused(bag, tmp_path, mapped(tmp_path), where, *words, kind=kind)


def test_missing_topic_lists_those_there_are(tmp_path):
    folder = tmp_path / "bags"
    write_bag(folder / "a", recording(0.5))
    write_bag(folder / "b", [m for m in recording(0.5) if m[0] != "/camera"])
    words = (
        "['/camera']",
        "/joints (sensor_msgs/msg/JointState)",
        "/command (std_msgs/msg/Float64MultiArray)",
    )
    refused(folder, tmp_path, mapped(tmp_path), *words)
    options = ImportOptions(mapped(tmp_path).mapping, skip_missing=True)
    store, report = import_dataset(folder, tmp_path / "store", options)
    assert len(store) == 1 and "/camera" in report.missing[0]
    without = ImportOptions(options.mapping, without=("/camera",))
    store, report = import_dataset(folder, tmp_path / "blind", without)
    assert len(store) == 2 and set(store.specs.observation) == {"position"} and report.ignored == ["/camera"]
    refused(
        folder,
        tmp_path,
        ImportOptions(options.mapping, without=("/x",)),
        "'/x'",
        "/joints",
        kind=UnknownNameError,
    )


def test_dotted_paths_columns_and_own_types(tmp_path):
    odd = [("/odd", i * 10_000_000, T["Odd"](i / 2, i % 2 == 0)) for i in range(60)]
    messages = sorted(recording(0.5) + odd, key=lambda message: message[1])
    bag = write_bag(tmp_path / "bag", messages)
    observation = {
        "odd": {"topic": "/odd", "field": "a", "scale": 0.001},
        "flag": {"topic": "/odd", "field": "b"},
        "second": {"topic": "/joints", "field": "position.0"},
        "command": {"topic": "/command", "columns": [1]},
    }
    store, _ = import_dataset(bag, tmp_path / "store", mapped(tmp_path, observation=observation))
    episode = store.read(store.names[0])
    np.testing.assert_array_equal(episode.observation["odd"].value[:, 0], np.arange(2, 60) / 2 * 0.001)
    np.testing.assert_array_equal(episode.observation["flag"].value[:, 0], np.arange(2, 60) % 2 == 0)
    np.testing.assert_array_equal(episode.observation["command"].value[:, 0], -np.arange(10.0))
    for field, word in (("c", "no field 'c'"), ("header", "no field"), ("", "say which `field`")):
        wrong = mapped(tmp_path, observation={"odd": {"topic": "/odd", "field": field}})
        refused(bag, tmp_path, wrong, "/odd, message 2", word)
    wrong = mapped(tmp_path, observation={"x": {"topic": "/joints", "field": "header"}})
    refused(bag, tmp_path, wrong, "std_msgs/msg/Header is no number")
    wrong = mapped(tmp_path, observation={"x": {"topic": "/command", "select": ["j1"]}})
    refused(bag, tmp_path, wrong, "names no joints")
    wrong = mapped(tmp_path, observation={"x": {"topic": "/joints", "kind": "image"}})
    refused(bag, tmp_path, wrong, "/joints", "sensor_msgs/msg/Image")


def strip_definitions(bag: Path) -> None:
    """What Humble's sqlite3 bags look like."""
    with sqlite3.connect(next(bag.glob("*.db3"))) as connection:
        connection.executescript("DROP TABLE message_definitions; DROP TABLE schema; DROP TABLE metadata;")
    connection.close()


def test_bags_without_definitions_use_known_and_given_ones(tmp_path):
    grip = [("/grip", i * 10_000_000, T["GripperCommand"](i / 2, 1.0)) for i in range(60)]
    odd = [("/odd", i * 10_000_000, T["Odd"](i / 2, True)) for i in range(60)]
    messages = sorted(recording(0.5) + grip + odd, key=lambda message: message[1])
    bag = write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    strip_definitions(bag)
    observation: dict[str, Any] = {**MAPPING["observation"], "grip": {"topic": "/grip"}}
    store, _ = import_dataset(bag, tmp_path / "store", mapped(tmp_path, observation=observation))
    values = store.read(store.names[0]).observation["grip"].value
    np.testing.assert_array_equal(values[:, 0], np.arange(2, 60) / 2)
    observation["odd"] = {"topic": "/odd", "field": "a"}
    refused(
        bag, tmp_path, mapped(tmp_path, observation=observation), "/odd", "own_msgs/msg/Odd", "definitions"
    )
    given = {"own_msgs/msg/Odd": "float64 a\nbool b"}
    options = mapped(tmp_path, observation=observation, definitions=given)
    store, _ = import_dataset(bag, tmp_path / "own", options)
    np.testing.assert_array_equal(
        store.read(store.names[0]).observation["odd"].value[:, 0], np.arange(2, 60) / 2
    )


def test_odd_definitions_of_other_topics_do_not_matter(tmp_path):
    """A service's definition, a missing hash, and a path that looks like an address."""
    messages = [*recording(0.5), ("/odd", SECOND, T["Odd"](1.0, True))]
    bag = write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    with sqlite3.connect(next(bag.glob("*.db3"))) as connection:
        connection.execute("UPDATE message_definitions SET type_description_hash = ''")
        text = "float64 request\n---\nbool reply"
        connection.execute(
            "UPDATE message_definitions SET encoded_message_definition = ? WHERE id = 4", (text,)
        )
    connection.close()
    bag = bag.rename(tmp_path / "50%25 of ? #1")
    store, report = import_dataset(bag, tmp_path / "store", mapped(tmp_path))
    assert store.facts(store.names[0])["length"] == 10 and report.ignored == ["/odd"]
    refused(bag, tmp_path, mapped(tmp_path, instruction="", instruction_topic="/odd"), "/odd", "definition")


def test_stamps_before_the_first_receipt_are_negative_times(tmp_path):
    messages: list[Message] = []
    for i in range(10):
        t = i * 50_000_000
        messages.append(("/joints", t + 3_000_000, joints(t, [i, 0, 0])))
        messages.append(("/want", t + 3_000_001, joints(t + 1_000_000, [0, i, 0])))
    parts = [{"topic": "/want", "space": "joint_position", "select": ["j1"]}]
    observation = {"position": {"topic": "/joints", "select": ["j2"]}}
    options = mapped(tmp_path, observation=observation, action={"parts": parts})
    store, _ = import_dataset(write_bag(tmp_path / "bag", messages), tmp_path / "store", options)
    episode = store.read(store.names[0])
    assert episode.wall_minus_clock_ns == START + 3_000_000
    np.testing.assert_array_equal(
        episode.observation["position"].time_ns, np.arange(10) * 50_000_000 - 3_000_000
    )
    np.testing.assert_array_equal(episode.action.time_ns, np.arange(10) * 50_000_000 - 2_000_000)
    np.testing.assert_array_equal(episode.action.value[:, 0], np.arange(10))


def test_a_quaternion_has_length_one(tmp_path):
    pose = T["TransformStamped"](
        header(0), "tool", T["Transform"](T["Vector3"](1, 2, 3), T["Quaternion"](0, 0, 0, 1))
    )
    bag = write_bag(tmp_path / "bag", [("/tool", 0, pose), *recording(0.3)])
    options = mapped(tmp_path, observation={"tool": {"topic": "/tool"}})
    store, _ = import_dataset(bag, tmp_path / "store", options)
    expected = [1, 2, 3, 1, 0, 0, 0, 1, 0]
    np.testing.assert_array_equal(store.read(store.names[0]).observation["tool"].value[0], expected)
    bad = replaced(
        [("/tool", 0, pose)],
        "/tool",
        0,
        transform=T["Transform"](T["Vector3"](1, 2, 3), T["Quaternion"](0, 0, 0, 0)),
    )
    bag = write_bag(tmp_path / "bad", bad + recording(0.3))
    refused(bag, tmp_path, options, "/tool, message 0", "length 0, not 1")


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused_by_name(tmp_path, plugin, share):
    bag = write_bag(tmp_path / "bag", recording(1.0), plugin)
    file = next(p for p in bag.iterdir() if p.suffix != ".yaml")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    refused(bag, tmp_path, mapped(tmp_path), "bag")


def test_wrong_places_are_refused(tmp_path):
    options = mapped(tmp_path)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, options, "holds no rosbag2")
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    refused(text, tmp_path, options, "notes.txt", ".mcap or .db3")
    assert not rosbag2.matches(text) and not rosbag2.matches(tmp_path / "empty")
    for suffix in (".mcap", ".db3"):
        fake = tmp_path / f"fake{suffix}"
        fake.write_bytes(b"no bag at all, but long enough to look at" * 9)
        refused(fake, tmp_path, options, fake.name)
    refused(tmp_path / "nowhere", tmp_path, options, "no such file")
    bag = write_bag(tmp_path / "bag", recording(0.3))
    refused(
        bag, tmp_path, ImportOptions(), "rosbag2_fr3", "/joints  sensor_msgs/msg/JointState", kind=ConfigError
    )
    next(bag.glob("*.mcap")).unlink()
    refused(bag, tmp_path, options, "bag.mcap", "missing")


def test_unfinished_sqlite_journal_is_refused(tmp_path):
    bag = write_bag(tmp_path / "bag", recording(0.3), StoragePlugin.SQLITE3)
    (bag / "bag.db3-wal").write_bytes(b"x")
    refused(bag, tmp_path, mapped(tmp_path), "bag.db3-wal", "checkpoint")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action": {"parts": []}}, "at least one part"),
        ({"clock": "wall"}, "'wall' is not one of"),
        ({"instruction_topic": "/say"}, "exclude each other"),
        ({"episodes": {"ranges": [[2.0, 1.0]]}}, "start < stop"),
        ({"observation": {"x": {"topic": "/x", "stamp": "now"}}}, "'now' is not one of"),
        ({"observation": {"x": {"topic": "/x", "scale": 0}}}, "scale"),
        ({"observation": {"x": {"topic": "/x", "kind": "image", "columns": [1]}}}, "takes no field"),
        ({"observation": {"x": {"topic": "/x", "columns": [1, 1]}}}, "selected twice"),
        ({"observation": {1: {"topic": "/x"}}}, "the name 1 is not text"),
        ({"observation": {"x": {"topics": "/x"}}}, "unknown fields ['topics']"),
    ],
)
def test_mapping_mistakes_are_named(tmp_path, changes, words):
    with pytest.raises(RobopolicyError, match=re.escape(words)):
        load_mapping(str(mapped(tmp_path, **changes).mapping))


def test_parts_of_several_topics_need_resampling(tmp_path):
    parts = [*MAPPING["action"]["parts"], {"topic": "/grip", "space": "gripper_opening", "names": ["g"]}]
    with pytest.raises(ConfigError, match="resample"):
        load_mapping(str(mapped(tmp_path, action={"parts": parts}).mapping))


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("originals")
    modes = {"plain": None, "message": CompressionMode.MESSAGE, "storage": CompressionMode.STORAGE}
    bags = [write_bag(folder / f"mcap_{n}", recording(0.2), PLUGINS[0], m) for n, m in modes.items()]
    bags.append(write_bag(folder / "sqlite", recording(0.2), PLUGINS[1]))
    bags.append(write_bag(folder / "bare", recording(0.2), PLUGINS[1]))
    strip_definitions(bags[-1])
    return bags


def mutate(
    bag: Path, file_of: Callable[[list[Path]], Path], edits: list[tuple[float, int, int]], cut: float
) -> None:
    """Overwrite bytes at relative places, then cut the file off."""
    file = file_of(sorted(bag.iterdir()))
    data = bytearray(file.read_bytes())
    for place, value, length in edits:
        at = int(place * len(data))
        data[at : at + length] = bytes([value]) * len(data[at : at + length])
    file.write_bytes(data[: int(cut * len(data)) + 1])


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    which=st.integers(0, 4),
    number=st.integers(0, 1),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.integers(1, 9)), max_size=6),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_mutated_bags_import_or_are_refused(originals, tmp_path_factory, which, number, edits, cut):
    folder = tmp_path_factory.mktemp("fuzz")
    bag = folder / "bag"
    shutil.copytree(originals[which], bag)
    mutate(bag, lambda files: files[number], edits, cut)
    options = mapped(folder)
    before = sorted(p.name for p in folder.iterdir())
    try:
        store, _ = import_dataset(bag, folder / "store", options, format="rosbag2")
    except RobopolicyError:
        assert sorted(p.name for p in folder.iterdir()) == before
    else:
        assert all(len(store.read(name)) for name in store.names)
    finally:
        shutil.rmtree(folder)
