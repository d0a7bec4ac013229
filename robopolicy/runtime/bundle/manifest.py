"""The bundle's manifest: what is inside, what made it, and a hash of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from robopolicy.core.errors import BundleError, RobopolicyError
from robopolicy.core.serial import from_tree, to_tree

FORMAT = "robopolicy-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8")
#: Feature to the roles it brings. "step" replaces the role "sampler", which bundles otherwise have;
#: "instruction" brings the files of a text encoder and no role.
STEP, CRITIC, INSTRUCTION = "step", "critic", "instruction"
FEATURES: Mapping[str, tuple[str, ...]] = {
    STEP: ("step",),
    CRITIC: ("critic_encoder", "critic"),
    INSTRUCTION: (),
}
#: What names of a text encoder's files begin with in a bundle.
TEXT_PREFIX = "text_"

M = TypeVar("M", bound="Manifest")


def roles(features: Collection[str]) -> tuple[str, ...]:
    """The graphs of a bundle with these features."""
    base = ("encoder",) if STEP in features else ("encoder", "sampler")
    return (*base, *(role for name in FEATURES if name in features for role in FEATURES[name]))


def features_of(given: Collection[str], *, instruction: bool = False) -> tuple[str, ...]:
    """The features that graphs of these roles ask for; BundleError when no features give these roles."""
    found = tuple(name for name, brought in FEATURES.items() if set(brought) & set(given))
    found += (INSTRUCTION,) if instruction else ()
    if set(given) != set(roles(found)):
        raise BundleError(f"with the features {list(found)} a bundle has {roles(found)}, got {sorted(given)}")
    return found


@dataclass(frozen=True)
class FileEntry:
    """SHA-256 (hex) and size of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphEntry:
    """One ONNX graph: its file, one of ``PRECISIONS``, and the version of its default operator set."""

    file: str
    precision: str
    opset: int


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
    """Contents of ``manifest.json``. Fields may be added later, with defaults; existing bundles stay valid.

    Args:
        policy: name of a file in ``robopolicy.policies``.
        denoising_steps: inference iterations, inside the sampler graph or of the step graph.
        files: name to hash, for every file but the manifest itself.
        graphs: role to graph, as ``roles`` lists them.
        producer: where it comes from.
        checksum: SHA-256 over the other fields, so that a damaged manifest is noticed too. It is no
            proof of origin: pin the digest for that.
        features: of ``FEATURES``, what a reader must know to run this bundle.
        steps: one row of the step graph's parameters for each iteration; empty without that feature.
        measured: what the export measured, by dotted name ("latency_ms.step.k16"); for people, nothing at
            run time depends on it.
        text_encoder: name of the encoder of instructions; empty without that feature.
        text_files: its files, each named ``TEXT_PREFIX`` and what the encoder calls it.
        critic_inputs: what the critic's encoder takes: some of the policy's observations, and "instruction"
            where it heeds one; empty without that feature.
    """

    format: str
    format_version: int
    policy: str
    denoising_steps: int
    files: Mapping[str, FileEntry]
    graphs: Mapping[str, GraphEntry]
    producer: Producer
    checksum: str
    features: tuple[str, ...] = ()
    steps: tuple[tuple[float, ...], ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    text_encoder: str = ""
    text_files: tuple[str, ...] = ()
    critic_inputs: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        *,
        policy: str,
        denoising_steps: int,
        files: Mapping[str, FileEntry],
        graphs: Mapping[str, GraphEntry],
        producer: Producer,
        features: tuple[str, ...] = (),
        steps: tuple[tuple[float, ...], ...] = (),
        measured: Mapping[str, float] | None = None,
        text_encoder: str = "",
        text_files: tuple[str, ...] = (),
        critic_inputs: tuple[str, ...] = (),
    ) -> Manifest:
        draft = cls(
            FORMAT, FORMAT_VERSION, policy, denoising_steps, files, graphs, producer, "", features, steps
        )
        draft = dataclasses.replace(
            draft,
            measured=dict(measured or {}),
            text_encoder=text_encoder,
            text_files=text_files,
            critic_inputs=critic_inputs,
        )
        return dataclasses.replace(draft, checksum=checksum(to_tree(draft)))

    @classmethod
    def parse(cls: type[M], data: bytes) -> M:
        """Strictly: BundleError for another format or version, unknown features or fields, or damage."""
        tree = parse_json(MANIFEST, data)
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            raise BundleError(f"{MANIFEST} does not say format {FORMAT!r}; this is no bundle")
        if tree.get("format_version") != FORMAT_VERSION:
            version = tree.get("format_version")
            raise BundleError(f"{MANIFEST} has format_version {version!r}; this code reads {FORMAT_VERSION}")
        # What was written is judged, not what this release would write: that may have more fields.
        if tree.get("checksum") != checksum(tree) or canonical(tree) != data:
            raise BundleError(f"{MANIFEST} was altered: its checksum or layout differs from what was written")
        _check_features(tree.get("features", []))
        try:
            manifest = from_tree(cls, tree, MANIFEST)
        except RobopolicyError as error:
            raise BundleError(str(error)) from error
        _check_graphs(manifest)
        _check_steps(manifest)
        _check_text(manifest)
        _check_critic(manifest)
        return manifest

    def dump(self) -> bytes:
        return canonical(to_tree(self))


