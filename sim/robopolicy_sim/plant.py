"""A simulated robot behind the interface of a real one: ``robopolicy.core.plant.Plant``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.core.plant import Stamped
from robopolicy.core.specs import Specs
from robopolicy_sim.simulation import CONTROL_RATE

if TYPE_CHECKING:
    from robopolicy_sim.environment import TaskEnv


class SimulatedPlant:
    """Moves an environment one control tick for each command. Time stands still between commands.

    The environment's randomisation and latency hold here too: observations arrive late and noisy, commands
    take their path. Inference is up to who drives the plant and takes the time it takes, so leave
    ``delay_inference`` at 0.

    Args:
        env: with joint_position actions, already reset; ``env.reset`` and ``env.is_success`` stay usable.
        clock: monotonic time stamps [ns]; the simulation's own time by default.
    Raises:
        ConfigError: the environment takes other actions, which are not what a driver is sent.
    """

    def __init__(self, env: TaskEnv, clock: Callable[[], int] | None = None) -> None:
        if env.specs.action.parts[0].space != "joint_position":
            spaces = [part.space for part in env.specs.action.parts]
            raise ConfigError(f"a plant is commanded by joint_position and gripper_opening, not {spaces}")
        self._env = env
        self._clock = clock or self._simulated_ns

    @property
    def specs(self) -> Specs:
        """Observations it gives, commands it takes."""
        return self._env.specs

    @property
    def control_rate(self) -> float:
        """Commands per second [Hz]."""
        return CONTROL_RATE

    def observe(self) -> dict[str, Stamped]:
        """What the sensors deliver, stamped with the instant it shows: earlier than now if delayed.

        The clock is read before any picture is rendered.
        """
        captured = self._clock() - round(self._env.observation_age * 1e9)
        return {name: Stamped(value, captured) for name, value in self._env.sensed().items()}

    def measured(self) -> NDArray[np.float64]:
        """(num_joints + 1,) measured joint positions [rad] and gripper opening [m]."""
        return self._env.simulation.measured()

    def command(self, position: NDArray[Any]) -> None:
        """Hold (num_joints + 1,) targets [rad, m] for one control tick of simulated time."""
        self._env.command(position)

    def _simulated_ns(self) -> int:
        return round(self._env.simulation.time * 1e9)
