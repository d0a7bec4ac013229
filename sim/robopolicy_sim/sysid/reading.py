"""Logs from an episode store, or from a ROS bag by way of one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import SpecError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.importers.source import ImportOptions
from robopolicy.datasets.store import EpisodeStore
from robopolicy_sim.simulation import CONTROL_RATE
from robopolicy_sim.sysid.errors import IdentificationError
from robopolicy_sim.sysid.logs import Log, check, ticks_of

#: Metadata of episodes in which the gripper moved freely, see ``recording``.
EXCITATION = "excitation"
_JOINTS, _VELOCITY, _OPENING = "joint_position", "joint_velocity", "gripper_opening"
_SLOWEST = 5.0  # [Hz] of measurements that still show a servo's answer
_RATE_TOLERANCE = 0.05  # between the rate a store states and the one its times show


def read_store(where: str | Path, robot: Robot, *, gripper: bool | None = None) -> list[Log]:
    """Every episode of a store.

    Commands are the action, or ``executed_action`` where noise was added to it. They hold from their time on,
    or ramp to be met at the end of their step, as the action spec says.

    Args:
        gripper: whether the gripper moved freely; None believes what the recording says of itself.
    Raises:
        SpecError: other joints than the robot's, or commands that are no joint positions; lists both.
        StoreError, IdentificationError, ShapeError, NonFiniteValueError: see ``logs.check``.
    """
    store = EpisodeStore.open(where)
    columns = _columns(store.specs, robot, str(where))
    keys = tuple(k for k in (_JOINTS, _VELOCITY, _OPENING) if k in store.specs.observation)
    logs = []
    for name in store.names:
        reader = store.reader(name)
        extra = tuple(k for k in reader.extras if k == "executed_action")
        episode = reader.episode(keys, extra)
        free = bool(episode.metadata.get(EXCITATION)) if gripper is None else gripper
        log = _log(episode, store.specs, columns, robot, f"{where}, episode {name}", free)
        check(log, robot)
        logs.append(log)
    if not logs:
        raise IdentificationError(f"{where} holds no episode")
    return logs


def read_bag(path: Path, mapping: str, robot: Robot, *, gripper: bool | None = None) -> list[Log]:
    """Every episode of a rosbag2, under a mapping of ``robopolicy dataset import``; same errors."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "bag.zarr"
        import_dataset(path, store, ImportOptions(mapping=mapping), format="rosbag2")
        return read_store(store, robot, gripper=gripper)


def _columns(specs: Specs, robot: Robot, where: str) -> list[int]:
    """Places in the action of the robot's joints and, last, its gripper; -1 where that is not commanded."""
    joints, gripper = [], [-1]
    for part, place in specs.action.slices():
        columns = list(range(place.start, place.stop))
        if part.space == "joint_position" and part.reference == "absolute":
            joints += [columns[part.names.index(n)] for n in robot.joint_names if n in part.names]
        elif part.space == "gripper_opening":
            gripper = columns
    spaces = [part.space for part in specs.action.parts]
    if len(joints) != len(robot.joints):
        raise SpecError(
            f"{where} commands {spaces} {list(specs.action.names)}; identification of {robot.name} needs "
            f"absolute joint_position of {list(robot.joint_names)}"
        )
    measured = specs.observation.get(_JOINTS)
    if measured is None:
        raise SpecError(f"{where} has no observation {_JOINTS!r}, only {sorted(specs.observation)}")
    named = measured.names or robot.joint_names
    if measured.shape != (len(joints),) or tuple(named) != robot.joint_names:
        raise SpecError(f"{where} measures {list(named)}, {robot.name} has {list(robot.joint_names)}")
    return [*joints, gripper[0]]


def _log(episode: Episode, specs: Specs, columns: list[int], robot: Robot, where: str, free: bool) -> Log:
    observed = episode.observation[_JOINTS]
    joint_s, action_s = _seconds(observed), _seconds(episode.action)
    _check_rate(action_s, specs.policy_rate, f"{where}: actions")
    first = int(np.searchsorted(joint_s, action_s[0] - 1e-6))
    if first >= len(joint_s) - 1:
        raise IdentificationError(f"{where}: nothing was measured after the first command")
    times, joints = joint_s[first:] - joint_s[first], np.asarray(observed.value[first:], dtype=np.float64)
    if np.median(np.diff(times)) > 1.0 / _SLOWEST:
        rate = 1.0 / float(np.median(np.diff(times)))
        raise IdentificationError(f"{where}: joints measured at {rate:.1f} Hz; {_SLOWEST} Hz are the least")
    opening = _opening(episode, joint_s[first:], robot)
    sent = episode.extra.get("executed_action", episode.action)
    held = np.full(len(sent.value), opening[0])
    wanted = [sent.value[:, c] if c >= 0 else held for c in columns]
    values = np.stack(wanted, axis=1).astype(np.float64)
    measured = np.column_stack([joints, opening])
    before = None if action_s[0] < joint_s[first] - 1e-6 else measured[0]
    commands = _at_control_rate(values, action_s - joint_s[first], float(times[-1]), specs, before)
    velocity = np.zeros(len(robot.joints))
    if _VELOCITY in episode.observation:
        index = int(np.searchsorted(_seconds(episode.observation[_VELOCITY]), joint_s[first] - 1e-6))
        velocity = np.asarray(episode.observation[_VELOCITY].value[index], dtype=np.float64)
    seen = _OPENING in episode.observation and columns[-1] >= 0
    return Log(where, commands, times, measured, velocity, gripper=free and seen)


def _seconds(signal: Signal) -> Float:
    return np.asarray(signal.time_ns, dtype=np.int64) / 1e9


def _check_rate(times: Float, rate: float, what: str) -> None:
    if len(times) < 2:
        raise IdentificationError(f"{what}: {len(times)} are too few")
    seen = 1.0 / float(np.median(np.diff(times)))
    if abs(seen - rate) > _RATE_TOLERANCE * rate:
        raise IdentificationError(f"{what} come at {seen:.2f} Hz, but the store says {rate:g} Hz")


def _opening(episode: Episode, times: Float, robot: Robot) -> Float:
    """(samples,) of the gripper when joints were measured [m]; its middle where it was not seen."""
    signal = episode.observation.get(_OPENING)
    if signal is None:
        return np.full(len(times), robot.gripper.opening_max / 2)
    interpolated: Float = np.interp(times, _seconds(signal), signal.value[:, 0].astype(np.float64))
    return interpolated


def _at_control_rate(
    values: NDArray[Any], times: Float, seconds: float, specs: Specs, before: Float | None
) -> Float:
    """(ticks, dim) what is commanded during each control tick.

    Args:
        times: of the values, since the first measurement [s].
        before: what was commanded when the first one was sent; None where that is not known.
    """
    ticks = np.arange(ticks_of(seconds)) / CONTROL_RATE
    if specs.action.reached == "start":
        index = np.searchsorted(times, ticks + 1e-4, side="right") - 1
        held: Float = values[np.maximum(index, 0)]
        return held
    knots, ends = values, times + 1.0 / specs.policy_rate
    if before is not None:
        knots, ends = np.vstack([before, values]), np.append(times[0], ends)
    ends_of_ticks = ticks + 1.0 / CONTROL_RATE
    return np.stack([np.interp(ends_of_ticks, ends, column) for column in knots.T], axis=1)
