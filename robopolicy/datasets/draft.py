"""An episode being written: its signals, where the frames of its cameras lie, and its final files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets import arrays, schema
from robopolicy.datasets.episode import CLOCKS, Signal
from robopolicy.datasets.versions import Entry

PREFIXES = ("observation/", "extra/")
#: Element types that every Zarr v3 reader knows.
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip


def plain_json(tree: Any, where: str) -> Any:
    """A copy of ``tree`` as a JSON reader gives it back; SpecError for NaN and all that is not JSON."""
    try:
        return json.loads(json.dumps(tree, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SpecError(f"{where} must be plain JSON: {error}") from error


def checked_facts(facts: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All facts of an episode, with defaults for those not given.

    Raises:
        SpecError: an unknown fact, or one that is not of its type: a version file must be readable again.
    """
    unknown = sorted(set(facts) - set(schema.EPISODE_FIELDS))
    if unknown:
        raise SpecError(f"{where}: unknown facts {unknown}; known: {sorted(schema.EPISODE_FIELDS)}")
    whole: dict[str, Any] = plain_json({**schema.EPISODE_FIELDS, **facts}, f"{where}: facts")
    if not isinstance(whole["metadata"], dict):
        raise SpecError(f"{where}: metadata must be a mapping, got {whole['metadata']!r}")
    if whole["clock"] not in CLOCKS:
        raise SpecError(f"{where}: clock {whole['clock']!r} is not one of {CLOCKS}")
    blank = {"name": "", "length": 0, "data": "", "start": 0, "stop": 0}
    from_tree(Entry, {**blank, **{key: whole[key] for key in schema.ENTRY_FIELDS}}, where)
    return whole


def signal_spec(specs: Specs, name: str, block: Signal) -> ArraySpec:
    """What one sample of the signal must be.

    Raises:
        SpecError: a name that is no observation, "action" or "extra/KEY".
    """
    kind, _, key = name.partition("/")
    if name == "action":
        return ArraySpec((specs.action.dim,), "float32", specs.action.units, specs.action.names)
    if kind == "observation" and key in specs.observation:
        return specs.observation[key]
    if kind == "extra" and key:
        schema.check_signal_name(key)
        if block.value.dtype.name not in DTYPES:
            raise SpecError(f"extra {key!r} is {block.value.dtype}, which is not one of {', '.join(DTYPES)}")
        return ArraySpec(block.value.shape[1:] or (1,), block.value.dtype.name)
    known = [f"observation/{key}" for key in specs.observation]
    raise SpecError(f"no signal {name!r}; there are {[*known, 'action']} and 'extra/NAME'")


def new_track(specs: Specs, name: str, block: Signal) -> Track:
    """A track for samples like these; SpecError for a name or dtype that cannot be stored."""
    spec = signal_spec(specs, name, block)
    sample = block.value.shape[1:] if name.startswith("extra/") else spec.shape
    return Track(spec, sample, spec.kind in ("image", "depth"))


