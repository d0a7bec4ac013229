"""Parameters put into a simulation come back from its recordings, and bad recordings are refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulator is not installed")
pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")
pytest.importorskip("plotly", reason="mujoco[sysid] is not installed")

from rich.console import Console

from robopolicy.core.errors import (
    ConfigError,
    MissingDependencyError,
    NonFiniteValueError,
    ShapeError,
    SpecError,
)
from robopolicy.core.specs import ActionPart, ActionSpec
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy_sim import robots
from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.randomisation.actuation import ImperfectPath
from robopolicy_sim.randomisation.delays import Delay
from robopolicy_sim.simulation import CONTROL_RATE
from robopolicy_sim.sysid.delay import delayed
from robopolicy_sim.sysid.errors import IdentificationError
from robopolicy_sim.sysid.excitation import Excitation
from robopolicy_sim.sysid.identify import Options, identify, split
from robopolicy_sim.sysid.logs import Log, check
from robopolicy_sim.sysid.open_loop import OpenLoop
from robopolicy_sim.sysid.parameters import RobotParameters, conditions
from robopolicy_sim.sysid.plotting import plot
from robopolicy_sim.sysid.reading import read_bag, read_store
from robopolicy_sim.sysid.recording import excite, excite_env, specs_of
from robopolicy_sim.sysid.servos import read, write
from robopolicy_sim.tasks.lift import LiftEnv

ARM = robots.load("fr3")
ROBOT = ARM.robot
NAMES = (*ROBOT.joint_names, ROBOT.gripper.name)
SHORT = Excitation(seconds=4.0)
#: What the fits below must find: softer servos with dry friction and a delay of two and a half ticks.
TRUE = RobotParameters(
    "fr3",
    {
        name: {"kp": kp, "kv": kp / 12, "frictionloss": friction}
        for name, kp, friction in zip(
            NAMES,
            (900.0, 800.0, 700.0, 600.0, 400.0, 300.0, 250.0, 800.0),
            (0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 1.5),
        )
    },
    delay=0.025,
)


def recorded(path: Path, parameters: RobotParameters | None, seeds: range) -> Path:
    """A store of short excitations, of the model as it is or with other parameters."""
    changed = {} if parameters is None else conditions(parameters, OpenLoop(ARM).nominal, ARM)
    env = LiftEnv(randomisation=changed)
    store = EpisodeStore.create(path, specs_of(env.robot), {"made": "by a test"})
    excite_env(env, store, seeds, SHORT)
    env.close()
    return path


@pytest.fixture(scope="module")
def excited(tmp_path_factory) -> list[Log]:
    """Three short logs of the changed robot."""
    path = recorded(tmp_path_factory.mktemp("excited") / "x.zarr", TRUE, range(3))
    return read_store(path, ROBOT)


@pytest.fixture(scope="module")
def nominal(tmp_path_factory) -> list[Log]:
    """One short log of the model as it is."""
    return read_store(recorded(tmp_path_factory.mktemp("nominal") / "x.zarr", None, range(1)), ROBOT)


def store_of(path: Path, episode: Episode, **changes: Any) -> Path:
    store = EpisodeStore.create(path, dataclasses.replace(specs_of(ROBOT), **changes), {"made": "by a test"})
    store.append(episode)
    return path


def still(seconds: float = 4.0, rate: float = CONTROL_RATE) -> Episode:
    """An episode in which nothing moves."""
    count = round(seconds * rate)
    times = np.round(np.arange(count + 1) * 1e9 / rate).astype(np.int64)
    joints = np.tile(ROBOT.home, (count + 1, 1))
    opening = np.full((count + 1, 1), 0.04)
    commands = np.column_stack([joints, opening])[:-1].astype(np.float32)
    observation = {"joint_position": Signal(joints, times), "gripper_opening": Signal(opening, times)}
    return Episode(observation=observation, action=Signal(commands, times[:-1]), clock="simulation")


# -- delay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticks", [0.0, 1.0, 2.5, 3.25])
def test_the_delay_is_that_of_the_simulation_tick_by_tick(ticks, rng):
    commands = rng.normal(size=(20, 3))
    age = Delay(ticks / CONTROL_RATE, 0.0, ticks_per_step=10, length=20, rng=rng)
    path = ImperfectPath(age, np.zeros((1, 3)), np.zeros(3))
    path.reset(commands[0])
    np.testing.assert_allclose([path.advance(c) for c in commands], delayed(commands, ticks), atol=1e-12)


def test_a_whole_delay_shifts_and_a_fraction_blends():
    commands = np.arange(6.0)[:, None]
    np.testing.assert_array_equal(delayed(commands, 2.0)[:, 0], [0, 0, 0, 1, 2, 3])
    np.testing.assert_allclose(delayed(commands, 1.25)[:, 0], [0, 0, 0.75, 1.75, 2.75, 3.75])


# -- parameters --------------------------------------------------------------------------------------------


def test_environments_take_parameters_as_conditions():
    nominal = OpenLoop(ARM).nominal
    found = conditions(TRUE, nominal, ARM)
    assert found["delay_actuation"] == 0.025
    env = LiftEnv(randomisation=found)
    _, info = env.reset(seed=0)
    assert info["conditions"] == found
    after = read(env.simulation.model, ARM)
    for name in NAMES:
        for kind, value in TRUE.joints[name].items():
            assert after.joints[name][kind] == pytest.approx(value, rel=1e-12)
    finger = env.simulation.model.joint("fr3_finger_joint2").dofadr[0]
    assert env.simulation.model.dof_frictionloss[finger] == 1.5


@pytest.mark.parametrize(
    ("joints", "delay", "message"),
    [
        ({"a": {"stiffness": 1.0}}, 0.0, "unknown parameter 'stiffness'; known: kp, kv"),
        ({"a": {"kp": -1.0}}, 0.0, "kp must be finite and >= 0, got -1.0"),
        ({"a": {"kp": float("nan")}}, 0.0, "got nan"),
        ({}, 2.0, "delay must be within 0..0.5 s, got 2.0"),
    ],
)
def test_bad_parameters_are_refused(joints, delay, message):
    with pytest.raises(ConfigError, match=message):
        RobotParameters("fr3", joints, delay)


def test_what_is_written_into_a_model_is_read_from_it():
    model = OpenLoop(ARM).model
    before = read(model, ARM)
    write(model, ARM, TRUE)
    after = read(model, ARM)
    for name in NAMES:
        assert after.joints[name] == {**before.joints[name], **TRUE.joints[name]}
    assert model.dof_frictionloss[model.joint("fr3_finger_joint2").dofadr[0]] == 1.5


def test_parameters_of_another_robot_or_joint_are_refused():
    model = OpenLoop(ARM).model
    with pytest.raises(ConfigError, match="'ur5e' do not fit 'fr3'"):
        write(model, ARM, RobotParameters("ur5e"))
    with pytest.raises(ConfigError, match="'elbow'; fr3 has fr3_joint1"):
        write(model, ARM, RobotParameters("fr3", {"elbow": {"kp": 1.0}}))


# -- excitation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_an_excitation_respects_every_limit(seed):
    start = np.append(ROBOT.home, 0.08)
    excitation = Excitation(amplitude=2.0, highest=4.0)
    commands = excitation.commands(ROBOT, start, np.random.default_rng(seed))
    limits = ROBOT.limits
    assert (commands >= limits.lower).all() and (commands <= limits.upper).all()
    velocity = np.diff(commands, axis=0) * CONTROL_RATE
    acceleration = np.diff(velocity, axis=0) * CONTROL_RATE
    assert (np.abs(velocity) <= limits.velocity).all()
    assert (np.abs(acceleration) <= limits.acceleration).all()
    tools = np.array([ROBOT.transform_tcp_to_base(c[:-1])[:3, 3] for c in commands[::5]])
    assert (tools >= ROBOT.workspace_lower).all() and (tools <= ROBOT.workspace_upper).all()
    assert tools[:, 2].min() >= excitation.height
    np.testing.assert_allclose(commands[0], start, atol=1e-3)
    assert np.abs(velocity[-1][:-1]).max() < 0.05
    assert np.ptp(commands, axis=0)[:-1].min() > 0.02


def test_an_excitation_is_decided_by_its_generator():
    start = np.append(ROBOT.home, 0.08)
    first, again, other = (SHORT.commands(ROBOT, start, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_an_excitation_from_outside_of_the_workspace_is_refused():
    folded = np.append(ROBOT.home, 0.08)
    folded[0] = 2.7  # turned backwards
    with pytest.raises(ConfigError, match="outside of the workspace"):
        SHORT.commands(ROBOT, folded, np.random.default_rng(0))


@pytest.mark.parametrize("bad", [{"seconds": 1.0}, {"lowest": 3.0}, {"highest": 50.0}, {"share": 0.0}])
def test_a_bad_excitation_is_refused(bad):
    with pytest.raises(ConfigError):
        Excitation(**bad)


def test_a_plant_at_another_rate_is_refused():
    class Slow:
        control_rate = 50.0

    with pytest.raises(ConfigError, match="100 Hz, the plant at 50"):
        excite(Slow(), ROBOT, np.zeros((5, 8)), clock=lambda: 0)  # type: ignore[arg-type]


# -- prediction --------------------------------------------------------------------------------------------


def test_the_unchanged_model_predicts_its_own_recording(nominal):
    open_loop = OpenLoop(ARM)
    predicted = open_loop.predict(open_loop.nominal, nominal)[0]
    np.testing.assert_allclose(predicted, nominal[0].measured, atol=1e-6)


def test_the_true_parameters_predict_the_changed_robot(excited):
    for log, predicted in zip(excited, OpenLoop(ARM).predict(TRUE, excited)):
        np.testing.assert_allclose(predicted, log.measured, atol=1e-6)


def test_commands_come_back_at_control_rate_from_a_recording_at_policy_rate(tmp_path):
    env = LiftEnv()
    sent: list[Any] = []
    advance = env.simulation.advance

    def spy(commands: Any, *each: Any) -> None:
        commands = [np.array(command) for command in commands]
        sent.extend(commands)
        advance(commands, *each)

    env.simulation.advance = spy  # type: ignore[method-assign]
    store = EpisodeStore.create(tmp_path / "x.zarr", env.specs, {"made": "by a test"})
    record(env, LiftExpert(noise=0.005), store, range(1), Console(quiet=True))
    (log,) = read_store(tmp_path / "x.zarr", ROBOT)
    assert not log.gripper and len(log.commands) == len(sent)
    np.testing.assert_allclose(log.commands[:, :-1], np.array(sent)[:, :-1], atol=1e-5)
    predicted = OpenLoop(ARM).predict(read(env.simulation.model, ARM), [log])[0]
    before_contact = log.times < 1.0
    np.testing.assert_allclose(predicted[before_contact], log.measured[before_contact], atol=1e-4)


# -- identification ----------------------------------------------------------------------------------------


def test_known_parameters_are_found(excited):
    kinds = ("kp", "kv", "frictionloss", "delay")
    result = identify(ARM, excited, Options(kinds, held_out=0.3))
    assert result.parameters.delay == pytest.approx(TRUE.delay, abs=5e-4)
    for estimate in result.estimates:
        true = TRUE.joints[estimate.joint][estimate.kind] if estimate.joint else TRUE.delay
        assert estimate.value == pytest.approx(true, rel=0.1), estimate
        assert estimate.low <= estimate.value <= estimate.high
    assert result.before.tool_mm > 5.0
    assert result.after.tool_mm < 0.1 and result.after.arm < 0.02 * result.before.arm
    assert len(result.held_out) == 1 and result.held_out[0].name == excited[-1].name


def test_what_the_logs_cannot_tell_apart_is_said(excited):
    result = identify(ARM, excited, Options(("kp", "kv", "damping", "delay"), seconds=4.0, max_iterations=3))
    left_open = {(e.kind, e.joint) for e in result.estimates if e.open and e.joint in ROBOT.joint_names}
    assert left_open == {("damping", name) for name in ROBOT.joint_names}
    assert any("damping of fr3_joint1" in w and "kv of fr3_joint1" in w for w in result.warnings)


def test_a_joint_that_stands_still_keeps_its_parameters(excited):
    def without_first(log: Log) -> Log:
        measured, commands = log.measured.copy(), log.commands.copy()
        measured[:, 0], commands[:, 0] = measured[0, 0], commands[0, 0]
        return dataclasses.replace(log, measured=measured, commands=commands)

    result = identify(ARM, [without_first(log) for log in excited], Options(("kp",), max_iterations=1))
    assert "fr3_joint1" not in result.parameters.joints
    assert any("fr3_joint1 hardly moves" in w for w in result.warnings)


def test_the_plot_is_written(excited, tmp_path):
    pytest.importorskip("matplotlib")
    result = identify(ARM, excited, Options(("delay",), max_iterations=1))
    plot(result, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "bad", [{"held_out": 0.0}, {"held_out": 1.0}, {"seconds": 0.1}, {"max_iterations": 0}, {"threads": 0}]
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ConfigError):
        Options(**bad)


@pytest.mark.parametrize("kinds", [(), ("kp", "kp"), ("stiffness",)])
def test_bad_kinds_are_refused(kinds):
    with pytest.raises(ConfigError, match="kp, kv, damping, armature, frictionloss, delay"):
        Options(kinds)


def test_a_missing_toolbox_is_named(excited, monkeypatch):
    import mujoco.sysid

    monkeypatch.delattr(mujoco.sysid, "ParameterDict")  # as when its own dependencies are not installed
    with pytest.raises(MissingDependencyError, match=r"robopolicy\[sysid\]"):
        identify(ARM, excited, Options(("delay",)))


# -- bad logs ----------------------------------------------------------------------------------------------


def test_one_episode_is_too_few(excited):
    with pytest.raises(IdentificationError, match="one to fit and one to judge"):
        split(excited[:1], 0.25)


def test_too_short_a_log_is_refused(tmp_path):
    with pytest.raises(IdentificationError, match=r"episode 000000: .* too short"):
        read_store(store_of(tmp_path / "x.zarr", still(0.5)), ROBOT)


def test_no_motion_is_refused(tmp_path):
    logs = read_store(store_of(tmp_path / "x.zarr", still()), ROBOT)
    with pytest.raises(IdentificationError, match="no joint of fr3 moves more than"):
        identify(ARM, [*logs, *logs])


def test_nan_is_refused_with_its_place(excited):
    measured = excited[0].measured.copy()
    measured[7, 2] = np.nan
    with pytest.raises(NonFiniteValueError, match="measured, sample 7"):
        check(dataclasses.replace(excited[0], measured=measured), ROBOT)


def test_degrees_are_refused(excited):
    in_degrees = dataclasses.replace(excited[0], measured=np.rad2deg(excited[0].measured))
    with pytest.raises(IdentificationError, match="degrees"):
        check(in_degrees, ROBOT)


def test_another_number_of_joints_is_refused(excited):
    with pytest.raises(ShapeError, match=r"commands: expected \(count, 8\)"):
        check(dataclasses.replace(excited[0], commands=excited[0].commands[:, :6]), ROBOT)


def test_other_joints_are_refused(tmp_path):
    names = tuple(f"arm_{i}" for i in range(7))
    gripper = ActionPart("gripper_opening", (ROBOT.gripper.name,))
    action = ActionSpec((ActionPart("joint_position", names), gripper), reached="start")
    with pytest.raises(SpecError, match=r"arm_0.*fr3_joint1"):
        read_store(store_of(tmp_path / "x.zarr", still(), action=action), ROBOT)


def test_a_rate_that_is_not_what_the_store_says_is_refused(tmp_path):
    with pytest.raises(IdentificationError, match=r"come at 50\.00 Hz, but the store says 100 Hz"):
        read_store(store_of(tmp_path / "x.zarr", still(rate=50.0)), ROBOT)


def test_measurements_that_are_too_rare_are_refused(tmp_path):
    episode = still()
    rare = {key: Signal(s.value[::50], s.time_ns[::50]) for key, s in episode.observation.items()}
    with pytest.raises(IdentificationError, match=r"measured at 2\.0 Hz"):
        read_store(store_of(tmp_path / "x.zarr", dataclasses.replace(episode, observation=rare)), ROBOT)


def test_an_empty_store_is_refused(tmp_path):
    EpisodeStore.create(tmp_path / "x.zarr", specs_of(ROBOT), {"made": "by a test"})
    with pytest.raises(IdentificationError, match="holds no episode"):
        read_store(tmp_path / "x.zarr", ROBOT)


# -- bags --------------------------------------------------------------------------------------------------

BAG_MAPPING = """
robot: fr3
observation:
  joint_position:
    topic: /joint_states
    select: [{joints}]
    units: [{units}]
  gripper_opening: {{topic: /gripper, select: [gripper_opening], units: [m], names: [gripper_opening]}}