def _check_features(features: Any) -> None:
    """BundleError names those this release does not know; before the fields, which they may extend."""
    if not isinstance(features, list):
        raise BundleError(f"{MANIFEST}: features must be a list of names, got {features!r}")
    unknown = [name for name in features if name not in list(FEATURES)]
    if not unknown and len(set(features)) < len(features):
        raise BundleError(f"{MANIFEST}: a feature is named twice in {features}")
    if unknown:
        raise BundleError(
            f"{MANIFEST}: the bundle needs the features {unknown}, which this release does not have; "
            f"it has {sorted(FEATURES)}"
        )


def _check_graphs(manifest: Manifest) -> None:
    """Hold the roles against the features, and each graph against the files."""
    needed = set(roles(manifest.features))
    missing, unknown = sorted(needed - set(manifest.graphs)), sorted(set(manifest.graphs) - needed)
    if missing or unknown:
        raise BundleError(
            f"{MANIFEST}: graphs lack the roles {missing} and have the unknown roles {unknown}; "
            f"with the features {list(manifest.features)} they are {sorted(needed)}"
        )
    for role, graph in manifest.graphs.items():
        if graph.precision not in PRECISIONS:
            raise BundleError(
                f"{MANIFEST}: precision {graph.precision!r} of {role!r} is not one of {PRECISIONS}"
            )
        if graph.file not in manifest.files:
            raise BundleError(
                f"{MANIFEST}: {role!r} is in {graph.file!r}, which files {sorted(manifest.files)} lack"
            )


def _check_steps(manifest: Manifest) -> None:
    """The step graph's rows are there exactly when it is, one for each iteration."""
    if manifest.denoising_steps < 1:
        raise BundleError(f"{MANIFEST}: denoising_steps must be >= 1, got {manifest.denoising_steps}")
    expected = manifest.denoising_steps if STEP in manifest.features else 0
    widths = sorted({len(row) for row in manifest.steps})
    if len(manifest.steps) != expected or len(widths) > 1 or 0 in widths:
        raise BundleError(
            f"{MANIFEST}: steps must be {expected} rows of one size (denoising_steps "
            f"{manifest.denoising_steps}, features {list(manifest.features)}), got {len(manifest.steps)} of "
            f"the sizes {widths}"
        )


def _check_text(manifest: Manifest) -> None:
    """The text encoder's files are there exactly when the feature is, and are named as such."""
    told = INSTRUCTION in manifest.features
    if told != bool(manifest.text_files) or told != bool(manifest.text_encoder):
        raise BundleError(
            f"{MANIFEST}: features {list(manifest.features)} with text_encoder {manifest.text_encoder!r} and "
            f"text_files {list(manifest.text_files)}; {INSTRUCTION!r} and a text encoder belong together"
        )
    wrong = [n for n in manifest.text_files if n not in manifest.files or not n.startswith(TEXT_PREFIX)]
    if wrong or len(set(manifest.text_files)) < len(manifest.text_files):
        raise BundleError(
            f"{MANIFEST}: text_files {list(manifest.text_files)} must differ, begin with {TEXT_PREFIX!r} and "
            f"be among {sorted(manifest.files)}"
        )


def _check_critic(manifest: Manifest) -> None:
    """What the critic looks at is told exactly where there is one."""
    inputs = manifest.critic_inputs
    if (CRITIC in manifest.features) != bool(inputs) or len(set(inputs)) < len(inputs):
        raise BundleError(
            f"{MANIFEST}: features {list(manifest.features)} with critic_inputs {list(inputs)}; {CRITIC!r} "
            "and what it looks at belong together, each input once"
        )


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


def canonical(tree: Any) -> bytes:
    """The one way to write a manifest: sorted keys, two spaces, a final newline."""
    try:
        return (json.dumps(tree, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    except (ValueError, RecursionError) as error:  # 1e999 reads as infinity
        raise BundleError(f"{MANIFEST} cannot be written as JSON: {error}") from error


def checksum(tree: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a manifest's tree without its checksum."""
    return sha256_hex(canonical({**tree, "checksum": ""}))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
