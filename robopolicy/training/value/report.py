"""What a training of a critic tells its owner, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.core.errors import MissingDependencyError
from robopolicy.core.provenance import write_json
from robopolicy.models.critics import EnsembleCritic
from robopolicy.steering._saved import FOLDER
from robopolicy.training.value.data import Stores, outcomes
from robopolicy.training.value.job import ValueJob
from robopolicy.training.value.judge import Judge
from robopolicy.training.value.plots import draw_calibration

VALUE, PLOT = "value.json", "calibration.png"


def tell(stores: Stores, console: Console) -> list[str]:
    """Say what is learnt from; returns the warnings."""
    every, held_out = outcomes(stores), outcomes(stores, held_out=True)
    console.print(f"learning from {every}", highlight=False)
    if any(use.held_out for _, use in stores):
        console.print(f"held out: {held_out}", highlight=False)
    if skipped := sum(len(store.names) - len(use.episodes) - len(use.held_out) for store, use in stores):
        warnings = [f"{skipped} episodes that nobody judged are left out; --train.unjudged fail takes them"]
    else:
        warnings = []
    for store, use in stores:
        warnings += outcomes([(store, use)]).warnings(use.store if len(stores) > 1 else "")
    if not any(use.held_out for _, use in stores):
        warnings.append("no episode is held out: nothing will tell whether the critic can rank")
    for warning in warnings:
        _warn(warning, console)
    return warnings


def seen_relative(critic: EnsembleCritic) -> str:
    """Against what a critic sees actions."""
    if critic.relative is None:
        return "the critic sees commands as they are"
    keys = list(dict.fromkeys(match.key for match in critic.relative.matches))
    return f"the critic sees {len(critic.relative.matches)} of the action's dimensions relative to {keys}"


def conclude(
    output: Path, job: ValueJob, judge: Judge | None, warnings: list[str], console: Console, *, step: int
) -> dict[str, Any] | None:
    """Write what the critic that is kept is worth, and draw it.

    Args:
        step: of the training, that it is of.
    """
    if judge is None:
        return None
    found = judge(output / FOLDER)
    for warning in found.warnings():
        _warn(warning, console)
    tree = {"step": step, **found.tree(), "objective": job.objective, "reward": job.reward}
    tree["warnings"] = [*warnings, *found.warnings()]
    write_json(output / VALUE, tree)
    rank = found.ranking
    said = f"{rank.value:.3f} ({rank.interval[0]:.3f} to {rank.interval[1]:.3f})" if rank else "not measured"
    try:
        draw_calibration(
            output / PLOT,
            found,
            f"{job.objective}, {job.reward} reward, step {step}: ranking accuracy {said}",
        )
    except MissingDependencyError as error:
        console.print(f"{PLOT} not drawn: {error}", highlight=False, markup=False)
    return tree


def _warn(message: str, console: Console) -> None:
    console.print(f"warning: {message}", highlight=False, markup=False, style="yellow")
