"""One episode as one Rerun recording, every sample at its own time.

Timelines: "time" is the episode's clock, exact to the nanosecond; "step" is the first policy step that sees a
sample, so that the viewer at step k shows what the policy saw; "wall" is Unix time where the recording
knows it.
"""

from __future__ import annotations

import math
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
from numpy.typing import NDArray

from robopolicy.core.specs import ArraySpec
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.reader import EpisodeReader
from robopolicy.datasets.show import dimensions, frames, rerun_layout
from robopolicy.datasets.show.facts import extra_shape
from robopolicy.datasets.store import EpisodeStore

JPEG_QUALITY = 90
MAX_CURVES = 256  # numbers per sample; an extra signal beyond this is no bundle of curves
COUNTS_PER_METRE = {"mm": 1000.0, "m": 1.0}
OUTCOMES = {True: "success", False: "failure", None: "not judged"}


def recording(store: EpisodeStore, name: str) -> rr.RecordingStream:
    """An empty recording of this episode. Those of one store share an application, and so a layout."""
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{store.where}/{name}")
    application = re.sub(r"[^A-Za-z0-9_-]", "-", f"robopolicy-{Path(store.where).name}")  # what Rerun allows
    # send_properties would add the time of this export as the recording's start
    return rr.RecordingStream(application, recording_id=identity, send_properties=False)


def log(stream: rr.RecordingStream, store: EpisodeStore, name: str, *, with_layout: bool) -> list[str]:
    """Send one episode; returns what could not be shown, one line per signal."""
    specs, reader = store.specs, store.reader(name)
    cameras = frames.cameras(specs)
    shapes = {key: extra_shape(reader, f"extra/{key}") for key in reader.extras}
    curves = tuple(key for key, (shape, dtype) in shapes.items() if _is_curves(shape, dtype))
    episode = reader.episode(tuple(key for key in specs.observation if key not in cameras), curves)
    stream.send_recording_name(f"{name} {episode.instruction}".strip())
    if with_layout:
        stream.send_blueprint(rerun_layout.blueprint(specs, list(curves)))
    text = rr.TextDocument(_describe(store, name, episode), media_type="text/markdown")
    stream.log("episode", text, static=True)
    for key, signal in episode.observation.items():
        spec = specs.observation[key]
        labels = dimensions.labels(spec.shape, spec.names)
        _log_curves(stream, episode, ("observation", key), signal, labels, dimensions.units(spec))
    action = specs.action
    _log_curves(stream, episode, ("action",), episode.action, list(action.names), list(action.units))
    for key, signal in episode.extra.items():
        shape = signal.value.shape[1:]
        named = action.names if key == rerun_layout.EXECUTED and shape == (action.dim,) else ()
        _log_curves(stream, episode, ("extra", key), signal, dimensions.labels(shape, named), [])
    for key in cameras:
        _log_camera(stream, reader, key, specs.observation[key], episode)
    hidden = {key: described for key, described in shapes.items() if key not in curves}
    return [
        f"extra/{key}: {dtype} {shape} cannot be drawn as curves" for key, (shape, dtype) in hidden.items()
    ]


def timelines(episode: Episode, time_ns: NDArray[np.int64]) -> list[rr.TimeColumn]:
    """The instants of samples on every timeline; see the module's docstring."""
    first_seen = np.searchsorted(episode.action.time_ns, time_ns, side="left")
    columns = [
        rr.TimeColumn("time", duration=time_ns.astype("timedelta64[ns]")),
        rr.TimeColumn("step", sequence=first_seen),
    ]
    if episode.wall_minus_clock_ns is not None:
        wall = (time_ns + episode.wall_minus_clock_ns).astype("datetime64[ns]")
        columns.append(rr.TimeColumn("wall", timestamp=wall))
    return columns


def _is_curves(shape: tuple[int, ...], dtype: str) -> bool:
    return np.dtype(dtype).kind in "biuf" and math.prod(shape) <= MAX_CURVES


def _describe(store: EpisodeStore, name: str, episode: Episode) -> str:
    facts = {
        "episode": name,
        "instruction": episode.instruction or "none",
        "outcome": OUTCOMES[episode.success],
        "steps": f"{len(episode)} at {store.specs.policy_rate:g} Hz",
        "seed": episode.seed,
        "clock": episode.clock,
        **episode.metadata,
    }
    rows = "\n".join(f"| {key} | {str(value).replace('|', '/')} |" for key, value in facts.items())
    return f"| | |\n|---|---|\n{rows}\n"


def _log_curves(
    stream: rr.RecordingStream,
    episode: Episode,
    path: tuple[str, ...],
    signal: Signal,
    labels: list[str],
    units: list[str],
) -> None:
    """One entity per dimension."""
    times = timelines(episode, signal.time_ns)
    columns = signal.value.reshape(len(signal.time_ns), -1).astype(np.float64)
    for place, label in enumerate(labels):
        entity = rerun_layout.entity(*path, label)
        unit = f" [{units[place]}]" if units and units[place] else ""
        stream.log(entity, rerun_layout.style(path, f"{label}{unit}"), static=True)
        stream.send_columns(entity, times, rr.Scalars.columns(scalars=columns[:, place]), strict=True)


def _log_camera(
    stream: rr.RecordingStream, reader: EpisodeReader, key: str, spec: ArraySpec, episode: Episode
) -> None:
    entity = rerun_layout.entity("observation", key)
    if spec.kind == "depth":
        height, width, _ = spec.shape
        layout = rr.components.ImageFormat(
            width=width, height=height, channel_datatype="U16", color_model="L"
        )
        meter = COUNTS_PER_METRE[spec.units[0]] if spec.units else COUNTS_PER_METRE["mm"]
        stream.log(entity, rr.DepthImage.from_fields(format=layout, meter=meter), static=True)
        for block in frames.frame_blocks(reader, key):
            columns = rr.DepthImage.columns(buffer=[frame.tobytes() for frame in block.value])
            _send_block(stream, entity, episode, columns, block.time_ns)
        return
    stream.log(entity, rr.EncodedImage.from_fields(media_type="image/jpeg"), static=True)
    for pictures, time_ns in frames.jpeg_blocks(reader, key, JPEG_QUALITY):
        _send_block(stream, entity, episode, rr.EncodedImage.columns(blob=pictures), time_ns)


def _send_block(
    stream: rr.RecordingStream, entity: str, episode: Episode, columns: Any, time_ns: NDArray[np.int64]
) -> None:
    stream.send_columns(entity, timelines(episode, time_ns), columns, strict=True)
    stream.flush()  # else frames pile up when the viewer is slower than the disk
