"""What LeRobot's features become: from the user's mapping, from our own export, or guessed and said so."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.core.errors import ImportFormatError, SpecError
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import ActionPart, Specs
from robopolicy.datasets.importers._boundary import foreign, leave_out
from robopolicy.datasets.importers.lerobot.layout import CAMERAS, ROW_KEYS, Feature, Layout
from robopolicy.datasets.importers.mapping import ActionMap, Mapping, ObservationMap, load_mapping
from robopolicy.datasets.importers.source import ImportOptions, Report

#: What ``exporters.lerobot`` writes beside LeRobot's own files.
OWN_FILE = "meta/robopolicy.json"
OWN_VERSION = 1
SUCCESS = "next.success"


@dataclass(frozen=True)
class OwnFacts:
    """What LeRobot has no place for.

    Args:
        specs: of what was exported.
        sources: "observation/KEY" or "extra/KEY" to LeRobot's feature.
        episodes: success, seed and metadata of each.
    """

    version: int
    specs: Specs
    sources: dict[str, str]
    episodes: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is read and what it becomes: the mapping, and extra signals by their source feature."""

    mapping: Mapping
    extra: MappingType[str, str]
    facts: tuple[dict[str, Any], ...] = ()
    report: Report = field(default_factory=Report)


def make_plan(layout: Layout, options: ImportOptions) -> Plan:
    """Decide what every feature becomes.

    Raises:
        ImportFormatError: the mapping names other features, another order or another rate than the source, or
            the source names dimensions twice; UnknownNameError: an option names no feature.
    """
    report, where = Report(), str(layout.root)
    own = None if options.mapping else _read_own(layout)
    if options.mapping:
        mapping = load_mapping(options.mapping)
    else:
        mapping = _from_specs(own, where) if own else _guess(layout, report)
    if not np.isclose(mapping.rate, layout.fps):
        raise ImportFormatError(f"{where}: meta/info.json says {layout.fps} fps, the mapping {mapping.rate}")
    mapping = leave_out(_from_known_features(mapping, layout), options, sorted(layout.features))
    mapping = _complete(mapping, layout, report)
    extra = _extra(layout, mapping, own, options.without, report)
    for name, part in mapping.observation.items():
        report.mapped[f"observation/{name}"] = part.source
    report.mapped["action"] = ", ".join(piece.source for piece in mapping.action.pieces)
    report.mapped.update({f"extra/{name}": source for name, source in extra.items()})
    report.ignored += [f"{name}: left out as asked" for name in options.without]
    return Plan(mapping, extra, own.episodes if own else (), report)


def _read_own(layout: Layout) -> OwnFacts | None:
    path = layout.root / OWN_FILE
    if not path.is_file():
        return None
    with foreign(str(path)):
        tree = json.loads(path.read_text())
    if not isinstance(tree, dict) or tree.get("version") != OWN_VERSION:
        raise ImportFormatError(f"{path}: not of version {OWN_VERSION}")
    try:
        own = from_tree(OwnFacts, tree, str(path))
    except SpecError as error:
        raise ImportFormatError(f"{path} is damaged: {error}") from error
    lacking = [k for k in own.specs.observation if f"observation/{k}" not in own.sources]
    if lacking or len(own.episodes) != len(layout.episodes):
        raise ImportFormatError(f"{path}: no source for {lacking}, facts of {len(own.episodes)} episodes")
    return own


def _from_specs(own: OwnFacts, where: str) -> Mapping:
    specs = own.specs
    observation = {
        key: ObservationMap(
            own.sources[f"observation/{key}"],
            units=spec.units,
            names=spec.names,
            kind=spec.kind,
            angles=spec.angles,
        )
        for key, spec in specs.observation.items()
    }
    action = ActionMap(specs.action.parts, "action", reached=specs.action.reached)
    return Mapping(specs.policy_rate, observation, action, robot=specs.robot)


