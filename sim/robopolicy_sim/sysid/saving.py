"""What an identification leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from robopolicy.core.provenance import write_json
from robopolicy.core.serial import to_tree
from robopolicy_sim.sysid.identify import Identification
from robopolicy_sim.sysid.plotting import plot

RANDOMISATION, RESULT, PLOT = "randomisation.yaml", "sysid.json", "held_out.png"
SCHEMA_VERSION = 1


def save(result: Identification, folder: Path) -> None:
    """Write what environments take, every figure, and the plot."""
    head = (
        "# Identified by `robopolicy sysid`: constants for an environment's `randomisation` option.\n"
        f"# Held-out tool error {result.before.tool_mm:.2f} mm before, {result.after.tool_mm:.2f} mm after.\n"
    )
    text = head + yaml.safe_dump(result.conditions, sort_keys=False)
    (folder / RANDOMISATION).write_text(text, encoding="utf-8")
    write_json(folder / RESULT, as_tree(result))
    plot(result, folder / PLOT)


def as_tree(result: Identification) -> dict[str, Any]:
    """Contents of ``sysid.json``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "parameters": to_tree(result.parameters),
        "conditions": result.conditions,
        "estimates": to_tree(result.estimates),
        "before": to_tree(result.before),
        "after": to_tree(result.after),
        "warnings": list(result.warnings),
        "fitted_seconds": result.fitted_seconds,
        "iterations": result.iterations,
        "held_out": [log.name for log in result.held_out],
    }
