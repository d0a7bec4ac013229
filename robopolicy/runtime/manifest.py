"""The bundle's manifest: what is inside, what made it, and a hash of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robopolicy.core.errors import BundleError, RobopolicyError
from robopolicy.core.serial import from_tree, to_tree

FORMAT = "robopolicy-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class FileEntry:
    """SHA-256 (hex) and size of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Producer:
    """Where a bundle comes from.

    Args:
        run: name of the training run.
        git_revision: of the code that exported it, "-dirty" appended where that applies.
        versions: package name to version.
        details: anything else worth a line of text: the command, the checkpoint's hash.
    """

    run: str
    git_revision: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Contents of ``manifest.json``.

    Args:
        policy: name of a file in ``robopolicy.policies``.
        denoising_steps: inference iterations inside the sampler graph.
        opset: ONNX default operator set of every graph.
        precision: one of ``PRECISIONS``.
        files: name to hash, for every file but the manifest itself.
        checksum: SHA-256 over the other fields, so that a damaged manifest is noticed too. It is no
            proof of origin: pin the digest for that.
    """

    format: str
    format_version: int
    policy: str
    denoising_steps: int
    opset: int
    precision: str
    files: Mapping[str, FileEntry]
    producer: Producer
    checksum: str

    @classmethod
    def build(
        cls,
        *,
        policy: str,
        denoising_steps: int,
        opset: int,
        precision: str,
        files: Mapping[str, FileEntry],
        producer: Producer,
    ) -> Manifest:
        draft = cls(
            FORMAT, FORMAT_VERSION, policy, denoising_steps, opset, precision, files, producer, checksum=""
        )
        return dataclasses.replace(draft, checksum=_checksum(draft))

    def dump(self) -> bytes:
        """The one way to write it: sorted keys, two spaces, a final newline."""
        return (json.dumps(to_tree(self), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def parse_manifest(data: bytes) -> Manifest:
    """Strictly: BundleError for another format or version, unknown or missing fields, or damage."""
    tree = parse_json(MANIFEST, data)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise BundleError(f"{MANIFEST} does not say format {FORMAT!r}; this is no bundle")
    if tree.get("format_version") != FORMAT_VERSION:
        version = tree.get("format_version")
        raise BundleError(f"{MANIFEST} has format_version {version!r}; this code reads {FORMAT_VERSION}")
    try:
        manifest = from_tree(Manifest, tree, MANIFEST)
    except RobopolicyError as error:
        raise BundleError(str(error)) from error
    if manifest.checksum != _checksum(manifest) or manifest.dump() != data:
        raise BundleError(f"{MANIFEST} was altered: its checksum or layout differs from what was written")
    if manifest.precision not in PRECISIONS:
        raise BundleError(f"{MANIFEST}: precision {manifest.precision!r} is not one of {PRECISIONS}")
    if manifest.denoising_steps < 1:
        raise BundleError(f"{MANIFEST}: denoising_steps must be >= 1, got {manifest.denoising_steps}")
    return manifest


def parse_json(name: str, data: bytes) -> Any:
    """JSON without duplicate keys, NaN or infinity; BundleError names the file."""
    try:
        return json.loads(data, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not readable JSON: {error}") from error


def describe_file(data: bytes) -> FileEntry:
    """The entry of a file with this content."""
    return FileEntry(sha256_hex(data), len(data))


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum(manifest: Manifest) -> str:
    return sha256_hex(dataclasses.replace(manifest, checksum="").dump())


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