def _guess(layout: Layout, report: Report) -> Mapping:
    """Every "observation..." and "action", without meaning: LeRobot has none."""
    sources = [
        key
        for key, feature in layout.features.items()
        if key.startswith("observation.") and feature.numpy is not None
    ]
    action = layout.features.get("action")
    if action is None or not sources:
        raise ImportFormatError(
            f"{layout.root}: a feature 'action' and some 'observation.*' are needed, or a mapping that says "
            f"which ones they are; it has {sorted(layout.features)}"
        )
    names = action.names or tuple(f"action_{i}" for i in range(action.shape[-1]))
    _refuse_double(names, "action", layout)
    observation = dict(zip(_short_names(sources), map(ObservationMap, sources)))
    report.guessed.append(f"action: every dimension is 'normalised' [1], absolute: {', '.join(names)}")
    robot = layout.info.get("robot_type")
    report.guessed.append(f"robot: none (robot_type is {robot!r})")
    return Mapping(layout.fps, observation, ActionMap((ActionPart("normalised", names),), "action"))


def _short_names(sources: list[str]) -> list[str]:
    """ "observation.images.front" becomes "front", unless two would become the same."""
    long = [re.sub(r"[^A-Za-z0-9_.-]", "_", s.removeprefix("observation.")) or s for s in sources]
    short = [name.removeprefix("images.") for name in long]
    return [s if short.count(s) == 1 else name for s, name in zip(short, long)]


def _from_known_features(mapping: Mapping, layout: Layout) -> Mapping:
    missing = [name for name in mapping.sources if name not in layout.features]
    if missing:
        raise ImportFormatError(f"{layout.root} has no {missing}; it has {sorted(layout.features)}")
    return mapping


def _complete(mapping: Mapping, layout: Layout, report: Report) -> Mapping:
    """Names from the source where the mapping gives none, and unit "1" where nobody says."""
    observation = {}
    for key, part in mapping.observation.items():
        feature = layout.features[part.source]
        if feature.dtype in CAMERAS:
            observation[key] = dataclasses.replace(part, kind="image")
            continue
        there = _columns(feature, part.columns)
        if not part.names and there and not part.convert:
            _refuse_double(there, part.source, layout)
            part = dataclasses.replace(part, names=there)
        _check_order(part.names, there, part.source, layout)
        if not part.units and not part.convert:
            width = len(part.columns) or feature.shape[-1]
            part = dataclasses.replace(part, units=("1",) * width)
            report.guessed.append(f"observation/{key}: unit '1' for every dimension")
        observation[key] = part
    if not any(piece.convert for piece in mapping.action.pieces):
        names = [n for part in mapping.action.parts for n in part.names]
        there = tuple(
            n for p in mapping.action.pieces for n in _columns(layout.features[p.source], p.columns)
        )
        _check_order(tuple(names), there, "action", layout)
    return dataclasses.replace(mapping, observation=observation)


def _columns(feature: Feature, columns: tuple[int, ...]) -> tuple[str, ...]:
    if len(feature.names) != feature.shape[-1]:
        return ()
    return tuple(feature.names[i] for i in columns if i < len(feature.names)) if columns else feature.names


def _check_order(names: tuple[str, ...], there: tuple[str, ...], key: str, layout: Layout) -> None:
    """A mapping may rename, but a name that the source has must stand where the source has it."""
    if len(names) != len(there):
        return  # without names in the source there is nothing to compare; widths are checked with the specs
    moved = [n for i, n in enumerate(names) if n in there and there[i] != n]
    if moved:
        raise ImportFormatError(
            f"{layout.root}: {key}: the mapping has {moved} in another place than the source, whose order is "
            f"{list(there)}"
        )


def _refuse_double(names: tuple[str, ...], key: str, layout: Layout) -> None:
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ImportFormatError(f"{layout.root}: feature {key!r} names {double} more than once")


def _extra(
    layout: Layout, mapping: Mapping, own: OwnFacts | None, without: tuple[str, ...], report: Report
) -> dict[str, str]:
    """Numbers that are neither observation nor action are kept as signals that no policy sees."""
    used = {*mapping.sources, *ROW_KEYS, SUCCESS, *without}
    extra: dict[str, str] = {}
    for key, feature in layout.features.items():
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", key.removeprefix("next."))
        if key in used:
            continue
        if feature.dtype in CAMERAS or key.startswith("observation."):
            report.ignored.append(f"{key}: not in the mapping")
        elif feature.numpy is None:
            report.ignored.append(f"{key}: {feature.dtype} is no number")
        elif own is None or f"extra/{name}" in own.sources:
            extra[name if name not in extra else key] = key
        else:
            report.ignored.append(f"{key}: says nothing new")
    return extra
