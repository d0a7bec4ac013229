"""The deployment artifact: a directory of ONNX graphs, normalisers, specs and hashes. No pickle, no code.

    manifest.json      see manifest.py
    specs.json         PolicySpecs: observations, action, horizons, noise shape
    normalisers.json   Normalisers
    encoder.onnx       one input per observation -> conditioning (batch, *conditioning_shape)
    sampler.onnx       conditioning, noise (rows, *noise_shape) -> chunk (rows, *chunk_shape)

with rows = batch * n. The manifest says which file has which role. Instead of the sampler there may be

    step.onnx          step_chunk (rows, *chunk_shape), conditioning, step_parameters -> step_output

to be run once for each row of the manifest's ``steps``. A policy that heeds a prefix has the inputs prefix
(rows, *chunk_shape) and prefix_weight (rows, prediction_horizon) in either. A critic adds

    critic_normalisers.json   Normalisers of its own: it may have been trained on other episodes
    critic_encoder.onnx       some of the observations -> critic_conditioning (batch, ...)
    critic.onnx               critic_conditioning, chunk (rows, *chunk_shape) -> value (rows, members)

The manifest's ``critic_inputs`` say what it looks at; chunks reach it normalised by its own normalisers.

A policy that follows instructions has the further input instruction (batch, instruction_dim) in its encoders,
and brings the encoder of the texts, one of

    text_words.npz                            word vectors, see ``runtime.language.words``
    text_model.onnx and text_tokenizer.json   a sentence encoder, see ``runtime.language.sentence``

States enter the encoders normalised, as float32 (batch, observation_horizon, features); images as
uint8 (batch, observation_horizon, height, width, channels). Chunks and prefixes are normalised by
the policy's.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from robopolicy.core.errors import BundleError, RobopolicyError, RunExistsError
from robopolicy.core.language import TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.backends.onnx_file import read_signature
from robopolicy.runtime.bundle.contract import (
    CRITIC_NORMALISERS,
    NORMALISERS,
    CriticPart,
    check_contract,
    critic_specs_of,
)
from robopolicy.runtime.bundle.manifest import (
    CRITIC,
    MANIFEST,
    TEXT_PREFIX,
    FileEntry,
    GraphEntry,
    Manifest,
    Producer,
    describe_file,
    features_of,
    parse_json,
    sha256_hex,
)

SPECS = "specs.json"

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """A bundle read once into memory; what was hashed is what is used.

    Args:
        directory: where it was read from.
        graphs: role ("encoder", "sampler", ...) to the bytes of its ONNX file.
        digest: SHA-256 (hex) of the manifest, and through it of every file.
        text_files: of the text encoder, under the names that it gives them; empty without instructions.
        critic: None where the bundle has none.
    """

    directory: Path
    manifest: Manifest
    policy_specs: PolicySpecs
    normalisers: Normalisers
    graphs: Mapping[str, bytes]
    digest: str
    text_files: Mapping[str, bytes] = field(default_factory=dict)
    critic: CriticPart | None = None


def write_bundle(directory: Path | str, **content: Any) -> Bundle:
    """Write a bundle whole or not at all, and read it back strictly.

    Args:
        directory: must not exist; its parent is created where needed.
        content: as ``compose`` takes it.
    Returns:
        the bundle as ``load_bundle`` gives it.
    Raises:
        RunExistsError: the directory exists.
        BundleError: graphs, specs and normalisers contradict one another.
    """
    target = Path(directory)
    if target.exists() or target.is_symlink():
        raise RunExistsError(f"{target} exists; a bundle is never overwritten")
    files = compose(**content)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, data in files.items():
            _write_durably(draft / name, data)
        draft.chmod(0o755)  # mkdtemp hides it from other users
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return load_bundle(target)


def compose(
    *,
    policy_specs: PolicySpecs,
    normalisers: Normalisers,
    graphs: Mapping[str, bytes],
    policy: str,
    denoising_steps: int,
    producer: Producer,
    precision: Mapping[str, str] | None = None,
    steps: tuple[tuple[float, ...], ...] = (),
    measured: Mapping[str, float] | None = None,
    text_encoder: TextEncoder | None = None,
    critic_inputs: tuple[str, ...] = (),
    critic_normalisers: Normalisers | None = None,
) -> dict[str, bytes]:
    """Every file of a bundle, by name, held against one another as a reader does.

    Args:
        graphs: role to ONNX bytes with the weights inside; the roles say which features the bundle has.
        policy: name of a file in ``robopolicy.policies``.
        precision: role to one of ``manifest.PRECISIONS``; "fp32" where it says nothing.
        steps, measured: see ``Manifest``.
        text_encoder: of a policy that follows instructions; its files go into the bundle.
        critic_inputs, critic_normalisers: of a critic, where there are its graphs; see ``Manifest``.
    Raises:
        BundleError: graphs, specs and normalisers contradict one another.
    """
    features = features_of(graphs, instruction=text_encoder is not None)
    precision = dict(precision or {})
    texts = {} if text_encoder is None else {TEXT_PREFIX + n: d for n, d in text_encoder.files.items()}
    if not set(precision) <= set(graphs):
        raise BundleError(f"precision {precision} names other graphs than {sorted(graphs)}")
    entries = {
        role: GraphEntry(
            file := f"{role}.onnx", precision.get(role, "fp32"), read_signature(file, data).opset
        )
        for role, data in graphs.items()
    }
    files = {
        SPECS: _json_bytes(policy_specs),
        NORMALISERS: _json_bytes(normalisers),
        **({} if critic_normalisers is None else {CRITIC_NORMALISERS: _json_bytes(critic_normalisers)}),
        **{entries[role].file: data for role, data in graphs.items()},
        **texts,
    }
    manifest = Manifest.build(
        policy=policy,
        denoising_steps=denoising_steps,
        files={name: describe_file(data) for name, data in files.items()},
        graphs=entries,
        producer=producer,
        features=features,
        steps=steps,
        measured=measured,
        text_encoder="" if text_encoder is None else text_encoder.name,
        text_files=tuple(texts),
        critic_inputs=critic_inputs,
    )
    files[MANIFEST] = manifest.dump()
    assemble(files)
    return files


def assemble(files: Mapping[str, bytes], where: Path = Path()) -> Bundle:
    """A bundle from the bytes of its files, checked as those of a directory are.

    Raises:
        BundleError: a file is missing, extra, altered, or contradicts another; names the file.
    """
    if MANIFEST not in files:
        raise BundleError(f"{where} lacks {MANIFEST}")
    manifest = Manifest.parse(files[MANIFEST])
    _check_listing(where, dict.fromkeys(files, True), _needed(manifest))
    return _assemble(where, manifest, files)


def load_bundle(directory: Path | str, *, digest: str | None = None) -> Bundle:
    """Read a bundle strictly: every file is accounted for, hashed, and agrees with the others.

    Args:
        digest: SHA-256 (hex) kept outside the bundle; pins its whole content.
    Raises:
        BundleError: a file is missing, extra, altered, or contradicts another; names the file.
    """
    root = Path(directory)
    found = _listing(root)
    _check_regular(root, found, {MANIFEST})
    manifest_bytes = (root / MANIFEST).read_bytes()
    actual = sha256_hex(manifest_bytes)
    if digest is not None and actual != digest.lower():
        raise BundleError(f"{root}: {MANIFEST} has digest {actual}, but {digest} was asked for")
    manifest = Manifest.parse(manifest_bytes)  # before the listing: it says why there is more
    used = _needed(manifest)
    _check_listing(root, found, used)
    files = {name: manifest_bytes if name == MANIFEST else (root / name).read_bytes() for name in used}
    return _assemble(root, manifest, files)


def _needed(manifest: Manifest) -> set[str]:
    """What a reader of this manifest needs, which is all there may be."""
    used = {SPECS, NORMALISERS, *(graph.file for graph in manifest.graphs.values()), *manifest.text_files}
    used |= {CRITIC_NORMALISERS} if CRITIC in manifest.features else set()
    if set(manifest.files) != used:
        raise BundleError(f"{MANIFEST} lists {sorted(manifest.files)}, a reader uses {sorted(used)}")
    return {MANIFEST, *used}


def _assemble(root: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    for name, entry in manifest.files.items():
        _check_file(root, name, files[name], entry)
    specs = _parse(PolicySpecs, SPECS, files[SPECS])
    normalisers = _parse(Normalisers, NORMALISERS, files[NORMALISERS])
    graphs = {role: files[graph.file] for role, graph in manifest.graphs.items()}
    signatures = {role: read_signature(manifest.graphs[role].file, data) for role, data in graphs.items()}
    for role, graph in manifest.graphs.items():
        if signatures[role].opset != graph.opset:
            raise BundleError(
                f"{graph.file} has opset {signatures[role].opset}, {MANIFEST} says {graph.opset}"
            )
    critic = None
    if CRITIC in manifest.features:
        fitted = _parse(Normalisers, CRITIC_NORMALISERS, files[CRITIC_NORMALISERS])
        critic = CriticPart(critic_specs_of(specs, manifest.critic_inputs), fitted)
    check_contract(specs, normalisers, signatures, len(manifest.steps[0]) if manifest.steps else 0, critic)
    if bool(specs.instruction_dim) != bool(manifest.text_files):
        raise BundleError(
            f"{SPECS} has instruction_dim {specs.instruction_dim}, {MANIFEST} the text encoder's files "
            f"{list(manifest.text_files)}: a policy that follows instructions needs an encoder, others none"
        )
    texts = {name[len(TEXT_PREFIX) :]: files[name] for name in manifest.text_files}
    return Bundle(root, manifest, specs, normalisers, graphs, sha256_hex(files[MANIFEST]), texts, critic)


def bundle_digest(directory: Path | str) -> str:
    """SHA-256 (hex) of a bundle's manifest, to be kept outside it and given to ``load_bundle``."""
    return load_bundle(directory).digest


def _listing(root: Path) -> dict[str, bool]:
    """Each name in the directory, and whether it is a regular file."""
    if not root.is_dir():
        raise BundleError(f"{root} is not a bundle directory")
    with os.scandir(root) as entries:
        return {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}


def _check_listing(root: Path, found: Mapping[str, bool], needed: set[str]) -> None:
    _check_regular(root, found, needed)
    extra = sorted(set(found) - needed)
    if extra:
        raise BundleError(f"{root} holds what does not belong there: {', '.join(extra)}")


def _check_regular(root: Path, found: Mapping[str, bool], needed: set[str]) -> None:
    missing = sorted(needed - set(found))
    if missing:
        raise BundleError(f"{root} lacks {', '.join(missing)}")
    irregular = sorted(name for name in needed if not found[name])
    if irregular:
        raise BundleError(f"{root}: not a regular file: {', '.join(irregular)}")


def _check_file(root: Path, name: str, data: bytes, entry: FileEntry) -> None:
    if describe_file(data) != entry:
        raise BundleError(
            f"{root}: {name} was altered: {len(data)} bytes with SHA-256 {sha256_hex(data)[:12]}..., "
            f"the manifest says {entry.bytes} with {entry.sha256[:12]}..."
        )


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
