"""What is trained: networks that LeRobot can be given too, and frames for both to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from throughput import frames, readers
from throughput.frames import Workload

from robopolicy.core.policy import keyed_rng
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.policies.diffusion_unet import Config


@dataclass(frozen=True)
class Case:
    """A network on frames.

    Args:
        batch_size: windows a step.
        steps: of one turn, and of one in a quick run.
        stores: how LeRobot stores the frames; workers: processes that load them, each way tried.
    """

    name: str
    config: Config
    workload: Workload
    batch_size: int
    steps: int
    quick_steps: int
    stores: tuple[str, ...]
    workers: tuple[int, ...]

    def save(self, folder: Path) -> Path:
        """Write what the peer reads."""
        batches = np.arange(self.batch_size)[None]
        job = {"observation": readers.HORIZONS.observation, "prediction": readers.HORIZONS.prediction}
        frames.save(self.workload, folder, batches, {**job, "seconds": 0.0, "stores": list(self.stores)})
        return folder

    def peer_job(self, folder: Path) -> dict[str, object]:
        """What LeRobot's side is to build."""
        look = self.config.observation
        return {
            "name": self.name,
            "folder": str(folder),
            "batch_size": self.batch_size,
            "down_dims": self.config.channels,
            "step_embedding": self.config.step_embedding,
            "training_steps": self.config.schedule.training_steps,
            "vision_channels": look.vision_channels,
            "keypoints": look.keypoints,
            "crop": look.crop,
        }


def compute_bound(quick: bool) -> Case:
    """LeRobot's default U-Net, 252 M parameters, behind 66 numbers as its default encoder gives them."""
    rng = keyed_rng(0)
    count = 600
    state = rng.uniform(-1, 1, (count, 66)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    ends = np.arange(100, count + 1, 100)
    workload = Workload("numbers", "uniform numbers", 10, state, action, ends, {}, 256)
    config = Config(channels=(512, 1024, 2048), step_embedding=128)
    return Case("252 M parameters", config, workload, 32, 3, 1, ("none",), (0,))


def loader_bound(quick: bool) -> Case:
    """A network so small that pictures of two cameras do not come fast enough."""
    look = ObservationConfig(vision_channels=(8,), keypoints=8)
    config = Config(channels=(32, 64), step_embedding=32, observation=look)
    workload = frames.two_cameras(quick)
    stores = ("h264",) if quick else ("h264", "image")
    workers = (0, 2) if quick else (0, 1, 2, 4)
    return Case("small, two cameras", config, workload, 64, 12, 6, stores, workers)
