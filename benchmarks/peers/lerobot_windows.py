"""LeRobot's side of ``window_throughput.py``. Runs under the peer's own Python and imports nothing of ours.

python benchmarks/peers/lerobot_windows.py FOLDER...

A folder, one per workload, holds what the main script wrote: ``job.json``, ``state.npy`` (n, d),
``action.npy`` (n, a), ``ends.npy`` (episodes,), ``camera_NAME.npy`` (n, height, width, 3) uint8 and
``batches.npy`` (batches, batch). LeRobot's own API turns the frames into a LeRobotDataset v3; its own dataset
class and torch's DataLoader read the very same windows back. Each result is one line of JSON on standard
output. Set HF_HUB_OFFLINE=1, and HF_HOME to a scratch folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import DataLoader

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
#: Least agreement of decoded pictures with the raw frames; lossy video of small pictures is near 30 [dB].
LEAST_PSNR = 20.0


@dataclass(frozen=True)
class Job:
    """The raw frames of one workload, memory-mapped, and which windows to read."""

    name: str
    fps: int
    observation: int
    prediction: int
    seconds: float
    stores: list[str]
    state: np.ndarray
    action: np.ndarray
    ends: np.ndarray
    batches: np.ndarray
    cameras: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> Job:
        facts = json.loads((folder / "job.json").read_text())
        cameras = facts.pop("cameras")
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("state", "action", "ends", "batches")
        }
        pictures = {name: np.load(folder / f"camera_{name}.npy", mmap_mode="r") for name in cameras}
        return cls(**facts, **arrays, cameras=pictures)

    def steps(self, count: int, first: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(batch, count) frames from ``first`` relative to each of ``indices``, and which are padding."""
        starts = np.concatenate([[0], self.ends[:-1]])
        episode = np.searchsorted(self.ends, indices, side="right")
        wanted = indices[:, None] + first + np.arange(count)
        inside = np.clip(wanted, starts[episode, None], self.ends[episode, None] - 1)
        return inside, inside != wanted


def write(job: Job, root: Path, storage: str) -> None:
    """A LeRobotDataset v3 of every frame; ``storage`` is a video codec, "image" (PNG) or "none"."""
    kind = "image" if storage == "image" else "video"
    axes = ["height", "width", "channels"]
    features: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": job.state.shape[1:], "names": None},
        ACTION: {"dtype": "float32", "shape": job.action.shape[1:], "names": None},
    }
    for name, frames in job.cameras.items():
        features[IMAGES + name] = {"dtype": kind, "shape": frames.shape[1:], "names": axes}
    codec = storage if storage not in ("image", "none") else "libsvtav1"
    dataset = LeRobotDataset.create(
        "bench/windows", job.fps, features, root=root, use_videos=kind == "video", vcodec=codec
    )
    start = 0
    for end in job.ends:
        for i in range(start, end):
            frame = {STATE: np.array(job.state[i]), ACTION: np.array(job.action[i]), "task": "benchmark"}
            frame.update({IMAGES + name: np.array(frames[i]) for name, frames in job.cameras.items()})
            dataset.add_frame(frame)
        dataset.save_episode(parallel_encoding=False)
        start = end
    dataset.finalize()


def open_dataset(job: Job, root: Path, backend: str | None) -> LeRobotDataset:
    """The dataset with the windows' horizons; action 0 belongs to the oldest observation."""
    past = 1 - job.observation
    seen = [k / job.fps for k in range(past, 1)]
    deltas = {STATE: seen, ACTION: [k / job.fps for k in range(past, past + job.prediction)]}
    deltas.update({IMAGES + name: seen for name in job.cameras})
    return LeRobotDataset("bench/windows", root=root, delta_timestamps=deltas, video_backend=backend)


def loader(dataset: LeRobotDataset, batches: np.ndarray) -> DataLoader:
    return DataLoader(dataset, batch_sampler=batches.tolist(), num_workers=0)


