"""Record an excitation on a robot, real or simulated, at control rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy.core.plant import Plant
from robopolicy.core.robot import Robot
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy_sim.simulation import CONTROL_RATE
from robopolicy_sim.sysid.excitation import Excitation
from robopolicy_sim.sysid.reading import EXCITATION


def specs_of(robot: Robot) -> Specs:
    """Specs of a recording for identification: what is commanded and measured, at control rate."""
    names = robot.joint_names
    observation = {
        "joint_position": ArraySpec((len(names),), "float64", ("rad",) * len(names), names),
        "gripper_opening": ArraySpec((1,), "float64", ("m",), (robot.gripper.name,)),
    }
    parts = (ActionPart("joint_position", names), ActionPart("gripper_opening", (robot.gripper.name,)))
    return Specs(observation, ActionSpec(parts, reached="start"), CONTROL_RATE, robot.name)


def excite(
    plant: Plant,
    robot: Robot,
    commands: Float,
    *,
    clock: Callable[[], int],
    wait: Callable[[], None] = lambda: None,
    clock_name: str = "monotonic",
) -> Episode:
    """Send commands, one a control tick, and measure before each and after the last.

    Args:
        commands: (ticks, num_joints + 1) [rad, m]; see ``Excitation.commands``.
        clock: monotonic time [ns]; read when measuring.
        wait: returns when the next tick begins; a simulation needs none, it moves with each command.
        clock_name: "monotonic" or "simulation".
    Raises:
        ConfigError: the plant does not run at control rate.
    """
    if abs(plant.control_rate - CONTROL_RATE) > 1e-6:
        raise ConfigError(
            f"identification records at {CONTROL_RATE:g} Hz, the plant at {plant.control_rate:g}"
        )
    actions = commands.astype(np.float32)  # as stores keep them, so what is sent is what is recorded
    measured, times = [], []
    for command in actions.astype(np.float64):
        measured.append(plant.measured())
        times.append(clock())
        plant.command(command)
        wait()
    measured.append(plant.measured())
    times.append(clock())
    time_ns, values = np.array(times, dtype=np.int64), np.array(measured)
    return Episode(
        observation={
            "joint_position": Signal(values[:, :-1], time_ns),
            "gripper_opening": Signal(values[:, -1:], time_ns),
        },
        action=Signal(actions, time_ns[:-1]),
        clock=clock_name,
        metadata={EXCITATION: True},
    )


def excite_env(env: Any, store: EpisodeStore, seeds: range, excitation: Excitation | None = None) -> None:
    """Append one excitation per seed, from where the environment's reset puts the arm.

    Args:
        env: a task with joint_position actions; its ``plant`` is driven.
        store: of ``specs_of`` the environment's robot.
    """
    excitation = excitation or Excitation()
    for seed in seeds:
        env.reset(seed=seed)
        plant = env.plant()
        rng = np.random.default_rng([seed, 0])
        commands = excitation.commands(env.robot, plant.measured(), rng)
        episode = excite(
            plant,
            env.robot,
            commands,
            clock=lambda: round(env.simulation.time * 1e9),
            clock_name="simulation",
        )
        store.append(episode)
