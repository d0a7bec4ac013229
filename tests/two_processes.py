"""What each of two processes does in tests/unit/test_distributed.py, started by torchrun: FOLDER."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from synthetic import make_normalisers, make_policy_specs
from training_runs import SHORT, TINY

from robopolicy import policies
from robopolicy.core.errors import RobopolicyError
from robopolicy.datasets.loader import TensorBatch
from robopolicy.models.augmentation import AugmentationConfig
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.runtime.language.choose import load_text_encoder
from robopolicy.training.distributed import Processes, join
from robopolicy.training.inputs import Inputs
from robopolicy.training.phrasing import InstructionTable
from robopolicy.training.update import Update

ROWS, PARTS = 8, 2
LOOK = ObservationConfig(
    vision_channels=(8,), keypoints=2, augmentation=AugmentationConfig(brightness=0.3, state_noise=0.1)
)
TASKS = {"push it": ("shove it", "move it away"), "pull it": ()}
SMALL: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "observation": LOOK, "loss_on_padding": False}
#: Parts that a batch is computed in, family and its options.
CASES: dict[str, tuple[int, str, dict[str, Any]]] = {
    "diffusion_unet": (1, "diffusion_unet", {**vars(TINY), "observation": LOOK, "loss_on_padding": False}),
    "behaviour_cloning": (1, "behaviour_cloning", {"observation": LOOK, "loss_on_padding": False}),
    "gmm": (1, "gmm", {"observation": LOOK, "loss_on_padding": False}),
    "diffusion_transformer": (1, "diffusion_transformer", {**SMALL, "loss_on_padding": True}),
    "mode": (1, "mode", {**SMALL, "expert_hidden": 16, "balance_weight": 1.0}),
    "mode_bias": (1, "mode", {**SMALL, "expert_hidden": 16, "balancing": "bias"}),
    "sdp": (1, "sdp", {**SMALL, "expert_hidden": 16, "tasks": tuple(TASKS)}),
    "accumulated": (PARTS, "sdp", {**SMALL, "expert_hidden": 16, "tasks": tuple(TASKS)}),
}


def gradients(case: str, processes: Processes) -> dict[str, torch.Tensor]:
    """Of a global batch that this process computes its share of; losses and weights of three updates."""
    parts, family, options = CASES[case]
    language = load_text_encoder("words")
    table = InstructionTable(list(TASKS), language, TASKS)
    specs = dataclasses.replace(make_policy_specs(image=True), instruction_dim=language.dim)
    module_family = policies.family(family)
    torch.manual_seed(3 + processes.rank)  # other weights elsewhere must not matter
    module = module_family.build(module_family.Config(**options), specs)
    with torch.no_grad():  # layers that begin with zeros would hide what is before them
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if family == "sdp":
        module.set_instructions([torch.from_numpy(language.encode(ways)) for ways in table.texts])
    config = dataclasses.replace(SHORT, warmup_steps=0, batch_size=ROWS, accumulate=parts)
    update = Update(module.train(), config, processes)
    mine = processes.share(ROWS, parts)
    inputs = Inputs(specs.specs, make_normalisers(specs), table, processes, seed=0, share=mine)
    generator = torch.Generator().manual_seed(5)
    found = {}
    for step in range(3):
        whole = batch(specs, generator)
        observation = {key: value[mine] for key, value in whole["observation"].items()}
        own = TensorBatch(observation, *(whole[name][mine] for name in ("action", "mask", "instruction")))
        update.optimiser.zero_grad()
        loss = update._gradients(inputs.place(own, step))
        if step == 0:
            present = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
            found = {f"gradient.{n}": gradient.clone() for n, gradient in present.items()}
        found[f"loss.{step}"] = torch.tensor(processes.average({"loss": loss.item()})["loss"])
        update.optimiser.step()
        module.after_step()
        if step == 0:
            found |= {f"buffer.{n}": value.clone() for n, value in module.named_buffers()}
    return {**found, **{f"weight.{n}": p.detach().clone() for n, p in module.named_parameters()}}


def batch(specs: Any, generator: torch.Generator) -> dict[str, Any]:
    def uniform(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1

    observation = {
        key: torch.randint(0, 256, (ROWS, 2, *spec.shape), dtype=torch.uint8, generator=generator)
        if spec.kind == "image"
        else uniform(ROWS, 2, spec.num_features)
        for key, spec in specs.specs.observation.items()
    }
    mask = torch.ones(ROWS, specs.chunk_shape[0], dtype=torch.bool)
    mask[:3, :3] = False  # more of the first process's rows
    instruction = torch.randint(len(TASKS), (ROWS,), generator=generator)
    action = uniform(ROWS, *specs.chunk_shape)
    return {"observation": observation, "action": action, "mask": mask, "instruction": instruction}


def refuse() -> None:
    raise RobopolicyError("the disk is full")


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    processes = join("cpu")
    assert (processes.count, processes.main) == (2, processes.rank == 0)
    for case in CASES:
        found = gradients(case, processes)
        save_file(found, folder / f"{case}_{processes.rank}.safetensors")
    assert processes.average({"rank": float(processes.rank), "two": 2.0}) == {"rank": 0.5, "two": 2.0}
    assert processes.any(processes.rank == 1) and not processes.any(False)
    processes.on_main(lambda: (folder / f"written_by_{processes.rank}").touch())
    try:
        processes.on_main(refuse)
    except RobopolicyError as error:
        (folder / f"refused_{processes.rank}").write_text(str(error))
    processes.barrier()
    processes.close()


if __name__ == "__main__":
    main()
