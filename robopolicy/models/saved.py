"""Files of whatever is trained and saved: weights, text encoders, the digest over them.

Each file appears whole or not at all. What is damaged or does not fit is a RobopolicyError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError, RobopolicyError
from robopolicy.core.language import TextEncoder
from robopolicy.runtime.language.choose import from_files
from robopolicy.runtime.language.files import digest_of

WEIGHTS = "weights.safetensors"
TEXT_ENCODER = "text_encoder"


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """The folder is made where there is none."""
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


def read_weights(folder: Path, module: nn.Module) -> None:
    """Into a module that they fit exactly."""
    try:
        module.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (RuntimeError, FileNotFoundError, SafetensorError) as error:
        raise RobopolicyError(f"{folder / WEIGHTS} does not fit its description: {error}") from error


def write_text_encoder(folder: Path, encoder: TextEncoder) -> dict[str, str]:
    """Its files into ``folder/text_encoder``, and what a description tells of it.

    Files that are there already stay: a large encoder is not written again with every checkpoint.
    """
    where = folder / TEXT_ENCODER
    where.mkdir(exist_ok=True)
    for name, data in encoder.files.items():
        if not (where / name).is_file() or (where / name).read_bytes() != data:
            partial = where / (name + ".partial")
            partial.write_bytes(data)
            partial.replace(where / name)
    return {"name": encoder.name, "digest": encoder.digest}


def read_text_encoder(
    folder: Path, told: Mapping[str, str] | None, *, learner: str = "policy"
) -> TextEncoder | None:
    """The encoder that a description tells of; None where it tells of none.

    Args:
        learner: what learned from it, for messages.
    """
    if told is None:
        return None
    name, where = told["name"], folder / TEXT_ENCODER
    found = {path.name: path.read_bytes() for path in where.iterdir()} if where.is_dir() else {}
    files = {file: data for file, data in found.items() if not file.endswith(".partial")}
    if not files:
        raise ConfigError(f"text encoder {name!r} is not in {where}")
    if (digest := digest_of(files)) != told["digest"]:
        raise ConfigError(
            f"text encoder {name!r} in {where} has digest {digest}, the {learner} has learned "
            f"from {told['digest']}"
        )
    return from_files(files, name)


def chosen_device(device: str) -> str:
    """ "auto" is a GPU where there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def digest_over(folder: Path, description: str) -> str:
    """SHA-256 (hex) over weights and description."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes() + (folder / description).read_bytes()).hexdigest()
