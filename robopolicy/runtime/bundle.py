"""The deployment artifact: a directory of ONNX graphs, normalisers, specs and hashes. No pickle, no code.

    manifest.json      see manifest.py
    specs.json         PolicySpecs: observations, action, horizons, noise shape
    normalisers.json   Normalisers
    encoder.onnx       one input per observation -> conditioning (batch, conditioning_dim)
    sampler.onnx       conditioning, noise (rows, *noise_shape) -> chunk (rows, *chunk_shape)

with rows = batch * n.

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
from robopolicy.runtime.contract import GRAPHS, check_contract
from robopolicy.runtime.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    Producer,
    describe_file,
    parse_json,
    parse_manifest,
    sha256_hex,
)
from robopolicy.runtime.onnx_file import read_signature

SPECS = "specs.json"
NORMALISERS = "normalisers.json"
GRAPH_FILES = {f"{name}.onnx": name for name in GRAPHS}
FILES = (SPECS, NORMALISERS, *GRAPH_FILES)

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """A bundle read once into memory; what was hashed is what is used.

    Args:
        directory: where it was read from.
        graphs: "encoder" and "sampler" to the bytes of their ONNX files.
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
    precision: str = "fp32",
) -> Bundle:
    """Write a bundle whole or not at all, and read it back strictly before it appears.

    Args:
        directory: must not exist; its parent is created where needed.
        graphs: "encoder" and "sampler" to ONNX bytes with the weights inside.
        policy: name of a file in ``robopolicy.policies``.
    Returns:
        the bundle as ``load_bundle`` gives it.
    Raises:
        RunExistsError: the directory exists.
        BundleError: graphs, specs and normalisers contradict one another.
    """
    target = Path(directory)
    if target.exists() or target.is_symlink():
        raise RunExistsError(f"{target} exists; a bundle is never overwritten")
    if set(graphs) != set(GRAPHS):
        raise BundleError(f"a bundle has the graphs {sorted(GRAPHS)}, got {sorted(graphs)}")
    contents = {
        SPECS: _json_bytes(policy_specs),
        NORMALISERS: _json_bytes(normalisers),
        **{file: graphs[name] for file, name in GRAPH_FILES.items()},
    }
    opsets = {read_signature(file, contents[file]).opset for file in GRAPH_FILES}
    if len(opsets) != 1:
        raise BundleError(f"the graphs use different operator sets: {sorted(opsets)}")
    manifest = Manifest.build(
        policy=policy,
        denoising_steps=denoising_steps,
        opset=opsets.pop(),
        precision=precision,
        files={name: describe_file(data) for name, data in contents.items()},
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
    _check_listing(root)
    manifest_bytes = (root / MANIFEST).read_bytes()
    found = sha256_hex(manifest_bytes)
    if digest is not None and found != digest.lower():
        raise BundleError(f"{root}: {MANIFEST} has digest {found}, but {digest} was asked for")
    manifest = parse_manifest(manifest_bytes)
    if set(manifest.files) != set(FILES):
        raise BundleError(f"{MANIFEST} lists {sorted(manifest.files)}; format 1 has {sorted(FILES)}")
    contents = {name: _read_checked(root, name, entry) for name, entry in manifest.files.items()}
    specs = _parse(PolicySpecs, SPECS, contents[SPECS])
    normalisers = _parse(Normalisers, NORMALISERS, contents[NORMALISERS])
    graphs = {name: contents[file] for file, name in GRAPH_FILES.items()}
    signatures = {name: read_signature(f"{name}.onnx", data) for name, data in graphs.items()}
    for name, signature in signatures.items():
        if signature.opset != manifest.opset:
            raise BundleError(f"{name}.onnx has opset {signature.opset}, {MANIFEST} says {manifest.opset}")
    check_contract(specs, normalisers, signatures)
    return Bundle(root, manifest, specs, normalisers, graphs, found)


def bundle_digest(directory: Path | str) -> str:
    """SHA-256 (hex) of a bundle's manifest, to be kept outside it and given to ``load_bundle``."""
    return load_bundle(directory).digest


def _check_listing(root: Path) -> None:
    if not root.is_dir():
        raise BundleError(f"{root} is not a bundle directory")
    expected = {MANIFEST, *FILES}
    with os.scandir(root) as entries:
        found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    missing, extra = sorted(expected - set(found)), sorted(set(found) - expected)
    if missing:
        raise BundleError(f"{root} lacks {', '.join(missing)}")
    if extra:
        raise BundleError(f"{root} holds what does not belong there: {', '.join(extra)}")
    irregular = sorted(name for name, regular in found.items() if not regular)
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
