"""A trained critic on disk: ``critic.json`` (config, specs, normalisers, facts) and safetensors weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robopolicy.core.errors import MissingDependencyError, RobopolicyError
from robopolicy.core.language import TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.provenance import write_json
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.critic_module import TorchCritic
from robopolicy.models.critics import CriticConfig, EnsembleCritic
from robopolicy.models.saved import (
    TEXT_ENCODER,
    chosen_device,
    digest_over,
    read_text_encoder,
    read_weights,
    write_text_encoder,
    write_weights,
)

DESCRIPTION = "critic.json"
FOLDER = "critic"  # of a run


def save_critic(
    folder: Path,
    *,
    config: CriticConfig,
    specs: PolicySpecs,
    normalisers: Normalisers,
    weights: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    text_encoder: TextEncoder | None = None,
) -> None:
    """Write a critic; each file appears whole or not at all.

    Args:
        weights: of ``EnsembleCritic``, its range of returns included.
        facts: JSON-able: objective, reward, gamma, whatever a user of the values should know.
        text_encoder: of a critic that follows instructions; its files are copied along.
    Raises:
        RobopolicyError: the disk is full; what was there before stays.
    """
    write_weights(folder, weights)
    tree = {"config": config, "specs": specs, "normalisers": normalisers, "facts": facts}
    if text_encoder is not None:
        tree[TEXT_ENCODER] = write_text_encoder(folder, text_encoder)
    write_json(folder / DESCRIPTION, to_tree(tree))


def load_critic(folder: Path, device: str = "auto") -> TorchCritic:
    """A saved critic, ready to score.

    Args:
        folder: holding ``critic.json``; a run folder works as well (its ``critic/`` is taken).
        device: of torch; "auto" takes a GPU when there is one.
    Raises:
        RobopolicyError: no critic there, a damaged description, weights that do not fit, or another text
            encoder than the critic was trained with.
        MissingDependencyError: its text encoder needs a package that is not installed.
    """
    if not (folder / DESCRIPTION).is_file() and (folder / FOLDER / DESCRIPTION).is_file():
        folder = folder / FOLDER
    if not (folder / DESCRIPTION).is_file():
        raise RobopolicyError(f"no {DESCRIPTION} in {folder}; train one with 'robopolicy train-value'")
    try:
        tree = json.loads((folder / DESCRIPTION).read_text())
        config = from_tree(CriticConfig, {"relative": False, **tree["config"]})  # older ones do not say
        module = EnsembleCritic(config, from_tree(PolicySpecs, tree["specs"]))
        normalisers = from_tree(Normalisers, tree["normalisers"])
        facts = dict(tree["facts"])
        text_encoder = read_text_encoder(folder, tree.get(TEXT_ENCODER), learner="critic")
    except MissingDependencyError:
        raise
    except (ValueError, KeyError, TypeError, RobopolicyError) as error:
        raise RobopolicyError(
            f"{folder / DESCRIPTION} is damaged, or of another release of robopolicy whose critics this one "
            f"cannot read: {error}"
        ) from error
    read_weights(folder, module)
    digest = digest_over(folder, DESCRIPTION)
    return TorchCritic(module, normalisers, chosen_device(device), text_encoder, digest=digest, facts=facts)
