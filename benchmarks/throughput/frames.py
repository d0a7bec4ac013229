"""Frames to store and read back: real recordings where they lie beside the checkout, else our simulator's.

Both look like what robots record. Random noise would not compress at all, and black frames would compress to
nothing, so neither says anything about a store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.recorder import record_episode
from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.tasks.lift import LiftEnv

G1 = Path(__file__).resolve().parents[3] / "shared" / "data" / "g1_inspire_teleop"
NOISE = 0.005  # [rad], as ``robopolicy record`` executes by default
LIFT_STATE = ("joint_position", "gripper_opening", "ee_pose")


@dataclass(frozen=True)
class Workload:
    """Raw frames of some episodes, end to end.

    Args:
        name: of the workload; source: where its frames come from, in words.
        fps: frames per second [Hz].
        state: (n, d) float32; action: (n, a) float32; ends: (episodes,) one past each episode's last frame.
        cameras: name to (n, height, width, 3) uint8.
        batch_size: windows a batch.
    """

    name: str
    source: str
    fps: int
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    ends: NDArray[np.int64]
    cameras: dict[str, NDArray[np.uint8]]
    batch_size: int

    def __len__(self) -> int:
        return len(self.state)

    @property
    def raw_bytes(self) -> float:
        """Bytes of one frame before any compression."""
        arrays: list[NDArray[Any]] = [self.state, self.action, *self.cameras.values()]
        return sum(array.nbytes for array in arrays) / len(self)

    @property
    def specs(self) -> Specs:
        size, names = self.state.shape[1], tuple(f"a{i}" for i in range(self.action.shape[1]))
        observation = {"state": ArraySpec((size,), units=("1",) * size)}
        for name, frames in self.cameras.items():
            observation[name] = ArraySpec(frames.shape[1:], dtype="uint8", kind="image")
        return Specs(observation, ActionSpec((ActionPart("normalised", names),)), float(self.fps))

    def episode(self, index: int) -> Episode:
        start, end = (0, *self.ends)[index], self.ends[index]
        time_ns = np.arange(end - start, dtype=np.int64) * 1_000_000_000 // self.fps
        arrays: dict[str, NDArray[Any]] = {"state": self.state, **self.cameras}
        observation = {name: Signal(array[start:end], time_ns) for name, array in arrays.items()}
        return Episode(observation, Signal(self.action[start:end], time_ns), clock="frame_index")


def tabular(quick: bool) -> Workload:
    """States and commands of a two-armed G1 (26 + 26 numbers), or of the simulated arm."""
    if not G1.is_dir():
        return lift("tabular", 10 if quick else 100, cameras=None)
    files = sorted((G1 / "data" / "chunk-000").glob("*.parquet"))[: 10 if quick else 100]
    tables = [pq.read_table(file, columns=["observation.state", "action"]) for file in files]
    state = [np.stack(table["observation.state"].to_numpy()) for table in tables]
    action = [np.stack(table["action"].to_numpy()) for table in tables]
    return _workload("tabular", "real G1 recordings", 30, state, action, {}, 256)


def two_cameras(quick: bool) -> Workload:
    return lift("two_96x96", 8 if quick else 40, cameras=("scene_camera", "wrist_camera"))


def one_camera(quick: bool) -> Workload:
    """The head camera of the G1, 640x480 resized to 320x240, with its real states and commands."""
    if not G1.is_dir():
        return lift("one_240x320", 8 if quick else 40, cameras=("scene_camera",), image_size=(240, 320))
    videos = sorted((G1 / "videos" / "chunk-000" / "observation.images.cam_high").glob("*.mp4"))
    state, action, frames = [], [], []
    for video in videos[: 1 if quick else len(videos)]:
        table = pq.read_table(G1 / "data" / "chunk-000" / f"{video.stem}.parquet")
        pictures = _decode(video, (240, 320))[: len(table)]
        frames.append(pictures)
        state.append(np.stack(table["observation.state"].to_numpy())[: len(pictures)])
        action.append(np.stack(table["action"].to_numpy())[: len(pictures)])
    return _workload("one_240x320", "real G1 head camera", 30, state, action, {"head": frames}, 64)


def lift(
    name: str, episodes: int, cameras: tuple[str, ...] | None, image_size: tuple[int, int] = (96, 96)
) -> Workload:
    """Demonstrations of the scripted expert, rendered by MuJoCo."""
    env = LiftEnv(observation_mode="state" if cameras is None else "image", image_size=image_size)
    expert = LiftExpert(noise=NOISE)
    frames: dict[str, list[NDArray[np.uint8]]] = {camera: [] for camera in cameras or ()}
    state, action = [], []
    for seed in range(episodes):
        episode = record_episode(env, expert, seed)
        steps = len(episode)
        seen = {key: signal.value[:steps] for key, signal in episode.observation.items()}
        state.append(np.concatenate([seen[key] for key in LIFT_STATE], axis=1))
        action.append(episode.action.value)
        for camera, pictures in frames.items():
            pictures.append(seen[camera])
    env.close()
    source = "MuJoCo renders of lift" if cameras else "lift"
    return _workload(name, source, 10, state, action, frames, 64 if cameras else 256)


def _workload(
    name: str,
    source: str,
    fps: int,
    state: list[NDArray[Any]],
    action: list[NDArray[Any]],
    cameras: dict[str, list[NDArray[np.uint8]]],
    batch_size: int,
) -> Workload:
    whole = {key: np.concatenate(frames) for key, frames in cameras.items()}
    states = np.concatenate(state).astype(np.float32)
    actions = np.concatenate(action).astype(np.float32)
    ends = np.cumsum([len(part) for part in state])
    return Workload(name, source, fps, states, actions, ends, whole, batch_size)


def _decode(video: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(n, height, width, 3) every frame of a video, resized."""
    reader = imageio_ffmpeg.read_frames(str(video), pix_fmt="rgb24")
    width, height = next(reader)["size"]
    whole = (np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader)
    return np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in whole])


def save(workload: Workload, folder: Path, batches: NDArray[np.int64], job: dict[str, Any]) -> None:
    """Write what the peer reads; see ``peers/lerobot_windows.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {"state": workload.state, "action": workload.action}
    arrays.update(ends=workload.ends, batches=batches)
    arrays.update({f"camera_{name}": frames for name, frames in workload.cameras.items()})
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    facts = {"name": workload.name, "fps": workload.fps, "cameras": list(workload.cameras), **job}
    (folder / "job.json").write_text(json.dumps(facts, indent=2))
