"""A trained policy that another training starts from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from robopolicy import policies
from robopolicy.core.errors import ConfigError, RobopolicyError
from robopolicy.core.language import TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.goals import GoalConfig
from robopolicy.policies._saved import DESCRIPTION, TEXT_ENCODER, load_policy
from robopolicy.runtime.language.choose import KNOWN

if TYPE_CHECKING:
    from robopolicy.training.config import TrainConfig


@dataclass(frozen=True)
class Source:
    """A policy to start from, as it was saved.

    Args:
        encoder: of its instructions, as ``TrainConfig.instruction`` takes it, and its digest; empty without.
        goal: how its training drew goals; None where only the policy is there, without its run.
        folder: of the policy; None for one that was never saved.
    """

    family: str
    config: Any
    specs: PolicySpecs
    normalisers: Normalisers
    weights: dict[str, Tensor]
    encoder: str = ""
    encoder_digest: str = ""
    goal: GoalConfig | None = None
    folder: Path | None = None


def read_source(run: str | Path) -> Source:
    """The policy of a run folder, or of its ``policy`` folder; RobopolicyError where there is none."""
    folder = Path(run)
    if not (folder / DESCRIPTION).is_file():
        folder = folder / "policy"
    policy = load_policy(folder, "cpu")
    tree = json.loads((folder / DESCRIPTION).read_text())
    told = tree.get(TEXT_ENCODER) or {"name": "", "digest": ""}
    encoder = told["name"] if told["name"] in ("", *KNOWN) else str(folder / TEXT_ENCODER)
    return Source(
        tree["family"],
        from_tree(policies.family(tree["family"]).Config, tree["config"]),
        from_tree(PolicySpecs, tree["specs"]),
        policy.normalisers,
        policy.module.state_dict(),
        encoder,
        told["digest"],
        _goal(folder),
        folder,
    )


def as_trained(source: Source, config: TrainConfig) -> TrainConfig:
    """The options with the policy's own observations, horizons, text encoder and goals."""
    return replace(
        config,
        keys=tuple(source.specs.specs.observation),
        horizons=source.specs.horizons,
        instruction=source.encoder,
        goal=source.goal or config.goal,
    )


def check_encoder(source: Source, encoder: TextEncoder) -> None:
    """ConfigError unless it is the one that the policy was trained with."""
    if encoder.digest != source.encoder_digest:
        raise ConfigError(
            f"text encoder {encoder.name!r} has digest {encoder.digest}, the policy was trained with "
            f"{source.encoder_digest}"
        )


def _goal(folder: Path) -> GoalConfig | None:
    """From the run that the policy lies in, if it does."""
    try:
        return from_tree(GoalConfig, json.loads((folder.parent / "config.json").read_text())["train"]["goal"])
    except (OSError, ValueError, KeyError, TypeError, RobopolicyError):
        return None
