"""Names and versions of what lies in a store; `data/README.md` is the same in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from robopolicy.core.errors import SchemaVersionError, SpecError, StoreError
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import Specs

SCHEMA_VERSION = 2
ROOT_KEY = "robopolicy"
EPISODE_KEY = "robopolicy_episode"
EPISODES = "episodes"
STAGING = ".staging"
LOCK = ".staging/lock"
#: What a reader must understand to see the right data; a store that uses more is refused by name.
FEATURES: tuple[str, ...] = ()
#: Facts of an episode and what stands for them in a store that was written before they existed.
EPISODE_FIELDS: dict[str, Any] = {
    "instruction": "",
    "success": None,
    "seed": None,
    "clock": "monotonic",
    "wall_minus_clock_ns": None,
    "metadata": {},
}
#: Those that versions keep, and so can change.
ENTRY_FIELDS = ("instruction", "success", "seed", "clock", "wall_minus_clock_ns")
_SIGNAL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Root:
    """What a store says of itself.

    Args:
        codecs: per camera, the codec's name and settings for new episodes.
        metadata: who made it, with what.
    """

    specs: Specs
    codecs: dict[str, dict[str, Any]]
    metadata: dict[str, Any]


def root_attributes(specs: Specs, metadata: dict[str, Any], codecs: dict[str, Any]) -> dict[str, Any]:
    """Attributes of the root group."""
    facts = {"features": list(FEATURES), "specs": to_tree(specs), "codecs": codecs, "metadata": metadata}
    return {ROOT_KEY: {"schema_version": SCHEMA_VERSION, **facts}}


def read_root(attributes: dict[str, Any], where: str) -> Root:
    """Specs and metadata of a store; refuses another schema version and features it does not know."""
    root = attributes.get(ROOT_KEY)
    if not isinstance(root, dict):
        raise StoreError(f"{where} is a Zarr group but not a robopolicy store (no {ROOT_KEY!r} attribute)")
    version = root.get("schema_version")
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{where} has schema version {version!r}; this release reads {SCHEMA_VERSION}"
        )
    unknown = sorted(set(root.get("features", [])) - set(FEATURES))
    if unknown:
        raise SchemaVersionError(f"{where} uses {unknown}, which this release would misread")
    try:
        specs = from_tree(Specs, root["specs"])
        return Root(specs, dict(root.get("codecs", {})), dict(root.get("metadata", {})))
    except (KeyError, SpecError) as error:
        raise StoreError(f"{where} has a damaged description: {error}") from error


def read_episode(attributes: dict[str, Any], where: str) -> dict[str, Any]:
    """An episode's facts, with defaults for those that it does not state, and its length."""
    facts = attributes.get(EPISODE_KEY)
    if not isinstance(facts, dict):
        raise StoreError(f"{where} has no {EPISODE_KEY!r} attribute")
    known = {field: facts.get(field, default) for field, default in EPISODE_FIELDS.items()}
    return {**known, "length": facts.get("length", 0)}


def check_signal_name(name: str) -> None:
    if not _SIGNAL_NAME.fullmatch(name):
        raise SpecError(f"signal name {name!r} may hold letters, digits, '_', '.', '-' only")


def episode_name(index: int) -> str:
    return f"{index:06d}"
