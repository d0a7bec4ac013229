"""Checkpoints: everything a training needs to go on as if it had never stopped, whole or not at all.

One checkpoint is a folder: ``state.safetensors`` holds every tensor, ``checkpoint.json`` the rest, with the
SHA-256 of the former. It is written under another name, flushed to the disk and then renamed, so that a
crash, a power cut or a full disk leaves the earlier ones as they were. No pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robopolicy.core.errors import RobopolicyError
from robopolicy.core.provenance import package_versions

FOLDER = "checkpoints"
DESCRIPTION = "checkpoint.json"
TENSORS = "state.safetensors"
REPLACED = ".old"  # a checkpoint while a newer one of the same step takes its place
FORMAT = 1


class CheckpointError(RobopolicyError):
    """A checkpoint cannot be written, or none can be read."""


def save_checkpoint(run: Path, step: int, state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write the state after ``step`` updates, then remove all but the newest ``keep``.

    Args:
        run: folder of the training.
        state: nested dicts and lists of tensors and plain values.
    Returns:
        the checkpoint's folder.
    Raises:
        CheckpointError: it could not be written (a full disk, say); every earlier one is still there.
    """
    folder = run / FOLDER
    final = folder / f"step_{step:09d}"
    partial = folder / f"{final.name}.partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        _write(partial, step, state)
        replaced = final.with_name(f"{final.name}{REPLACED}")
        if final.exists():  # saved again after an interrupted measurement, or found damaged
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        partial.rename(final)
        _flush(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors has a type of its own, also for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"cannot write {final}: {error}") from error
    for old in [*checkpoints(run)[:-keep], *folder.glob(f"*{REPLACED}")]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoints(run: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(path for path in (run / FOLDER).glob("step_*") if not path.suffix and path.is_dir())


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state, and the facts beside it ({"step", "versions", ...}).

    Raises:
        CheckpointError: damaged, altered or of another format.
    """
    try:
        facts = json.loads((path / DESCRIPTION).read_text())
        if facts["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {facts['format']}, this version reads {FORMAT}")
        digest = _digest(path / TENSORS)
        if digest != facts["digest"]:
            raise CheckpointError(f"{path / TENSORS} is damaged: its digest is not the recorded one")
        return _join(facts.pop("state"), load_file(path / TENSORS)), facts
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error


def newest_state(run: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]] | None:
    """State and facts of the newest readable checkpoint, and what was wrong with newer ones.

    None where there is no checkpoint.

    Raises:
        CheckpointError: there are some, and none can be read; names them.
    """
    problems: list[str] = []
    left = (run / FOLDER).glob(f"step_*{REPLACED}")  # by a crash between two renames
    for path in sorted((*checkpoints(run), *left), key=lambda p: (p.stem, not p.suffix), reverse=True):
        try:
            return (*load_checkpoint(path), problems)
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("; ".join(problems))
    return None


def _write(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    tensors: dict[str, Tensor] = {}
    tree = _split(state, tensors, "")
    save_file(tensors, folder / TENSORS)
    _flush(folder / TENSORS)
    facts = {
        "format": FORMAT,
        "step": step,
        "digest": _digest(folder / TENSORS),
        "versions": package_versions(),
        "threads": torch.get_num_threads(),
        "state": tree,
    }
    # Infinity and NaN stay what they are: this file is read back by Python alone
    (folder / DESCRIPTION).write_text(json.dumps(facts, indent=1) + "\n")
    _flush(folder / DESCRIPTION)
    _flush(folder)


def _split(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """``value`` with its tensors put aside; numbers as keys, which JSON lacks, are kept."""
    if isinstance(value, Tensor):
        ready = value.detach().cpu().contiguous()
        shared = any(ready.data_ptr() == other.data_ptr() for other in _same_size(ready, tensors))
        tensors[name] = ready.clone() if shared else ready
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [[key, _split(item, tensors, f"{name}/{key}".lstrip("/"))] for key, item in value.items()]
        return {"pairs": pairs}
    if isinstance(value, (list, tuple)):
        return [_split(item, tensors, f"{name}/{place}") for place, item in enumerate(value)]
    return value


def _same_size(tensor: Tensor, tensors: dict[str, Tensor]) -> Iterator[Tensor]:
    return (other for other in tensors.values() if other.numel() == tensor.numel() > 0)


def _join(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        return {key: _join(item, tensors) for key, item in tree["pairs"]}
    return [_join(item, tensors) for item in tree] if isinstance(tree, list) else tree


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """To the disk itself: a rename must not overtake what it names."""
    flags = os.O_RDONLY | (getattr(os, "O_DIRECTORY", 0) if path.is_dir() else 0)
    handle = os.open(path, flags)
    try:
        with contextlib.suppress(PermissionError):  # some network file systems cannot flush folders
            os.fsync(handle)
    finally:
        os.close(handle)