def check(job: Job, dataset: LeRobotDataset) -> float | None:
    """Hold one batch against the raw arrays: states, actions and padding must be equal.

    Returns:
        the pictures' PSNR [dB], 118 where they are bit-equal, None without pictures.
    """
    indices = np.asarray(job.batches[0])
    (batch,) = loader(dataset, job.batches[:1])
    past = 1 - job.observation
    seen, _ = job.steps(job.observation, past, indices)
    acted, padding = job.steps(job.prediction, past, indices)
    np.testing.assert_array_equal(batch[STATE].numpy(), job.state[seen])
    np.testing.assert_array_equal(batch[ACTION].numpy(), job.action[acted])
    np.testing.assert_array_equal(batch[f"{ACTION}_is_pad"].numpy(), padding)
    if not job.cameras:
        return None
    errors = [
        np.mean((batch[IMAGES + name].numpy().transpose(0, 1, 3, 4, 2) * 255.0 - frames[seen]) ** 2)
        for name, frames in job.cameras.items()
    ]
    psnr = float(10 * np.log10(255.0**2 / max(np.mean(errors), 1e-7)))
    if psnr < LEAST_PSNR:
        raise SystemExit(f"{job.name}: {psnr:.1f} dB: these pictures are not those frames")
    return psnr


def measure(job: Job, dataset: LeRobotDataset) -> dict[str, float]:
    """Windows per second over the job's batches in order, until the time is used up."""
    windows = batches = 0
    started, processor = time.perf_counter(), time.process_time()
    for batch in loader(dataset, job.batches):
        windows += len(batch[ACTION])
        batches += 1
        elapsed = time.perf_counter() - started
        if elapsed > job.seconds:
            break
    return {
        "windows_per_s": windows / elapsed,
        "windows_per_cpu_s": windows / (time.process_time() - processor),
        "windows": windows,
        "batches": batches,
        "seconds": elapsed,
    }


def backends(storage: str) -> list[str | None]:
    """Decoders that installed, for video; the other kinds have only one way to be read."""
    if storage in ("image", "none"):
        return [None]
    return [name for name, module in (("torchcodec", "torchcodec"), ("pyav", "av")) if _imports(module)]


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"{module}: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def results(job: Job, folder: Path, storage: str) -> Iterator[dict[str, Any]]:
    root = folder / f"lerobot_{storage}"
    started = time.perf_counter()
    if not root.exists():
        write(job, root, storage)
    wrote = time.perf_counter() - started
    size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
    facts = {"workload": job.name, "storage": storage, "bytes_per_frame": size / len(job.state)}
    for backend in backends(storage):
        try:
            dataset = open_dataset(job, root, backend)
            facts.update(psnr_db=check(job, dataset), backend=backend, write_s=wrote)  # also warms up
            yield {**facts, **measure(job, dataset)}
        except (
            AttributeError,
            ImportError,
            RuntimeError,
        ) as error:  # it imports, but cannot decode
            yield {**facts, "backend": backend, "failed": f"{type(error).__name__}: {str(error)[:200]}"}


def reset_peak() -> None:
    if (clear := Path("/proc/self/clear_refs")).exists():
        clear.write_text("5")


def peak_mib() -> float:
    """Most resident memory since ``reset_peak`` on Linux, of the whole process elsewhere [MiB]."""
    if not (status := Path("/proc/self/status")).exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def versions() -> dict[str, str]:
    found = {}
    for name in ("lerobot", "torch", "torchvision", "torchcodec", "av", "datasets", "numpy", "pyarrow"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def main() -> None:
    torch.set_num_threads(1)
    for folder in map(Path, sys.argv[1:]):
        job = Job.read(folder)
        for storage in job.stores:
            for result in results(job, folder, storage):
                print(json.dumps({**result, "peak_rss_mib": peak_mib()}), flush=True)
                reset_peak()
    print(json.dumps({"versions": versions(), "torch_threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
