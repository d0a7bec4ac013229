"""Which state column senses what a command asks for: the one of the same name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopolicy import robots
from robopolicy.core.specs import ActionPart, Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.signals import newest, states


@dataclass(frozen=True)
class Match:
    """Action dimension ``action`` of ``part`` and the state ``key``'s ``column`` of the same ``name``."""

    name: str
    part: ActionPart
    action: int
    key: str
    column: int

    @property
    def is_increment(self) -> bool:
        """Whether commands add to one another and their sum is what the state follows."""
        return self.part.space == "joint_delta"

    @property
    def comparable(self) -> bool:
        """Whether command and state are the same quantity, or its increments.

        Names alone do not make it so: a turn's rotation matrix is no difference of two poses' matrices.
        """
        return self.part.reference == "absolute" or self.is_increment


def match(episode: Episode, specs: Specs) -> list[Match]:
    """Commands with the states that follow them, by name, for every part of the action.

    Poses of the tool and of an object often share their names ("x", "y", ...); of several states that have
    all of a part's names the one nearest to the commands is taken.
    """
    matches = []
    for part, place in specs.action.slices():
        keys = [
            key
            for key, _, spec in states(episode, specs)
            if len(spec.shape) == 1 and set(part.names) <= set(spec.names)
        ]
        if not keys:
            continue
        commands = episode.action.value[:, place].astype(np.float64)

        def distance(key: str, part: ActionPart = part, commands: np.ndarray = commands) -> float:
            order = [specs.observation[key].names.index(name) for name in part.names]
            seen = newest(episode.observation[key], episode.action.time_ns)[:, order]
            return float(np.median(np.abs(commands - seen)))

        nearest = min(keys, key=distance)
        names = specs.observation[nearest].names
        matches += [
            Match(name, part, place.start + i, nearest, names.index(name))
            for i, name in enumerate(part.names)
        ]
    return matches


def proprioception(episode: Episode, specs: Specs) -> set[str]:
    """Keys of states that sense the robot itself, as far as names tell."""
    keys = {m.key for m in match(episode, specs)}
    if specs.robot in robots.names():
        robot = robots.load(specs.robot)
        own = {*robot.joint_names, robot.gripper.name}
        keys |= {key for key, _, spec in states(episode, specs) if own & set(spec.names)}
    return keys