@dataclass
class Track:
    """One signal of a draft.

    Args:
        sample: shape of one sample; () for scalars, which only extras are.
        camera: frames live in the shard file; ``places`` are their (offset, size).
    """

    spec: ArraySpec
    sample: tuple[int, ...]
    camera: bool
    times: list[NDArray[np.int64]] = field(default_factory=list)
    values: list[NDArray[Any]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    last_ns: int | None = None
    captured: int = 0

    @property
    def count(self) -> int:
        return sum(len(times) for times in self.times)

    def admit(self, block: Signal, where: str) -> Signal:
        """The block as it will be stored.

        Raises:
            ShapeError, SpecError, NonFiniteValueError: shape, dtype, time or value is off; names the frame.
        """
        value, given_ns = np.asarray(block.value), np.asarray(block.time_ns)
        time_ns = given_ns.astype(np.int64)
        if value.ndim == 0 or value.shape[1:] != self.sample or time_ns.shape != value.shape[:1]:
            raise ShapeError(
                f"{where}: expected frames of {self.sample} and as many times, "
                f"got {value.shape} and {time_ns.shape}"
            )
        exact = self.spec.kind != "state"
        fits = (
            value.dtype == self.spec.dtype
            if exact
            else np.can_cast(value.dtype, self.spec.dtype, "same_kind")
        )
        if not fits:
            raise SpecError(f"{where}: {value.dtype} values do not fit {self.spec.dtype}")
        if len(time_ns) and not np.issubdtype(given_ns.dtype, np.integer):
            raise SpecError(f"{where}: times are whole nanoseconds, got {given_ns.dtype}")
        before = time_ns[:1] - 1 if self.last_ns is None else np.array([self.last_ns])
        backwards = np.flatnonzero(np.diff(time_ns, prepend=before) <= 0)
        if backwards.size:
            raise SpecError(f"{where}, frame {self.captured + backwards[0]}: time does not increase")
        with np.errstate(over="ignore"):  # a double beyond float32 becomes inf, and is refused below
            stored = value.astype(self.spec.dtype, casting="same_kind", copy=True)
        if np.issubdtype(stored.dtype, np.integer) and (stored != value).any():
            raise SpecError(f"{where}: {value.dtype} values beyond the range of {self.spec.dtype}")
        if np.issubdtype(stored.dtype, np.floating):
            bad = np.flatnonzero(~np.isfinite(stored).all(axis=tuple(range(1, stored.ndim))))
            if bad.size:
                frame = self.captured + bad[0]
                raise NonFiniteValueError(f"{where}, frame {frame}: non-finite value {value[bad[0]]}")
        if len(time_ns):
            self.last_ns = int(time_ns[-1])
        self.captured += len(time_ns)
        return Signal(stored, time_ns.copy())


def check_complete(tracks: Mapping[str, Track], specs: Specs, where: str) -> None:
    """An episode needs actions, every observation, and each of those no later than the first action.

    Raises:
        ShapeError: a signal without samples, or fewer written than captured; SpecError: one starts too late.
    """
    for name in ("action", *(f"observation/{key}" for key in specs.observation)):
        if name not in tracks or not tracks[name].count:
            raise ShapeError(f"{where}, {name}: no samples")
    for name, track in tracks.items():
        if track.count != track.captured:
            raise ShapeError(f"{where}, {name}: {track.captured} captured but {track.count} written")
        late = int(track.times[0][0]) > int(tracks["action"].times[0][0])
        if late and name.startswith("observation/"):
            raise SpecError(f"{where}, {name}: its first sample comes after the first action")


def episode_files(
    tracks: Mapping[str, Track], chains: Mapping[str, list[dict[str, Any]]], facts: dict[str, Any]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Every small file of the episode's Zarr group, and what must be appended to the cameras' shards.

    Returns:
        files by relative name; shard tails by signal.
    """
    metadata: dict[str, dict[str, Any]] = {}
    files, tails = {}, {}
    for prefix in PREFIXES:
        metadata[prefix.rstrip("/")] = arrays.group()
    for name, track in tracks.items():
        times = np.concatenate(track.times)
        spec = track.spec
        attributes = {"units": list(spec.units), "names": list(spec.names), "kind": spec.kind}
        metadata[name] = arrays.group()
        if track.camera:
            places = np.array(track.places, dtype=np.uint64)
            metadata[f"{name}/value"] = arrays.frames(
                len(times), track.sample, spec.dtype, chains[name], attributes
            )
            tails[name] = arrays.shard_index(places[:, 0], places[:, 1])
        else:
            described, data = arrays.block(np.concatenate(track.values), attributes)
            metadata[f"{name}/value"] = described
            files[f"{name}/value/{arrays.chunk_key(described)}"] = data
        described, data = arrays.block(times)
        metadata[f"{name}/time_ns"] = described
        files[f"{name}/time_ns/{arrays.chunk_key(described)}"] = data
    files.update({f"{name}/zarr.json": arrays.to_json(tree) for name, tree in metadata.items()})
    consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
    root = {**arrays.group({schema.EPISODE_KEY: facts}), "consolidated_metadata": consolidated}
    files["zarr.json"] = arrays.to_json(root)
    return files, tails


def shard_path(folder: Path, name: str) -> Path:
    """Where a camera's frames are appended; a 4-D array's only shard."""
    return folder / name / "value" / "c" / "0" / "0" / "0" / "0"


def data_digest(hashes: Mapping[str, str]) -> str:
    """SHA-256 (hex) over the SHA-256 of every file of an episode, by name."""
    total = hashlib.sha256()
    for name in sorted(hashes):
        total.update(f"{name}\0{hashes[name]}\n".encode())
    return total.hexdigest()
