"""Write a store as robomimic's HDF5: one observation and one next observation per action.

Layout and names: https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from robopolicy.core.errors import ConfigError, MissingDependencyError, RunExistsError, StoreError
from robopolicy.core.policy import keyed_rng
from robopolicy.core.serial import to_tree
from robopolicy.datasets.reader import EpisodeReader
from robopolicy.datasets.store import EpisodeStore

GYM_TYPE = 2  # robomimic.envs.env_base.EnvType; the format has no type for "none of these"
FRAMES = 64  # of a camera in memory at once
CHUNK_BYTES = 1 << 20


def export_dataset(
    store: EpisodeStore,
    destination: Path,
    *,
    console: Console | None = None,
    env_args: Mapping[str, Any] | None = None,
    valid_fraction: float = 0.1,
    seed: int = 0,
    compression: str | None = "gzip",
) -> dict[str, Any]:
    """Write every episode in view; nothing is left behind when it fails.

    Observation k is the newest sample not later than action k, next observation k that of action k + 1, and
    after the last action the newest within a step and a half. Actions are written as they are, not scaled to
    -1..1.

    Args:
        destination: the HDF5 file.
        env_args: robomimic's description of the environment; our specs are added to it under "robopolicy".
        valid_fraction: share of episodes in ``mask/valid``; the others are ``mask/train``. Episodes that came
            from a robomimic file with masks keep theirs.
        seed: of that split.
        compression: h5py's name of it for observations, None for none.
    Returns:
        A report: episodes, frames, action_range ((low, high) over all dimensions), notes.
    Raises:
        RunExistsError: the destination exists; ConfigError: nothing to export, or a fraction outside 0..1.
        StoreError: an episode cannot be read, or the file not be written.
        MissingDependencyError: no ``h5py``.
    """
    if destination.exists():
        raise RunExistsError(f"{destination} already exists; choose another path")
    if not len(store):
        raise ConfigError(f"{store.where} has no episode to export")
    if not 0 <= valid_fraction <= 1:
        raise ConfigError(f"valid_fraction must lie in 0..1, got {valid_fraction}")
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("robomimic files are HDF5: pip install 'robopolicy[formats]'") from error
    partial = destination.with_name(f".{destination.name}-{uuid.uuid4().hex}")
    try:
        with h5py.File(partial, "x") as file:
            report = _write(file, store, env_args or {}, compression, console)
            _write_masks(file, _split(store, valid_fraction, seed))
        partial.rename(destination)
    except OSError as error:
        raise StoreError(f"cannot write {destination}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return report


def _write(
    file: Any,
    store: EpisodeStore,
    env_args: Mapping[str, Any],
    compression: str | None,
    console: Console | None,
) -> dict[str, Any]:
    total, low, high = 0, np.inf, -np.inf
    data = file.create_group("data")
    for number, name in enumerate(track(store.names, "exporting", console=console, transient=True)):
        demo = data.create_group(f"demo_{number}")
        actions = _write_demo(demo, store, name, compression)
        total += len(actions)
        low, high = min(low, float(actions.min())), max(high, float(actions.max()))
    data.attrs["total"] = total
    ours = {"specs": to_tree(store.specs)}
    base = {"env_name": "", "type": GYM_TYPE, "env_kwargs": {"control_freq": store.specs.policy_rate}}
    data.attrs["env_args"] = json.dumps({**base, **env_args, "robopolicy": ours})
    fits = low >= -1 and high <= 1
    notes = [] if fits else [f"actions reach {low:.4g} to {high:.4g}; robomimic expects -1..1"]
    return {"episodes": len(store), "frames": total, "action_range": (low, high), "notes": notes}


def _write_demo(demo: Any, store: EpisodeStore, name: str, compression: str | None) -> NDArray[Any]:
    """One episode; returns its actions."""
    reader, facts = store.reader(name), store.facts(name)
    actions, times = reader.values("action"), reader.times("action")
    # half a step more than one, as clocks jitter
    steps = np.append(times, times[-1] + round(1.5e9 / store.specs.policy_rate))
    for key in store.specs.observation:
        _write_observation(demo, reader, key, steps, store.specs.observation[key].kind, compression)
    demo.create_dataset("actions", data=actions)
    demo.create_dataset("states", data=np.zeros((len(actions), 0)))  # of a simulator, which we do not keep
    demo.create_dataset("rewards", data=_rewards(reader, times, facts["success"]))
    dones = np.zeros(len(actions), np.int64)
    dones[-1] = 1
    demo.create_dataset("dones", data=dones)
    demo.attrs["num_samples"] = len(actions)
    demo.attrs["ep_meta"] = json.dumps({"lang": facts["instruction"]})
    demo.attrs["robopolicy_episode"] = name
    return actions


def _write_observation(
    demo: Any, reader: EpisodeReader, key: str, steps: NDArray[np.int64], kind: str, compression: str | None
) -> None:
    """``obs/KEY`` and ``next_obs/KEY`` (actions, *shape); depth in metres, as robomimic has it."""
    signal = f"observation/{key}"
    newest = np.searchsorted(reader.times(signal), steps, side="right") - 1
    frames = reader.frames(signal) if kind != "state" else None
    values = reader.values(signal) if frames is None else np.empty((0, *frames.shape), frames.dtype)
    dtype = np.dtype("float32") if kind == "depth" else values.dtype
    shape = (len(steps) - 1, *values.shape[1:])
    rows = max(1, min(shape[0], CHUNK_BYTES // max(dtype.itemsize * int(np.prod(shape[1:])), 1)))
    sets = [
        demo.create_dataset(
            f"{group}/{key}", shape, dtype, chunks=(rows, *shape[1:]), compression=compression
        )
        for group in ("obs", "next_obs")
    ]
    for first in range(0, shape[0], FRAMES):
        last = min(first + FRAMES, shape[0])
        chosen, places = np.unique(newest[first : last + 1], return_inverse=True)
        block = values[chosen] if frames is None else frames.read(reader.storage, chosen)
        block = (block.astype(np.float32) / 1000 if kind == "depth" else block)[places]
        sets[0][first:last], sets[1][first:last] = block[:-1], block[1:]


def _rewards(reader: EpisodeReader, times: NDArray[np.int64], success: bool | None) -> NDArray[Any]:
    """(actions,) the recorded reward of each step, else 1 at the end of a success."""
    if "reward" in reader.extras and np.array_equal(reader.times("extra/reward"), times):
        return reader.values("extra/reward")
    rewards = np.zeros(len(times))
    rewards[-1] = float(success is True)
    return rewards


def _split(store: EpisodeStore, valid_fraction: float, seed: int) -> dict[str, list[int]]:
    """Filter keys to numbers of demonstrations."""
    kept: dict[str, list[int]] = {}
    for number, name in enumerate(store.names):
        for mask in store.read(name, (), ()).metadata.get("masks", ()):
            kept.setdefault(str(mask), []).append(number)
    if kept:
        return kept
    order = keyed_rng(seed, len(store)).permutation(len(store)).tolist()
    count = round(valid_fraction * len(store))
    if 0 < valid_fraction < 1 and len(store) > 1:  # both sides get something
        count = min(max(count, 1), len(store) - 1)
    return {"valid": sorted(order[:count]), "train": sorted(order[count:])}


def _write_masks(file: Any, masks: dict[str, list[int]]) -> None:
    for mask, numbers in masks.items():
        file.create_dataset(f"mask/{mask}", data=np.array([f"demo_{n}" for n in numbers], dtype="S16"))
