"""LeRobot's side of ``inference_latency.py``. Runs under the peer's own Python and imports nothing of ours.

python benchmarks/peers/lerobot_denoiser.py NETWORKS

NETWORKS is JSON: a list of name, state, action, down_dims, step_embedding, denoising_steps, training_steps.
Each line on standard input asks for one timing; each answer is one line of JSON on standard output. A chunk
is LeRobot's ``generate_actions``, eager torch, from normalised observations to normalised actions, by DDIM.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from typing import Any

import torch

# LeRobot imports torchvision, whose Python part wants these declared even where its binary does not load.
_declared = torch.library.Library("torchvision", "FRAGMENT")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    if not hasattr(torch.ops.torchvision, _schema.split("(")[0]):
        _declared.define(_schema)

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig  # noqa: E402
from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel  # noqa: E402

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"


def build(job: dict[str, Any], device: str) -> DiffusionModel:
    """The U-Net at these sizes, all else LeRobot's defaults; its state is split as LeRobot asks for."""
    config = DiffusionConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
            ENVIRONMENT: PolicyFeature(FeatureType.ENV, (job["state"] - 2,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (job["action"],))},
        down_dims=tuple(job["down_dims"]),
        diffusion_step_embed_dim=job["step_embedding"],
        noise_scheduler_type="DDIM",
        num_train_timesteps=job["training_steps"],
        num_inference_steps=job["denoising_steps"],
        device=device,
    )
    return DiffusionModel(config).to(device).eval()


@torch.inference_mode()
def measure(model: DiffusionModel, job: dict[str, Any], rows: int, repeat: int, device: str) -> list[float]:
    """Milliseconds of each of ``repeat`` chunks; one more goes before where there are several."""
    batch = {
        STATE: torch.randn(rows, 2, 2, device=device),
        ENVIRONMENT: torch.randn(rows, 2, job["state"] - 2, device=device),
    }
    times = []
    for _ in range(repeat + (repeat > 1)):
        started = time.perf_counter()
        model.generate_actions(batch).cpu()
        times.append(1e3 * (time.perf_counter() - started))
    return times[-repeat:]


def main() -> None:
    jobs = {job["name"]: job for job in json.loads(sys.argv[1])}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {name: build(job, device) for name, job in jobs.items()}
    counts = {name: sum(p.numel() for p in model.unet.parameters()) for name, model in models.items()}
    versions = {name: importlib.metadata.version(name) for name in ("lerobot", "torch", "diffusers")}
    print(json.dumps({"versions": versions, "parameters": counts, "device": device}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        torch.set_num_threads(asked["threads"])
        name = asked["network"]
        found = measure(models[name], jobs[name], asked["rows"], asked["repeat"], device)
        print(json.dumps({"ms": found}), flush=True)


if __name__ == "__main__":
    main()
