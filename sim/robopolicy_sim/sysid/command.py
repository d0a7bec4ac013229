"""What ``robopolicy sysid`` calls, found under the entry point ``robopolicy.identifiers``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import provenance
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import make_env
from robopolicy_sim import robots
from robopolicy_sim.sysid import tables
from robopolicy_sim.sysid.excitation import Excitation
from robopolicy_sim.sysid.identify import Identification, Options
from robopolicy_sim.sysid.identify import identify as _identify
from robopolicy_sim.sysid.logs import Log
from robopolicy_sim.sysid.reading import read_bag, read_store
from robopolicy_sim.sysid.recording import excite_env, specs_of
from robopolicy_sim.sysid.saving import save

__all__ = ["Options", "identify", "read", "record", "save", "show"]


def read(
    *, stores: Sequence[str], bag: Path | None, mapping: str, robot: str, gripper: bool | None
) -> list[Log]:
    """Logs of every store, then of the bag; see ``reading``."""
    if not stores and bag is None:
        raise ConfigError("nothing to identify from: give --store or --bag, or record one with --excite")
    loaded = robots.load(robot).robot
    logs = [log for where in stores for log in read_store(where, loaded, gripper=gripper)]
    if bag is not None:
        logs += read_bag(bag, mapping, loaded, gripper=gripper)
    return logs


def identify(robot: str, logs: Sequence[Log], options: Options, console: Console) -> Identification:
    """``identify.identify`` with a sign of life."""
    seconds = sum(log.seconds for log in logs)
    with console.status(f"fitting {robot} to {len(logs)} logs of {seconds:.0f} s together"):
        return _identify(robot, logs, options)


def show(result: Identification, console: Console) -> None:
    """Print parameters, errors and warnings."""
    console.print(tables.estimates(result))
    console.print(tables.errors(result))
    for warning in result.warnings:
        console.print(f"[yellow]note:[/] {warning}")


def record(
    task: str, output: Path, *, seeds: range, seconds: float, console: Console, **options: Any
) -> EpisodeStore:
    """Excite a task's robot and store it at control rate; ``options`` are the environment's."""
    excitation = Excitation(seconds=seconds)
    env = make_env(task, **options)
    try:
        store = EpisodeStore.create(output, specs_of(env.robot), provenance(task=task, excitation=excitation))
        for seed in track(seeds, "exciting", console=console):
            excite_env(env, store, range(seed, seed + 1), excitation)
    finally:
        env.close()
    return store
