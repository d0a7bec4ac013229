"""Logs in, parameters out, with the error on logs that were held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy_sim import robots
from robopolicy_sim.robots import SimulatedRobot
from robopolicy_sim.sysid.accuracy import Accuracy, accuracy
from robopolicy_sim.sysid.confidence import Confidence, confidence
from robopolicy_sim.sysid.errors import IdentificationError
from robopolicy_sim.sysid.fit import Residual, fit, start
from robopolicy_sim.sysid.logs import SHORTEST, Log, check, moving
from robopolicy_sim.sysid.open_loop import OpenLoop
from robopolicy_sim.sysid.parameters import DELAY, KINDS, KINDS_OF_GRIPPER, RobotParameters, conditions
from robopolicy_sim.sysid.unknowns import DEFAULT, Unknown, check_kinds, parameters_at, unknowns


@dataclass(frozen=True)
class Options:
    """How to identify.

    Args:
        parameters: kinds to fit: kp, kv, damping, armature, frictionloss, delay. ``damping`` and ``kv`` act
            alike, so only their sum can be told.
        held_out: share of the episodes, the last ones, that judge and do not fit.
        seconds: of motion that the fit uses at most; more takes longer.
        max_iterations: of the optimiser.
        threads: that simulate.
    """

    parameters: tuple[str, ...] = DEFAULT
    held_out: float = 0.25
    seconds: float = 30.0
    max_iterations: int = 30
    threads: int = 1

    def __post_init__(self) -> None:
        check_kinds(self.parameters)
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out must be within 0..1, got {self.held_out}")
        if self.seconds < SHORTEST or self.max_iterations < 1 or self.threads < 1:
            raise ConfigError(
                f"seconds must be >= {SHORTEST}, max_iterations and threads >= 1, got {self.seconds}, "
                f"{self.max_iterations}, {self.threads}"
            )


@dataclass(frozen=True)
class Estimate:
    """One parameter.

    Args:
        nominal: the model's value before; of the delay 0.
        low, high: 95 % interval. It holds as far as the model does: what the model lacks is not in it.
        open: the logs add little to what was believed beforehand.
    """

    kind: str
    joint: str
    unit: str
    nominal: float
    value: float
    low: float
    high: float
    open: bool


@dataclass(frozen=True)
class Identification:
    """What came out.

    Args:
        parameters: every fitted value; others stay the model's.
        conditions: the same, as environments take them.
        before, after: error on the held-out logs with the model as it was and as it is now.
        warnings: parameters and directions that the logs leave open, joints that stood still.
        held_out: the logs that judged; before_paths, after_paths are their predictions.
    """

    parameters: RobotParameters
    conditions: dict[str, float]
    estimates: tuple[Estimate, ...]
    before: Accuracy
    after: Accuracy
    warnings: tuple[str, ...]
    fitted_seconds: float
    iterations: int
    held_out: tuple[Log, ...]
    before_paths: tuple[Float, ...]
    after_paths: tuple[Float, ...]


def identify(
    arm: SimulatedRobot | str, logs: Sequence[Log], options: Options | None = None
) -> Identification:
    """Fit a robot's model to logs.

    Args:
        arm: the robot, or its name.
        logs: at least two episodes; see ``reading``.
    Raises:
        IdentificationError: too few or too short logs, or no motion; ConfigError: options;
        ShapeError, NonFiniteValueError: a log is damaged; MissingDependencyError: no ``mujoco[sysid]``.
    """
    options = options or Options()
    arm = robots.load(arm) if isinstance(arm, str) else arm
    for log in logs:
        check(log, arm.robot)
    train, held_out = split(logs, options.held_out)
    moved = moving(train, arm.robot)
    open_loop = OpenLoop(arm, threads=options.threads)
    found = unknowns(open_loop.nominal, arm.robot, options.parameters, moved)
    used = _first_seconds(train, options.seconds)
    residual = Residual(open_loop, used, found, moved)
    names = [servo.name for servo in open_loop.servos]
    result = fit(residual, found, start(residual, found, names), max_iterations=options.max_iterations)
    parameters = parameters_at(result.x, found, arm.robot.name)
    sure = confidence(result, found)
    estimates = tuple(
        _estimate(unknown, x, deviation, is_open, open_loop.nominal, arm.robot)
        for unknown, x, deviation, is_open in zip(found, result.x, sure.deviation, sure.open)
    )
    paths = [open_loop.predict(p, held_out) for p in (open_loop.nominal, parameters)]
    return Identification(
        parameters=parameters,
        conditions=conditions(parameters, open_loop.nominal, arm),
        estimates=estimates,
        before=accuracy(arm.robot, held_out, paths[0]),
        after=accuracy(arm.robot, held_out, paths[1]),
        warnings=tuple(_warnings(found, sure, result.x, moved, open_loop.nominal, options.parameters)),
        fitted_seconds=sum(log.seconds for log in used),
        iterations=result.iterations,
        held_out=tuple(held_out),
        before_paths=tuple(paths[0]),
        after_paths=tuple(paths[1]),
    )


def split(logs: Sequence[Log], share: float) -> tuple[list[Log], list[Log]]:
    """Logs to fit and, the last ones, logs to judge by; at least one of each."""
    if len(logs) < 2:
        raise IdentificationError(f"{len(logs)} episode: one to fit and one to judge by are the least")
    count = min(max(round(share * len(logs)), 1), len(logs) - 1)
    return list(logs[:-count]), list(logs[-count:])


def _first_seconds(logs: list[Log], seconds: float) -> list[Log]:
    """Logs, the last one cut short, that last as long together."""
    used: list[Log] = []
    for log in logs:
        left = seconds - sum(u.seconds for u in used)
        if left < SHORTEST and used:
            break
        samples = int(np.searchsorted(log.times, left + 1e-6, side="right"))
        cut = dataclasses.replace(log, times=log.times[:samples], measured=log.measured[:samples])
        used.append(cut if samples < len(log.times) else log)
    return used


def _estimate(
    unknown: Unknown, x: float, deviation: float, is_open: bool, nominal: RobotParameters, robot: Robot
) -> Estimate:
    low, high = unknown.interval(x, deviation)
    if unknown.kind == DELAY:
        unit, before = "s", nominal.delay
    else:
        units = KINDS_OF_GRIPPER if unknown.joint == robot.gripper.name else KINDS
        unit, before = units[unknown.kind], nominal.joints[unknown.joint][unknown.kind]
    return Estimate(unknown.kind, unknown.joint, unit, before, unknown.value(x), low, high, is_open)


def _warnings(
    found: list[Unknown],
    sure: Confidence,
    x: Float,
    moved: list[bool],
    nominal: RobotParameters,
    kinds: tuple[str, ...],
) -> list[str]:
    fitted = {(unknown.kind, unknown.joint) for unknown in found}
    messages = []
    for name, has_moved in zip(nominal.joints, moved):
        missing = [k for k in kinds if k in KINDS and (k, name) not in fitted]
        if not has_moved:
            messages.append(f"{name} hardly moves: its parameters stay the model's")
        elif missing:
            messages.append(
                f"{name}: the model has no {', '.join(missing)}, so a factor of it cannot be fitted"
            )
    for unknown, is_open, tied, element in zip(found, sure.open, sure.tied, x):
        if is_open:
            with_others = f"; it cannot be told from {', '.join(tied)}" if tied else ""
            messages.append(
                f"{unknown.name} is mostly what the model said, these logs leave it open{with_others}"
            )
        if unknown.factor and element <= unknown.lower + 1e-3:
            messages.append(f"{unknown.name} ended at the lowest value that is searched")
        if element >= unknown.upper - 1e-3:
            messages.append(f"{unknown.name} ended at the highest value that is searched")
    return messages
