"""A trained policy on disk: ``policy.json`` (family, config, specs, normalisers) and safetensors weights.

A policy that follows instructions has its text encoder's files beside them, in ``text_encoder/``: the vectors
it was trained on are the only ones that it understands, whatever a later release brings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robopolicy import policies
from robopolicy.core.errors import ConfigError, MissingDependencyError, RobopolicyError
from robopolicy.core.language import TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.provenance import write_json
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.runtime.language.choose import from_files
from robopolicy.runtime.language.files import digest_of

DESCRIPTION = "policy.json"
WEIGHTS = "weights.safetensors"
TEXT_ENCODER = "text_encoder"


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
    if text_encoder is not None:
        tree[TEXT_ENCODER] = {"name": text_encoder.name, "digest": text_encoder.digest}
        _write_files(folder / TEXT_ENCODER, text_encoder.files)
    write_json(folder / DESCRIPTION, to_tree(tree))


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Those that are not there yet: a large encoder is not written again with every checkpoint."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            partial = folder / (name + ".partial")
            partial.write_bytes(data)
            partial.replace(folder / name)


def _read_text_encoder(folder: Path, told: Mapping[str, str] | None) -> TextEncoder | None:
    """The encoder that ``policy.json`` tells of, or RobopolicyError."""
    if told is None:
        return None
    name, where = told["name"], folder / TEXT_ENCODER
    found = {path.name: path.read_bytes() for path in where.iterdir()} if where.is_dir() else {}
    files = {file: data for file, data in found.items() if not file.endswith(".partial")}
    if not files:
        raise ConfigError(f"text encoder {name!r} is not in {where}")
    if (digest := digest_of(files)) != told["digest"]:
        raise ConfigError(
            f"text encoder {name!r} in {where} has digest {digest}, the policy has learned "
            f"from {told['digest']}"
        )
    return from_files(files, name)


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
        text_encoder = _read_text_encoder(folder, tree.get(TEXT_ENCODER))
    except MissingDependencyError:
        raise
    except (ValueError, KeyError, TypeError, RobopolicyError) as error:
        raise RobopolicyError(
            f"{folder / DESCRIPTION} is damaged, or of another release of robopolicy whose policies this "
            f"one cannot read: {error}"
        ) from error
    try:
        module.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (RuntimeError, FileNotFoundError, SafetensorError) as error:
        raise RobopolicyError(f"{folder / WEIGHTS} does not fit its description: {error}") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes() + (folder / DESCRIPTION).read_bytes()).hexdigest()
    return TorchPolicy(module, normalisers, device, digest, text_encoder)
