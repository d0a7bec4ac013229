"""What a run folder says about its training: enough to start it again where it stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy import policies
from robopolicy.core.errors import ConfigError, RobopolicyError, RunExistsError
from robopolicy.core.provenance import create_run
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.training.config import TrainConfig
from robopolicy.training.data import StoreUse
from robopolicy.training.source import Source

CONFIG, PROVENANCE, RESULT = "config.json", "provenance.json", "train.json"
SOURCE = "source"  #: the policy that the training started from


@dataclass(frozen=True)
class Job:
    """A training, as asked for.

    Args:
        stores: paths or URLs; versions: one each, None for the newest.
        weights: of the stores; empty weighs each by its windows.
        family: of the policy; policy: its ``Config``.
        episodes: to use, of a single store; None takes all.
    """

    stores: tuple[str, ...]
    versions: tuple[int | str | None, ...]
    weights: tuple[float, ...]
    family: str
    policy: Any
    train: TrainConfig
    episodes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.stores:
            raise ConfigError("a training needs at least one store of demonstrations")
        if len(self.versions) != len(self.stores):
            raise ConfigError(f"{len(self.stores)} stores but {len(self.versions)} versions: {self.versions}")


def check_new(run: Path) -> None:
    """RunExistsError where the folder holds something; says how an interrupted training goes on."""
    if (command := _command(run)) and not (run / RESULT).is_file():
        raise RunExistsError(
            f"{run} already holds results of a training that did not finish: go on with 'robopolicy "
            f"{command} --resume {run}', choose another --output or remove it yourself"
        )
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise RunExistsError(f"{run} already holds results; choose another --output or remove it yourself")


def write_job(run: Path, job: Any, uses: tuple[StoreUse, ...], source: Source | None) -> None:
    """Make the run folder; RunExistsError where it holds results already.

    Args:
        job: of a policy or of a critic.
        source: that the training starts from; a copy of it stays in the run, since a resumed training needs
            it as it was.
    """
    check_new(run)
    create_run(run, job, seed=job.train.seed, stores=uses)
    if source is not None and source.folder is not None:
        shutil.copytree(source.folder, run / f"{SOURCE}.partial")
        (run / f"{SOURCE}.partial").rename(run / SOURCE)


def _command(run: Path) -> str:
    """Of robopolicy, that the training is one of; empty for what is none."""
    try:
        tree = set(json.loads((run / CONFIG).read_text()))
    except (OSError, ValueError, TypeError):
        return ""
    found = {"family": "train", "objective": "train-value"}
    return next((command for field, command in found.items() if {field, "train"} <= tree), "")


def read_job(run: Path) -> tuple[Job, tuple[StoreUse, ...]]:
    """The job of a run, and the data that it found.

    Raises:
        ConfigError: not a run of this version, or its files are damaged.
    """
    if not (run / CONFIG).is_file():
        raise ConfigError(f"nothing to resume: {run} holds no {CONFIG}")
    try:
        tree = json.loads((run / CONFIG).read_text())
        if _command(run) == "train-value":
            raise ConfigError("it trains a critic; robopolicy train-value --resume goes on with it")
        family = policies.family(tree["family"])
        policy = from_tree(family.Config, tree.pop("policy"))
        job = from_tree(Job, {**tree, "policy": policy})
        uses = tuple(from_tree(StoreUse, use) for use in json.loads((run / PROVENANCE).read_text())["stores"])
    except (OSError, ValueError, KeyError, TypeError, RobopolicyError) as error:
        raise ConfigError(f"{run} is no training that this version can resume: {error}") from error
    return job, uses


def check_same_data(was: tuple[StoreUse, ...], now: tuple[StoreUse, ...]) -> None:
    """ConfigError where stores have changed since the run began: it could not go on exactly."""
    for before, after in zip(was, now):
        if before != after:
            fields = [name for name in to_tree(before) if getattr(before, name) != getattr(after, name)]
            raise ConfigError(
                f"{before.store} is not what the run began with: {', '.join(fields)} differ; "
                "--train.finetune.run goes on from its weights instead"
            )
