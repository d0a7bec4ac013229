"""Delays of a robot's control loop: of what it observes, of inference, and of what it commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy_sim.randomisation.distributions import Constant, Distribution, parse_distribution

_NONE = Constant(0.0)


@dataclass(frozen=True)
class Latency:
    """Delays [s], drawn anew for every episode and held during it.

    Robotic Table Tennis (D'Ambrosio et al. 2023) measured the delay of each component on its robot, fitted
    a Gaussian to each, and draws from them at the start of every simulated episode; so does
    ``{"observation": {"normal": {"mean": 0.04, "std": 0.008, "low": 0}}, ...}`` here.

    Args:
        observation: between an instant and when the policy is given what was sensed then, pictures too.
        inference: between being given an observation and sending the first command that follows from it.
            Leave it out where the runtime, which takes its own time, drives the environment's plant.
        actuation: between sending a command and the servos' following it.
        jitter_observation, jitter_command: standard deviations, of a change to the delay of observations
            and of commands that is drawn at every policy step. Nothing overtakes what was sent before.
    """

    observation: Distribution = _NONE
    inference: Distribution = _NONE
    actuation: Distribution = _NONE
    jitter_observation: Distribution = _NONE
    jitter_command: Distribution = _NONE

    @classmethod
    def load(cls, source: Latency | Mapping[str, Any] | None) -> Latency:
        """From plain data: the fields above, each a number or a distribution.

        Raises:
            ConfigError, UnknownNameError: it is something else; the message lists the fields.
        """
        if isinstance(source, Latency):
            return source
        if not isinstance(source, Mapping | None):
            raise ConfigError(f"latency is a mapping, got {source!r}")
        known = [field.name for field in fields(cls)]
        for name in source or {}:
            if name not in known:
                raise UnknownNameError("delay", str(name), known)
        return cls(**{name: parse_distribution(tree) for name, tree in (source or {}).items()})

    def parameters(self) -> dict[str, Distribution]:
        """Those that are not always zero, as randomisation parameters."""
        names = {name: name if name.startswith("jitter") else f"delay_{name}" for name in _NAMES}
        given = {key: getattr(self, name) for name, key in names.items()}
        return {key: value for key, value in given.items() if value != _NONE}


_NAMES = tuple(field.name for field in fields(Latency))
