"""Names and versions of what lies in a store; `data/README.md` is the same in words."""

from __future__ import annotations

import re
from typing import Any

from robopolicy.core.errors import SchemaVersionError, SpecError, StoreError
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import Specs

SCHEMA_VERSION = 1
ROOT_KEY = "robopolicy"
EPISODE_KEY = "robopolicy_episode"
EPISODES = "episodes"
STAGING = ".staging"
EPISODE_FIELDS = ("length", "instruction", "success", "seed", "started_wall_ns", "metadata")
_SIGNAL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def root_attributes(specs: Specs, metadata: dict[str, Any]) -> dict[str, Any]:
    """Attributes of the root group."""
    return {ROOT_KEY: {"schema_version": SCHEMA_VERSION, "specs": to_tree(specs), "metadata": metadata}}


def read_root(attributes: dict[str, Any], where: str) -> tuple[Specs, dict[str, Any]]:
    """Specs and metadata of a store; refuses another schema version."""
    root = attributes.get(ROOT_KEY)
    if root is None:
        raise StoreError(f"{where} is a Zarr group but not a robopolicy store (no {ROOT_KEY!r} attribute)")
    version = root.get("schema_version")
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{where} has schema version {version!r}; this release reads {SCHEMA_VERSION}"
        )
    try:
        return from_tree(Specs, root["specs"]), dict(root.get("metadata", {}))
    except (KeyError, SpecError) as error:
        raise StoreError(f"{where} has a damaged description: {error}") from error


def check_signal_name(name: str) -> None:
    if not _SIGNAL_NAME.fullmatch(name):
        raise SpecError(f"signal name {name!r} may hold letters, digits, '_', '.', '-' only")


def episode_name(index: int) -> str:
    return f"{index:06d}"
