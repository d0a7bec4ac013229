"""How topics and fields of a rosbag2 become our signals: a YAML file, strictly read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import OBSERVATION_KINDS
from robopolicy.datasets.importers import MAPPINGS

STAMPS = ("", "header", "receive")
METHODS = ("hold",)
BAG_CLOCKS = ("monotonic", "simulation")


@dataclass(frozen=True)
class FieldMap:
    """One vector of numbers (or one picture) per message of a topic.

    Args:
        topic: as recorded, for example "/joint_states".
        field: dotted path, list positions by number ("points.0.positions"); empty takes the message
            type's usual one ("position" of a JointState, "data" of an array, "pose" of a PoseStamped).
        select: joint names in the order wanted; looked up in every message, as their order may change.
        columns: positions instead, for messages without names.
        scale: multiplies every number, for sources that are not in SI units.
        stamp: "header" or "receive" time; empty takes the header's where there is one and it is set.
        reorder: sort stamps that run backwards; of equal stamps the last received stays.
    """

    topic: str
    field: str = ""
    select: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()
    scale: float = 1.0
    stamp: str = ""
    reorder: bool = False

    def __post_init__(self) -> None:
        if self.stamp not in STAMPS:
            raise ConfigError(f"{self.topic}: stamp {self.stamp!r} is not one of {STAMPS}")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ConfigError(f"{self.topic}: scale must be finite and not 0, got {self.scale}")
        if self.select and self.columns:
            raise ConfigError(f"{self.topic}: select (names) and columns (positions) exclude each other")
        for chosen in (self.select, self.columns):
            if len(set(chosen)) != len(chosen):
                raise ConfigError(f"{self.topic}: something is selected twice in {chosen}")
        if any(column < 0 for column in self.columns):
            raise ConfigError(f"{self.topic}: columns count from 0, got {self.columns}")


@dataclass(frozen=True)
class ObservationMap(FieldMap):
    """One observation; ``names`` are ``select``'s unless given, a pose's units and names are known."""

    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    kind: str = "state"
    angles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in OBSERVATION_KINDS:
            raise ConfigError(f"{self.topic}: kind {self.kind!r} is not one of {OBSERVATION_KINDS}")
        if self.kind != "state" and (self.field or self.select or self.columns or self.scale != 1):
            raise ConfigError(f"{self.topic}: kind {self.kind} takes no field, select, columns or scale")


@dataclass(frozen=True)
class ActionPartMap(FieldMap):
    """One part of the action, see ``ActionPart``; ``names`` are ``select``'s unless given."""

    space: str = field(kw_only=True)
    names: tuple[str, ...] = ()
    reference: str = "absolute"
    frame: str = ""


@dataclass(frozen=True)
class Resample:
    """Policy steps every 1 / ``rate`` s [Hz]; "hold" takes the last command sent at or before a step."""

    rate: float
    method: str = "hold"

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 10_000:
            raise ConfigError(f"resample rate must be in 0..10000 Hz, got {self.rate}")
        if self.method not in METHODS:
            raise ConfigError(f"resample method {self.method!r} is not one of {METHODS}")


@dataclass(frozen=True)
class ActionMap:
    """The action, part by part. The first part's topic defines the steps; parts of several topics need
    ``resample``, and those after the first are held from any earlier time of the bag."""

    parts: tuple[ActionPartMap, ...]
    reached: str = "end"
    resample: Resample | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("action: at least one part is needed")
        sources = {(part.topic, part.stamp, part.reorder) for part in self.parts}
        if len(sources) > 1 and self.resample is None:
            topics = sorted({part.topic for part in self.parts})
            raise ConfigError(f"action: parts from {topics} share no times; say resample: {{rate: ...}}")


@dataclass(frozen=True)
class MarkerMap:
    """A topic that cuts a bag: std_msgs/Bool (true while an episode runs) or std_msgs/String.

    Args:
        start: text that begins an episode; empty for any text.
        stop: text that ends one; empty when every start ends the episode before it.
    """

    topic: str
    start: str = "start"
    stop: str = "stop"

    def __post_init__(self) -> None:
        if self.start == self.stop or (not self.start and self.stop):
            raise ConfigError(
                f"marker {self.topic}: start {self.start!r} and stop {self.stop!r} do not differ"
            )


@dataclass(frozen=True)
class EpisodesMap:
    """Where a bag is cut: by ``marker``, or into ``ranges`` [s from the bag's start], or not at all."""

    marker: MarkerMap | None = None
    ranges: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.marker and self.ranges:
            raise ConfigError("episodes: marker and ranges exclude each other")
        for start, stop in self.ranges:
            if not -1e9 < start < stop < 1e9:
                raise ConfigError(f"episodes: a range needs start < stop [s], got {[start, stop]}")


@dataclass(frozen=True)
class BagMapping:
    """A whole dataset.

    Args:
        instruction: the same for every episode; or
        instruction_topic: std_msgs/String, the last text at or before the first action, else the next one.
        clock: "simulation" when header stamps are simulated time.
        distro: whose standard messages to assume for bags that carry no definitions.
        definitions: message type to .msg text, for bags that carry none and types that are not standard.
    """

    observation: dict[str, ObservationMap]
    action: ActionMap
    episodes: EpisodesMap = EpisodesMap()
    instruction: str = ""
    instruction_topic: str = ""
    robot: str = ""
    clock: str = "monotonic"
    distro: str = "humble"
    definitions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.clock not in BAG_CLOCKS:
            raise ConfigError(f"clock {self.clock!r} is not one of {BAG_CLOCKS}")
        if self.instruction and self.instruction_topic:
            raise ConfigError("instruction and instruction_topic exclude each other")


def load_mapping(name_or_path: str) -> BagMapping:
    """A mapping shipped with robopolicy by name, or any YAML file by path.

    Raises:
        UnknownNameError: neither a shipped name nor a file; SpecError: a field is unknown, missing or of
        the wrong type; ConfigError: not valid YAML, or a value out of range.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = MAPPINGS / f"{name_or_path}.yaml"
    if not path.is_file():
        raise UnknownNameError("mapping", name_or_path, [p.stem for p in MAPPINGS.glob("*.yaml")])
    try:
        tree = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if isinstance(tree, dict):
        _check_keys(tree, str(path))
    return from_tree(BagMapping, tree, str(path))


def _check_keys(tree: Any, where: str) -> None:
    """YAML 1.1 reads ``on:`` and ``1:`` as a truth value and a number; say so instead of a riddle later."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(tree, dict) and not isinstance(key, str):
            raise ConfigError(f"{where}: the name {key!r} is not text; put it in quotes")
        if isinstance(value, (dict, list)):
            _check_keys(value, f"{where}.{key}")
