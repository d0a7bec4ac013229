"""Logs of the twin and the parameters identified from them, as one would on the real arm."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from robopolicy.core.provenance import provenance
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.sysid import command, saving
from robopolicy_sim.sysid.excitation import Excitation
from robopolicy_sim.sysid.identify import Options
from robopolicy_sim.sysid.logs import Log
from robopolicy_sim.sysid.reading import read_store
from robopolicy_sim.sysid.recording import excite_env, specs_of
from robopolicy_sim.twins.twin import make_twin


def identified(root: Path, *, quick: bool, console: Console) -> Path:
    """``randomisation.yaml`` for the twin, from the cache or by recording and fitting.

    Excitations (100 Hz) and the expert's own episodes (10 Hz), in turns, so that both kinds fit and judge.
    """
    folder = root / "sysid"
    if not (folder / saving.RANDOMISATION).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        count = 3 if quick else 8
        logs = _logs(folder, count)
        options = Options(seconds=12.0 if quick else 60.0, max_iterations=3 if quick else 30)
        result = command.identify("fr3", logs, options, console)
        saving.save(result, folder)
        command.show(result, console)
    return folder / saving.RANDOMISATION


def _logs(folder: Path, count: int) -> list[Log]:
    env = make_twin("lift")
    excited = EpisodeStore.create(folder / "excitation.zarr", specs_of(env.robot), provenance())
    excite_env(env, excited, range(count), Excitation())
    shown = EpisodeStore.create(folder / "expert.zarr", env.specs, provenance())
    record(env, LiftExpert(), shown, range(count), Console(quiet=True))
    env.close()
    stores = [read_store(folder / f"{kind}.zarr", env.robot) for kind in ("excitation", "expert")]
    return [log for pair in zip(*stores, strict=True) for log in pair]
