"""Draws the conditions of each episode and puts them into the simulation."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy.core.policy import keyed_rng
from robopolicy_sim.randomisation.actuation import ImperfectPath
from robopolicy_sim.randomisation.config import Parameter, Randomisation
from robopolicy_sim.randomisation.delays import Delay
from robopolicy_sim.randomisation.distributions import Uniform, Value
from robopolicy_sim.randomisation.dynamics import Dynamics
from robopolicy_sim.randomisation.fields import ModelFields
from robopolicy_sim.randomisation.kinds import KINDS, check_value, parse_key
from robopolicy_sim.randomisation.sensing import ImperfectSensors
from robopolicy_sim.randomisation.table import Table
from robopolicy_sim.randomisation.targets import Targets
from robopolicy_sim.randomisation.textures import Textures
from robopolicy_sim.randomisation.visuals import Visuals
from robopolicy_sim.simulation import Simulation

Conditions = Mapping[str, Value]
Key = tuple[int, ...]
_DRAW, _JITTER, _COMMAND_NOISE, _SENSOR_NOISE = 10, 11, 12, 13  # streams of an episode's seed
_NOISES = ("joint", "gripper", "position", "rotation", "image")


class Randomiser:
    """One episode after the other: restores the model, draws, applies.

    Every parameter draws from a stream of its own, keyed by the episode and its name, so adding one changes
    neither the initial state nor what the others are.

    Args:
        simulation: whose model is changed.
        randomisation: what is drawn; nothing is changed where it is empty.
        episode_ticks: control ticks of an episode; ticks_per_step: of a policy step.
    Raises:
        UnknownNameError: a parameter is for something this scene lacks; lists what it has.
    """

    def __init__(
        self, simulation: Simulation, randomisation: Randomisation, *, episode_ticks: int, ticks_per_step: int
    ) -> None:
        self._simulation, self._ticks, self._ticks_per_step = simulation, episode_ticks, ticks_per_step
        model = simulation.model
        self._targets = Targets(simulation)
        self._parameters = dict(self._expand(randomisation.parameters))
        self._fields = ModelFields(model)
        self._scratch = mujoco.MjData(model)
        self._dynamics = Dynamics(simulation, self._targets)
        self._table = Table(simulation)
        self._visuals = Visuals(model, self._scratch)
        self.textures = Textures(model)
        self._effects = {**self._dynamics.effects, **self._table.effects, **self._visuals.effects}
        self.sensors: ImperfectSensors | None = None
        self.conditions: Conditions = {}
        self._key: Key = ()

    def _expand(self, parameters: Mapping[str, Parameter]) -> list[tuple[str, Parameter]]:
        """Check every target; one entry per target where each draws its own."""
        expanded: list[tuple[str, Parameter]] = []
        for key, parameter in parameters.items():
            self._targets.ids(key)
            expanded += [(k, parameter) for k in (self._targets.each(key) if parameter.each else [key])]
        twice = {key for key, _ in expanded if sum(key == other for other, _ in expanded) > 1}
        if twice:
            raise ConfigError(f"drawn more than once: {', '.join(sorted(twice))}")
        if any(parse_key(key)[0] == "texture" for key, _ in expanded) and "texture_seed" not in parameters:
            expanded.append(("texture_seed", Parameter(Uniform(0, KINDS["texture_seed"].high))))
        return expanded

    def draw(self, key: Key, fixed: Mapping[str, Any]) -> Conditions:
        """The conditions of an episode: drawn ones, and instead of or beside them the fixed ones.

        Raises:
            ConfigError, UnknownNameError: a fixed condition that cannot be.
        """
        for name, value in fixed.items():
            check_value(name, value)
            self._targets.ids(name)
        drawn = {
            name: parameter.distribution.draw(keyed_rng(*key, _DRAW, zlib.crc32(name.encode())))
            for name, parameter in self._parameters.items()
            if name not in fixed
        }
        if "texture_seed" in drawn:
            drawn["texture_seed"] = int(drawn["texture_seed"])
        return {**drawn, **fixed}

    def begin(self, key: Key, conditions: Conditions) -> None:
        """Make the model, the path of commands and the sensors those of an episode."""
        if not conditions and not self.conditions:
            self._key = key
            return
        self._fields.restore()
        self._table.reset()
        self.textures.reset()
        self._key, self.conditions = key, dict(conditions)
        order = list(KINDS)
        kinds = {name: parse_key(name)[0] for name in conditions}
        for name in sorted(conditions, key=lambda name: (order.index(kinds[name]), name)):
            value = conditions[name]
            if kinds[name] in self._effects:
                self._effects[kinds[name]](self._targets.ids(name), float(value))
            elif kinds[name] == "texture":
                self.textures.paint(
                    self._targets.ids(name), str(value), int(conditions.get("texture_seed", 0))
                )
        self._dynamics.settle(set(kinds.values()), self._scratch)
        self._simulation.path = self._path()
        self.sensors = self._sensors()

    def placed(self) -> None:
        """The objects of the episode have been placed."""
        self._table.placed()
        if self.sensors is not None:
            self.sensors.reset()

    def state(self) -> tuple[Key, Conditions, Any]:
        """What ``restore`` needs to come back to this episode."""
        return self._key, self.conditions, None if self.sensors is None else self.sensors.states

    def restore(self, state: tuple[Key, Conditions, Any]) -> None:
        key, conditions, states = state
        if (key, conditions) != (self._key, self.conditions):
            self.begin(key, conditions)
        if self.sensors is not None:
            self.sensors.states = states

    def _value(self, kind: str) -> float:
        return float(self.conditions.get(kind, 0.0))

    def _delay(self, delay: float, jitter: str) -> Delay:
        rng = keyed_rng(*self._key, _JITTER, zlib.crc32(jitter.encode()))
        return Delay(
            delay, self._value(jitter), ticks_per_step=self._ticks_per_step, length=self._ticks + 1, rng=rng
        )

    def _path(self) -> ImperfectPath | None:
        """None where commands reach the servos as they are."""
        delay = self._delay(self._value("delay_inference") + self._value("delay_actuation"), "jitter_command")
        noise, width = self._per_servo("noise_command"), self._per_servo("backlash")
        if not (delay.any or noise.any() or width.any()):
            return None
        rows = self._ticks if noise.any() else 1
        drawn = keyed_rng(*self._key, _COMMAND_NOISE).standard_normal((rows, len(noise)))
        return ImperfectPath(delay, drawn * noise, width)

    def _per_servo(self, kind: str) -> Float:
        values = np.zeros(len(self._simulation.actuators))
        for name, value in self.conditions.items():
            if parse_key(name)[0] == kind:
                values[self._targets.ids(name)] += float(value)
        return values

    def _sensors(self) -> ImperfectSensors | None:
        """None where observations are true and of the present."""
        delay = self._delay(self._value("delay_observation"), "jitter_observation")
        noise = {name: self._value(f"noise_{name}") for name in _NOISES}
        if not (delay.any or any(noise.values())):
            return None
        return ImperfectSensors(self._simulation, delay, noise, (*self._key, _SENSOR_NOISE))
