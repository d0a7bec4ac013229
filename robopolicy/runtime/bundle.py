"""The deployment artifact: a directory of ONNX graphs, normalisers, specs and hashes. No pickle, no code.

    manifest.json      see manifest.py
    specs.json         PolicySpecs: observations, action, horizons, noise shape
    normalisers.json   Normalisers
    encoder.onnx       one input per observation -> conditioning (batch, *conditioning_shape)
    sampler.onnx       conditioning, noise (rows, *noise_shape) -> chunk (rows, *chunk_shape)

with rows = batch * n. The manifest says which file has which role.

States enter the encoder normalised, as float32 (batch, observation_horizon, features); images as
uint8 (batch, observation_horizon, height, width, channels). The chunk leaves normalised.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from robopolicy.core.errors import BundleError, RobopolicyError, RunExistsError
from robopolicy.core.normalise import Normalisers
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.contract import check_contract
from robopolicy.runtime.manifest import (
    MANIFEST,
    ROLES,
    FileEntry,
    GraphEntry,
    Manifest,
    Producer,
    describe_file,
    parse_json,
    sha256_hex,
)
from robopolicy.runtime.onnx_file import read_signature

SPECS = "specs.json"
NORMALISERS = "normalisers.json"

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """A bundle read once into memory; what was hashed is what is used.

    Args:
        directory: where it was read from.
        graphs: role ("encoder", "sampler") to the bytes of its ONNX file.
        digest: SHA-256 (hex) of the manifest, and through it of every file.
    """

    directory: Path
    manifest: Manifest
    policy_specs: PolicySpecs
    normalisers: Normalisers
    graphs: Mapping[str, bytes]
    digest: str


def write_bundle(
    directory: Path | str,
    *,
    policy_specs: PolicySpecs,
    normalisers: Normalisers,
    graphs: Mapping[str, bytes],
    policy: str,
    denoising_steps: int,
    producer: Producer,
    precision: Mapping[str, str] | None = None,
) -> Bundle:
    """Write a bundle whole or not at all, and read it back strictly before it appears.

    Args:
        directory: must not exist; its parent is created where needed.
        graphs: role ("encoder", "sampler") to ONNX bytes with the weights inside.
        policy: name of a file in ``robopolicy.policies``.
        precision: role to one of ``manifest.PRECISIONS``; "fp32" where it says nothing.
    Returns:
        the bundle as ``load_bundle`` gives it.
    Raises:
        RunExistsError: the directory exists.
        BundleError: graphs, specs and normalisers contradict one another.
    """
    target = Path(directory)
    if target.exists() or target.is_symlink():
        raise RunExistsError(f"{target} exists; a bundle is never overwritten")
    if set(graphs) != set(ROLES) or not set(precision or {}) <= set(ROLES):
        raise BundleError(
            f"a bundle has the graphs {sorted(ROLES)}, got {sorted(graphs)} and precision {precision}"
        )
    entries = {
        role: GraphEntry(
            file := f"{role}.onnx", (precision or {}).get(role, "fp32"), read_signature(file, data).opset
        )
        for role, data in graphs.items()
    }
    contents = {
        SPECS: _json_bytes(policy_specs),
        NORMALISERS: _json_bytes(normalisers),
        **{entries[role].file: data for role, data in graphs.items()},
    }
    manifest = Manifest.build(
        policy=policy,
        denoising_steps=denoising_steps,
        files={name: describe_file(data) for name, data in contents.items()},
        graphs=entries,
        producer=producer,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, data in {**contents, MANIFEST: manifest.dump()}.items():
            _write_durably(draft / name, data)
        load_bundle(draft)
        draft.chmod(0o755)  # mkdtemp hides it from other users
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return load_bundle(target)


def load_bundle(directory: Path | str, *, digest: str | None = None) -> Bundle:
    """Read a bundle strictly: every file is accounted for, hashed, and agrees with the others.

    Args:
        digest: SHA-256 (hex) kept outside the bundle; pins its whole content.
    Raises:
        BundleError: a file is missing, extra, altered, or contradicts another; names the file.
    """
    root = Path(directory)
    found = _listing(root)
    _check_listing(root, found, {MANIFEST}, {*found, MANIFEST})
    manifest_bytes = (root / MANIFEST).read_bytes()
    actual = sha256_hex(manifest_bytes)
    if digest is not None and actual != digest.lower():
        raise BundleError(f"{root}: {MANIFEST} has digest {actual}, but {digest} was asked for")
    manifest = Manifest.parse(manifest_bytes)  # before the listing: it says why there is more
    used = {SPECS, NORMALISERS, *(graph.file for graph in manifest.graphs.values())}
    if set(manifest.files) != used:
        raise BundleError(f"{MANIFEST} lists {sorted(manifest.files)}, a reader uses {sorted(used)}")
    _check_listing(root, found, {MANIFEST, *used}, {MANIFEST, *used})
    contents = {name: _read_checked(root, name, entry) for name, entry in manifest.files.items()}
    specs = _parse(PolicySpecs, SPECS, contents[SPECS])
    normalisers = _parse(Normalisers, NORMALISERS, contents[NORMALISERS])
    graphs = {role: contents[graph.file] for role, graph in manifest.graphs.items()}
    signatures = {role: read_signature(manifest.graphs[role].file, data) for role, data in graphs.items()}
    for role, graph in manifest.graphs.items():
        if signatures[role].opset != graph.opset:
            raise BundleError(
                f"{graph.file} has opset {signatures[role].opset}, {MANIFEST} says {graph.opset}"
            )
    check_contract(specs, normalisers, signatures)
    return Bundle(root, manifest, specs, normalisers, graphs, actual)


def bundle_digest(directory: Path | str) -> str:
    """SHA-256 (hex) of a bundle's manifest, to be kept outside it and given to ``load_bundle``."""
    return load_bundle(directory).digest


def _listing(root: Path) -> dict[str, bool]:
    """Each name in the directory, and whether it is a regular file."""
    if not root.is_dir():
        raise BundleError(f"{root} is not a bundle directory")
    with os.scandir(root) as entries:
        return {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}


def _check_listing(root: Path, found: Mapping[str, bool], needed: set[str], allowed: set[str]) -> None:
    missing, extra = sorted(needed - set(found)), sorted(set(found) - allowed)
    if missing:
        raise BundleError(f"{root} lacks {', '.join(missing)}")
    if extra:
        raise BundleError(f"{root} holds what does not belong there: {', '.join(extra)}")
    irregular = sorted(name for name in needed if not found[name])
    if irregular:
        raise BundleError(f"{root}: not a regular file: {', '.join(irregular)}")


def _read_checked(root: Path, name: str, entry: FileEntry) -> bytes:
    data = (root / name).read_bytes()
    if describe_file(data) != entry:
        raise BundleError(
            f"{root}: {name} was altered: {len(data)} bytes with SHA-256 {sha256_hex(data)[:12]}..., "
            f"the manifest says {entry.bytes} with {entry.sha256[:12]}..."
        )
    return data


def _parse(cls: type[T], name: str, data: bytes) -> T:
    try:
        return from_tree(cls, parse_json(name, data), name)
    except RobopolicyError as error:
        raise BundleError(f"{name}: {error}") from error


def _json_bytes(value: Any) -> bytes:
    # Keys are not sorted: the order of observations is theirs to keep.
    return (json.dumps(to_tree(value), indent=2, allow_nan=False) + "\n").encode()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
