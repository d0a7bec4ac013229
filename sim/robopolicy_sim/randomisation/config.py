"""What differs between episodes, as a checked configuration: name -> distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robopolicy.core.errors import ConfigError, RobopolicyError, UnknownNameError
from robopolicy_sim.randomisation.distributions import Distribution, is_list, is_value, parse_distribution
from robopolicy_sim.randomisation.kinds import KINDS, check_value, parse_key
from robopolicy_sim.randomisation.latency import Latency

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Parameter:
    """One entry: what its values are drawn from, and whether every target draws its own."""

    distribution: Distribution
    each: bool = False


@dataclass(frozen=True)
class Randomisation:
    """What is drawn for every episode.

    Args:
        parameters: by key, "KIND" (its usual targets) or "KIND:PATTERN" (shell pattern of target names),
            with the kinds of ``kinds.KINDS``: "mass:cube", "friction", "kp:fr3_joint[1-4]".
    Raises:
        ConfigError, UnknownNameError: an unknown kind, or a value that makes no physical sense.
    """

    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, parameter in self.parameters.items():
            name, _ = parse_key(key)
            if parameter.each and not KINDS[name].over:
                raise ConfigError(f"{key}: there is only one, so 'each' says nothing")
            for value in parameter.distribution.extremes():
                if isinstance(value, float) and math.isinf(value):
                    raise ConfigError(f"{key}: a normal here needs low and high, within {_range(name)}")
                check_value(key, value)

    @property
    def paints(self) -> bool:
        """Whether surfaces may get another texture."""
        return any(parse_key(key)[0] == "texture" for key in self.parameters)

    @classmethod
    def load(cls, source: Randomisation | Mapping[str, Any] | str | Path | None) -> Randomisation:
        """From a preset's name ("light"), a YAML file's path, or the same as plain data.

        Each entry is KEY: DISTRIBUTION as ``parse_distribution`` takes it; a mapping may add
        ``each: true``, so that every target draws its own value. The entry "preset" names another
        randomisation, whose entries stay where they are not given anew.

        Raises:
            ConfigError, UnknownNameError: unreadable, or not that; names the entry and what there is.
        """
        if isinstance(source, Randomisation):
            return source
        if isinstance(source, (str, Path)):
            source = _read(source)
        if source is None:
            return cls()
        if not isinstance(source, Mapping):
            raise ConfigError(f"randomisation is a mapping of parameters, a preset or a file, got {source!r}")
        entries = dict(source)
        base = cls.load(entries.pop("preset", None))
        return cls({**base.parameters, **{str(k): _parameter(str(k), tree) for k, tree in entries.items()}})

    def with_latency(self, latency: Latency) -> Randomisation:
        """This and the delays; ConfigError if both give the same one."""
        added = latency.parameters()
        twice = sorted(set(added) & set(self.parameters))
        if twice:
            raise ConfigError(f"{', '.join(twice)} given both by randomisation and by latency")
        return Randomisation({**self.parameters, **{key: Parameter(value) for key, value in added.items()}})


def presets() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _range(kind: str) -> str:
    return f"{KINDS[kind].low:g} to {KINDS[kind].high:g}"


def _read(source: str | Path) -> Any:
    path = PRESETS / f"{source}.yaml" if str(source) in presets() else Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise UnknownNameError("randomisation preset", str(source), [*presets(), "or a path to a .yaml file"])
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the randomisation {path}: {error}") from error


def _parameter(key: str, tree: Any) -> Parameter:
    parse_key(key)  # an unknown name is the better message
    each = False
    if isinstance(tree, Mapping) and "each" in tree:
        tree = dict(tree)
        each = tree.pop("each")
        if not isinstance(each, bool):
            raise ConfigError(f"{key}: each is true or false, got {each!r}")
    elif not (isinstance(tree, Mapping) or is_value(tree) or is_list(tree)):
        raise ConfigError(f"{key}: expected a value, a range or a distribution, got {tree!r}")
    try:
        return Parameter(parse_distribution(tree), each)
    except RobopolicyError as error:
        raise ConfigError(f"{key}: {error}") from error
