"""A trained policy on disk: ``policy.json`` (family, config, specs, normalisers) and safetensors weights.

A policy that follows instructions has its text encoder's files beside them, in ``text_encoder/``: the vectors
it was trained on are the only ones that it understands, whatever a later release brings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from robopolicy import policies
from robopolicy.core.errors import MissingDependencyError, RobopolicyError
from robopolicy.core.language import TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.provenance import write_json
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.models.saved import (
    TEXT_ENCODER,
    WEIGHTS,
    chosen_device,
    digest_over,
    read_text_encoder,
    read_weights,
    write_text_encoder,
    write_weights,
)

__all__ = ["DESCRIPTION", "TEXT_ENCODER", "WEIGHTS", "load_policy", "save_policy"]

DESCRIPTION = "policy.json"


def save_policy(
    folder: Path,
    *,
    family: str,
    config: Any,
    specs: PolicySpecs,
    normalisers: Normalisers,
    weights: dict[str, Tensor],
    text_encoder: TextEncoder | None = None,
) -> None:
    """Write a policy; each file appears whole or not at all.

    Args:
        text_encoder: of a policy that follows instructions; its files are copied along.
    """
    write_weights(folder, weights)
    tree = {"family": family, "config": config, "specs": specs, "normalisers": normalisers}
    if text_encoder is not None:
        tree[TEXT_ENCODER] = write_text_encoder(folder, text_encoder)
    write_json(folder / DESCRIPTION, to_tree(tree))


def load_policy(folder: Path, device: str = "auto") -> TorchPolicy:
    """A saved policy, ready to sample.

    Args:
        folder: holding ``policy.json``; a run folder works as well (its ``policy/`` is taken).
        device: of torch; "auto" takes a GPU when there is one.
    Raises:
        RobopolicyError: no policy there, a damaged description, weights that do not fit, or another text
            encoder than the policy was trained with.
        MissingDependencyError: its text encoder needs a package that is not installed.
    """
    if not (folder / DESCRIPTION).is_file() and (folder / "policy" / DESCRIPTION).is_file():
        folder = folder / "policy"
    if not (folder / DESCRIPTION).is_file():
        raise RobopolicyError(f"no {DESCRIPTION} in {folder}; train one with 'robopolicy train'")
    try:
        tree = json.loads((folder / DESCRIPTION).read_text())
        family = policies.family(tree["family"])
        config = from_tree(family.Config, tree["config"])
        module: PolicyModule = family.build(config, from_tree(PolicySpecs, tree["specs"]))
        normalisers = from_tree(Normalisers, tree["normalisers"])
        text_encoder = read_text_encoder(folder, tree.get(TEXT_ENCODER))
    except MissingDependencyError:
        raise
    except (ValueError, KeyError, TypeError, RobopolicyError) as error:
        raise RobopolicyError(
            f"{folder / DESCRIPTION} is damaged, or of another release of robopolicy whose policies this "
            f"one cannot read: {error}"
        ) from error
    read_weights(folder, module)
    digest = digest_over(folder, DESCRIPTION)
    return TorchPolicy(module, normalisers, chosen_device(device), digest, text_encoder)