action:
  reached: start
  parts:
    - {{topic: /command, space: joint_position, select: [{joints}]}}
    - {{topic: /command, space: gripper_opening, select: [gripper_opening]}}
"""


def test_a_bag_gives_the_same_log_as_a_store(nominal, tmp_path):
    pytest.importorskip("rosbags")
    log = nominal[0]
    mapping = tmp_path / "mapping.yaml"
    joints, units = ", ".join(ROBOT.joint_names), ", ".join(["rad"] * 7)
    mapping.write_text(BAG_MAPPING.format(joints=joints, units=units))
    bag = write_bag(tmp_path / "bag", log)
    (read_back,) = read_bag(bag, str(mapping), ROBOT, gripper=True)
    count = min(len(log.commands), len(read_back.commands))
    assert count >= len(log.commands) - 2 and read_back.gripper
    np.testing.assert_allclose(read_back.commands[:count], log.commands[:count], atol=1e-6)
    np.testing.assert_allclose(read_back.measured[:count], log.measured[:count], atol=1e-6)


def write_bag(path: Path, log: Log) -> Path:
    """A log as three topics of joint states; every message's stamp is when it was received."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    kinds = {name.split("/")[-1]: kind for name, kind in store.types.items()}
    empty = np.zeros(0)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            topic: writer.add_connection(topic, "sensor_msgs/msg/JointState", typestore=store)
            for topic in ("/joint_states", "/gripper", "/command")
        }
        for tick in range(len(log.commands)):
            time_ns = 1_700_000_000_000_000_000 + tick * 10_000_000
            stamp = kinds["Time"](sec=time_ns // 10**9, nanosec=time_ns % 10**9)
            head = kinds["Header"](stamp=stamp, frame_id="")
            for topic, names, values in (
                ("/joint_states", ROBOT.joint_names, log.measured[tick, :-1]),
                ("/gripper", (ROBOT.gripper.name,), log.measured[tick, -1:]),
                ("/command", NAMES, log.commands[tick]),
            ):
                message = kinds["JointState"](head, list(names), np.array(values), empty, empty)
                raw = bytes(store.serialize_cdr(message, message.__msgtype__))
                writer.write(topics[topic], time_ns, raw)
    return path


def test_an_arm_without_a_gripper_is_enough(tmp_path):
    episode = still()
    moved = np.array(episode.observation["joint_position"].value)
    specs = specs_of(ROBOT)
    arm_only = {
        "observation": {"joint_position": specs.observation["joint_position"]},
        "action": ActionSpec(specs.action.parts[:1], reached="start"),
    }
    bare = dataclasses.replace(
        episode,
        observation={"joint_position": Signal(moved, episode.observation["joint_position"].time_ns)},
        action=Signal(episode.action.value[:, :-1], episode.action.time_ns),
    )
    (log,) = read_store(store_of(tmp_path / "x.zarr", bare, **arm_only), ROBOT, gripper=True)
    assert not log.gripper and log.commands.shape == (400, 8)
    assert np.ptp(log.commands[:, -1]) == 0 and log.commands[0, -1] == log.measured[0, -1]
