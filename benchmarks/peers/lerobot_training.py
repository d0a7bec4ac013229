"""LeRobot's side of ``training_throughput.py``. Runs under the peer's own Python and imports nothing of ours.

python benchmarks/peers/lerobot_training.py JOBS

JOBS is JSON, see ``training/cases.py``. Each line on standard input asks for one turn of training; each
answer is one line of JSON on standard output. A step is that of LeRobot's own loop: its dataset through
torch's DataLoader, its preprocessor, its policy's forward, clipping, optimiser and schedule. Two things are
not its own, so that both sides do the same: the optimiser (fused AdamW, faster than its default Adam) and,
with pictures, the image encoder, which is as small as ours instead of a ResNet-18.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# LeRobot imports torchvision, whose Python part wants these declared even where its binary does not load.
_declared = torch.library.Library("torchvision", "FRAGMENT")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    if not hasattr(torch.ops.torchvision, _schema.split("(")[0]):
        _declared.define(_schema)

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot.datasets import video_utils  # noqa: E402
from lerobot.policies.diffusion import modeling_diffusion  # noqa: E402
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig  # noqa: E402
from lerobot.policies.factory import make_pre_post_processors  # noqa: E402
from lerobot_windows import ACTION, IMAGES, STATE, Job, backends, open_dataset, write  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

ENVIRONMENT = "observation.environment_state"
GROUPS = 8


class Residual(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.GroupNorm(GROUPS, b), nn.ReLU(),
            nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.GroupNorm(GROUPS, b),
        )  # fmt: skip
        changed = stride != 1 or a != b
        self.skip = nn.Conv2d(a, b, 1, stride, bias=False) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class SmallEncoder(nn.Module):
    """In the place of LeRobot's image encoder, with its own spatial softmax and random crop."""

    channels: tuple[int, ...] = ()

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        first, *_ = self.channels
        self.crop_shape = config.crop_shape
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2, bias=False), nn.GroupNorm(GROUPS, first), nn.ReLU()
        )
        pairs = zip((first, *self.channels), self.channels)
        self.stages = nn.Sequential(*(Residual(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(pairs)))
        with torch.no_grad():
            maps = self.stages(self.stem(torch.zeros(1, 3, *self.crop_shape)))
        self.pool = modeling_diffusion.SpatialSoftmax(maps.shape[1:], config.spatial_softmax_num_keypoints)
        self.feature_dim = 2 * config.spatial_softmax_num_keypoints

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.crop_shape
        top = int(torch.randint(x.shape[-2] - height + 1, ()))  # as torchvision's RandomCrop does
        left = int(torch.randint(x.shape[-1] - width + 1, ()))
        x = x[..., top : top + height, left : left + width]
        return self.pool(self.stages(self.stem(x))).flatten(1)


class Training:
    """One network on one dataset, stored and loaded in one way."""

    def __init__(self, job: dict[str, Any], storage: str, backend: str | None, workers: int) -> None:
        folder = Path(job["folder"])
        frames = Job.read(folder)
        root = folder / f"lerobot_{storage}"
        if not root.exists():
            write(frames, root, storage)
        self.dataset = open_dataset(frames, root, backend)
        self.policy = build(job, frames)
        self.split = not frames.cameras
        self.prepare, _ = make_pre_post_processors(self.policy.config, dataset_stats=self.dataset.meta.stats)
        self.optimiser = torch.optim.AdamW(self.policy.parameters(), 5e-4, weight_decay=1e-6, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: 1.0)
        self.batches = cycle(
            DataLoader(
                self.dataset,
                num_workers=workers,
                batch_size=job["batch_size"],
                shuffle=True,
                drop_last=True,
                prefetch_factor=2 if workers else None,
            )
        )
        self.ahead = 2 * workers + 1

    def train(self, steps: int) -> dict[str, float]:
        """Of so many steps, once the batches that were loaded between the turns are used up."""
        for _ in range(self.ahead):
            next(self.batches)
        self.policy.train()
        started, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            batch = self.prepare(next(self.batches))
            if self.split:
                batch[ENVIRONMENT] = batch[STATE][..., 2:]
                batch[STATE] = batch[STATE][..., :2]
            loss, _ = self.policy.forward(batch)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.schedule.step()
            loss.item(), norm.item()
        return {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - processor,  # loading processes not counted
        }


def cycle(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    while True:
        video_utils._default_decoder_cache.clear()  # open decoders do not survive the fork of workers
        yield from loader


def build(job: dict[str, Any], frames: Job) -> modeling_diffusion.DiffusionPolicy:
    """The policy at these sizes, all else LeRobot's defaults; a state without pictures is split."""
    size = frames.state.shape[1]
    features = {STATE: PolicyFeature(FeatureType.STATE, (size if frames.cameras else 2,))}
    if not frames.cameras:
        features[ENVIRONMENT] = PolicyFeature(FeatureType.ENV, (size - 2,))
    crop = None
    for name, pictures in frames.cameras.items():
        height, width, channels = pictures.shape[1:]
        features[IMAGES + name] = PolicyFeature(FeatureType.VISUAL, (channels, height, width))
        crop = (round(job["crop"] * height), round(job["crop"] * width))
    options = {"crop_shape": crop} if crop else {}
    config = DiffusionConfig(
        input_features=features,
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, frames.action.shape[1:])},
        down_dims=tuple(job["down_dims"]),
        diffusion_step_embed_dim=job["step_embedding"],
        num_train_timesteps=job["training_steps"],
        spatial_softmax_num_keypoints=job["keypoints"],
        use_separate_rgb_encoder_per_camera=True,
        device="cpu",
        **options,
    )
    SmallEncoder.channels = tuple(job["vision_channels"])
    modeling_diffusion.DiffusionRgbEncoder = SmallEncoder
    return modeling_diffusion.DiffusionPolicy(config)


def main() -> None:
    jobs = {job["name"]: job for job in json.loads(sys.argv[1])}
    versions = {name: importlib.metadata.version(name) for name in ("lerobot", "torch", "diffusers")}
    print(json.dumps({"versions": versions, "backends": backends("h264")}), flush=True)
    trainings: dict[tuple[Any, ...], Training] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        torch.set_num_threads(asked["threads"])
        key = (asked["job"], asked["storage"], asked["backend"], asked["workers"])
        try:
            if key not in trainings:
                trainings[key] = Training(jobs[asked["job"]], *key[1:])
            training = trainings[key]
            count = sum(p.numel() for p in training.policy.parameters())
            answer = {**training.train(asked["steps"]), "parameters": count}
        except (AttributeError, ImportError, RuntimeError) as error:  # a decoder that imports, but no more
            answer = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
