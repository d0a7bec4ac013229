"""What a run folder says about the training of a critic: enough to start it again where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ConfigError, RobopolicyError
from robopolicy.core.provenance import write_json
from robopolicy.core.serial import from_tree
from robopolicy.datasets.transitions import TransitionConfig
from robopolicy.models.critics import CriticConfig
from robopolicy.steering import objectives
from robopolicy.steering.objectives._unseen import UnseenConfig
from robopolicy.training.data import StoreUse
from robopolicy.training.job import CONFIG, PROVENANCE, RESULT
from robopolicy.training.value.config import ValueTrainConfig

DEFAULT_OBJECTIVE = "iql"
LABELS = "labels.json"  #: digest of rewards and successes


@dataclass(frozen=True)
class ValueJob:
    """A training of a critic, as asked for.

    Args:
        stores: paths or URLs; versions: one each, None for the newest.
        weights: of the stores; empty weighs each by its windows.
        objective: file name in robopolicy/steering/objectives; options: its ``Config``.
        reward: file name in robopolicy/steering/rewards, or "package.module:function".
        returns: how rewards become targets.
        policy: run whose candidates the critic is to judge; empty without.
    """

    stores: tuple[str, ...]
    versions: tuple[int | str | None, ...]
    weights: tuple[float, ...]
    objective: str
    options: Any
    reward: str
    returns: TransitionConfig
    critic: CriticConfig
    policy: str
    train: ValueTrainConfig = field(default_factory=ValueTrainConfig)
    kind: str = "critic"

    def __post_init__(self) -> None:
        if not self.stores:
            raise ConfigError("a training needs at least one store of episodes")
        if len(self.versions) != len(self.stores):
            raise ConfigError(f"{len(self.stores)} stores but {len(self.versions)} versions: {self.versions}")
        drawn = self.train.policy_chunks
        if self.policy and isinstance(self.options, UnseenConfig) and self.options.policy > drawn:
            raise ConfigError(
                f"the objective asks for {self.options.policy} policy chunks, and {drawn} are drawn; "
                f"raise --train.policy-chunks or lower --{self.objective.replace('_', '-')}.policy"
            )


def read_value_job(run: Path) -> tuple[ValueJob, tuple[StoreUse, ...]]:
    """The job of an interrupted run, and the data that it found.

    Raises:
        ConfigError: not a run of a critic, one that is finished, or its files are damaged.
    """
    if not (run / CONFIG).is_file():
        raise ConfigError(f"nothing to resume: {run} holds no {CONFIG}")
    try:
        tree = json.loads((run / CONFIG).read_text())
        if "family" in tree:
            raise ConfigError("it trains a policy; robopolicy train --resume goes on with it")
        options = from_tree(objectives.objective(tree["objective"]).Config, tree.pop("options"))
        job = from_tree(ValueJob, {**tree, "options": options})
        uses = tuple(from_tree(StoreUse, use) for use in json.loads((run / PROVENANCE).read_text())["stores"])
    except (OSError, ValueError, KeyError, TypeError, RobopolicyError) as error:
        raise ConfigError(f"{run} is no training that this version can resume: {error}") from error
    if (run / RESULT).is_file():
        done = json.loads((run / RESULT).read_text())["steps"]
        raise ConfigError(f"{run} is finished after {done} steps; train another critic for more")
    return job, uses


def keep_labels(run: Path, digest: str, reward: str) -> None:
    """Note what the episodes were worth, or compare with what an interrupted run noted.

    Raises:
        ConfigError: they were worth something else: it could not go on exactly.
    """
    path = run / LABELS
    if not path.is_file():
        write_json(path, {"reward": reward, "sha256": digest})
    elif json.loads(path.read_text())["sha256"] != digest:
        raise ConfigError(
            f"reward {reward!r} or who judges success has changed since {run} began: its episodes are worth "
            "something else now; train another critic"
        )
