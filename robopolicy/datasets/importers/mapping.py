"""How foreign arrays become our signals: a YAML file, strictly read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import ActionPart
from robopolicy.datasets.importers import MAPPINGS


@dataclass(frozen=True)
class ObservationMap:
    """One observation: which source array, which columns of its last axis, and what they mean."""

    source: str
    columns: tuple[int, ...] = ()
    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    kind: str = "state"
    angles: tuple[int, ...] = ()


@dataclass(frozen=True)
class ActionMap:
    """The action: which source array, its parts in order, and when in its step it is reached."""

    source: str
    parts: tuple[ActionPart, ...]
    reached: str = "end"


@dataclass(frozen=True)
class Mapping:
    """A whole dataset; ``rate`` [Hz] times the frames when the source has no timestamps."""

    rate: float
    observation: dict[str, ObservationMap]
    action: ActionMap
    instruction: str = ""
    robot: str = ""


def load_mapping(name_or_path: str) -> Mapping:
    """A mapping shipped with robopolicy by name, or any YAML file by path.

    Raises:
        UnknownNameError: neither a shipped name nor a file; ConfigError: not valid YAML;
        SpecError: a field is unknown, missing or of the wrong type.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = MAPPINGS / f"{name_or_path}.yaml"
    if not path.is_file():
        raise UnknownNameError("mapping", name_or_path, [p.stem for p in MAPPINGS.glob("*.yaml")])
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
