"""How foreign arrays become our signals: a YAML file, strictly read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robopolicy.core.errors import ConfigError, SpecError, UnknownNameError
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import ActionPart
from robopolicy.datasets import importers

#: Values in to values out of the last axis. Axis-angle has a jump at pi; the 6-D rotation has none.
CONVERSIONS = {"": (0, 0), "axis_angle_to_rotation_6d": (3, 6)}


@dataclass(frozen=True)
class ObservationMap:
    """One observation: which source array, which columns of its last axis, and what they mean.

    ``convert`` is one of ``CONVERSIONS``; units and names are those after it. Depth in metres
    (floats) becomes millimetres.
    """

    source: str
    columns: tuple[int, ...] = ()
    convert: str = ""
    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    kind: str = "state"
    angles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_conversion(self.convert)


@dataclass(frozen=True)
class ActionPiece:
    """Some dimensions of the action: columns of one source array, perhaps converted."""

    source: str
    columns: tuple[int, ...] = ()
    convert: str = ""

    def __post_init__(self) -> None:
        _check_conversion(self.convert)


@dataclass(frozen=True)
class ActionMap:
    """The action: its parts in order, when in its step it is reached, and where its numbers come from.

    Args:
        source: the source array that holds it; or else
        join: several pieces side by side, in the order of the parts.
        ahead: frames. 1 where nothing was commanded and the action of a step is the state one frame later;
            the last frames of an episode then have observations and no action.
    """

    parts: tuple[ActionPart, ...]
    source: str = ""
    join: tuple[ActionPiece, ...] = ()
    ahead: int = 0
    reached: str = "end"

    def __post_init__(self) -> None:
        if bool(self.source) == bool(self.join):
            raise SpecError("an action needs either 'from' (one array) or 'join' (several)")
        if self.ahead < 0:
            raise SpecError(f"ahead must be 0 or more frames, got {self.ahead}")

    @property
    def pieces(self) -> tuple[ActionPiece, ...]:
        return self.join or (ActionPiece(self.source),)


@dataclass(frozen=True)
class Mapping:
    """A whole dataset; ``rate`` [Hz] times the frames when the source has no timestamps."""

    rate: float
    observation: dict[str, ObservationMap]
    action: ActionMap
    instruction: str = ""
    robot: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source array that is used, observations first."""
        used = [*(m.source for m in self.observation.values()), *(p.source for p in self.action.pieces)]
        return tuple(dict.fromkeys(used))


def without_sources(mapping: Mapping, unwanted: tuple[str, ...]) -> Mapping:
    """The same mapping with fewer observations.

    Raises:
        SpecError: the action needs one of them, or no observation would be left.
    """
    needed = sorted({p.source for p in mapping.action.pieces} & set(unwanted))
    kept = {name: m for name, m in mapping.observation.items() if m.source not in unwanted}
    if needed or not kept:
        what = f"the action needs {needed}" if needed else "no observation would be left"
        raise SpecError(f"cannot import without {list(unwanted)}: {what}")
    return dataclasses.replace(mapping, observation=kept)


def _check_conversion(name: str) -> None:
    if name not in CONVERSIONS:
        raise SpecError(f"convert {name!r} is not one of {sorted(filter(None, CONVERSIONS))}")


def shipped() -> list[str]:
    """Mappings of this kind that come with robopolicy; ``FORMAT_...`` are of a format's own kind."""
    others = tuple(f"{name}_" for name in importers.names())
    return sorted(p.stem for p in importers.MAPPINGS.glob("*.yaml") if not p.stem.startswith(others))


def load_mapping(name_or_path: str) -> Mapping:
    """A mapping shipped with robopolicy by name, or any YAML file by path.

    Raises:
        UnknownNameError: neither a shipped name nor a file; ConfigError: not valid YAML;
        SpecError: a field is unknown, missing or of the wrong type.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = importers.MAPPINGS / f"{name_or_path}.yaml"
    if not path.is_file():
        raise UnknownNameError("mapping", name_or_path, shipped())
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return from_tree(Mapping, _rename_from(tree), str(path))


def _rename_from(tree: Any) -> Any:
    """YAML says ``from:``, which is a keyword in Python."""
    if isinstance(tree, dict):
        return {("source" if key == "from" else key): _rename_from(value) for key, value in tree.items()}
    return [_rename_from(v) for v in tree] if isinstance(tree, list) else tree
