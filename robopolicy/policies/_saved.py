"""A trained policy on disk: ``policy.json`` (family, config, specs, normalisers) and safetensors weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robopolicy import policies
from robopolicy.core.errors import RobopolicyError
from robopolicy.core.normalise import Normalisers
from robopolicy.core.provenance import write_json
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.policy_module import PolicyModule, TorchPolicy

DESCRIPTION = "policy.json"
WEIGHTS = "weights.safetensors"


def save_policy(
    folder: Path,
    *,
    family: str,
    config: Any,
    specs: PolicySpecs,
    normalisers: Normalisers,
    weights: dict[str, Tensor],
) -> None:
    """Write a policy; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (WEIGHTS + ".partial")
    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial)
    except SafetensorError as error:  # its own type, also for a full disk
        partial.unlink(missing_ok=True)
        raise RobopolicyError(
            f"cannot write {folder / WEIGHTS}: {error}; the last saved one stays"
        ) from error
    partial.replace(folder / WEIGHTS)
    tree = {"family": family, "config": config, "specs": specs, "normalisers": normalisers}
    write_json(folder / DESCRIPTION, to_tree(tree))


def load_policy(folder: Path, device: str = "auto") -> TorchPolicy:
    """A saved policy, ready to sample.

    Args:
        folder: holding ``policy.json``; a run folder works as well (its ``policy/`` is taken).
        device: of torch; "auto" takes a GPU when there is one.
    Raises:
        RobopolicyError: no policy there, a damaged description, or weights that do not fit.
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
    except (ValueError, KeyError, TypeError, RobopolicyError) as error:
        raise RobopolicyError(f"{folder / DESCRIPTION} is damaged: {error}") from error
    try:
        module.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (RuntimeError, FileNotFoundError, SafetensorError) as error:
        raise RobopolicyError(f"{folder / WEIGHTS} does not fit its description: {error}") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes() + (folder / DESCRIPTION).read_bytes()).hexdigest()
    return TorchPolicy(module, normalisers, device, digest)
