"""What each way to fine-tune trains, and the held-out loss it reaches in as many steps.

python benchmarks/fine_tuning.py --source STORE --target STORE [--quick] [--json FILE] [--steps N]

A diffusion policy is trained on the source's demonstrations, then on the target's, in every way; the last row
trains from nothing. The loss is that of the averaged weights on a tenth of the target's episodes that none of
the trainings saw. All rows share seed, batches and steps; losses in another normaliser are not comparable,
so all of them normalise by the target's range.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from robopolicy.policies.diffusion_unet import Config
from robopolicy.training.config import HeldOutConfig, TrainConfig
from robopolicy.training.finetune import FinetuneConfig
from robopolicy.training.lora import LoraConfig
from robopolicy.training.train import train

POLICY = Config(channels=(32, 64, 128), step_embedding=32)


def ways(run: str) -> dict[str, FinetuneConfig]:
    """Every choice of parameters, a new head, and nothing of the run at all."""
    common = FinetuneConfig(run, normalisers="refit")
    return {
        "all": common,
        "all, new head": replace(common, head="new"),
        "head": replace(common, parameters="head"),
        "conditioning": replace(common, parameters="conditioning"),
        "LoRA, rank 4": replace(common, parameters="lora", lora=LoraConfig(4, 8.0)),
        "LoRA, rank 16": replace(common, parameters="lora", lora=LoraConfig(16, 32.0)),
        "LoRA, rank 16, new head": replace(common, parameters="lora", lora=LoraConfig(16, 32.0), head="new"),
        "from nothing": FinetuneConfig(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument(
        "--steps", type=int, default=300, help="of fine-tuning; the source gets 4 times as many"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    steps = max(1, given.steps // 10) if given.quick else given.steps
    torch.set_num_threads(1)
    rows, console = [], Console(width=120)
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch) / "source"
        common = {"batch_size": 64, "learning_rate": 1e-3, "warmup_steps": min(100, steps // 4)}
        here = {"threads": 1, "device": "cpu", "trackers": (), "save_every": 10**9}
        config = TrainConfig(steps=4 * steps, seed=given.seed, **common, **here)
        train(given.source, first, policy_config=POLICY, config=config, console=Console(quiet=True))
        held_out = HeldOutConfig(fraction=0.1, every=steps)
        for name, choice in ways(str(first)).items():
            run = Path(scratch) / name.replace(" ", "_")
            changed = replace(config, steps=steps, held_out=held_out, finetune=choice)
            rows.append({"way": name, **measure(given.target, run, changed)})
            console.print(rows[-1])
    console.print(as_table(rows, given, steps))
    if given.json:
        facts = {"source": given.source.name, "target": given.target.name, "steps": steps, "seed": given.seed}
        given.json.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


def measure(store: Path, run: Path, config: TrainConfig) -> dict[str, Any]:
    said = Console(record=True, file=io.StringIO(), width=400)
    started = time.process_time()
    train(store, run, policy_config=POLICY, config=config, console=said)
    seconds = time.process_time() - started
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    told = [line for line in said.export_text().splitlines() if "parameters are trained" in line]
    trainable = int(told[0].split(" of ")[0].replace(",", "")) if told else None
    return {"trainable": trainable, "held_out_loss": losses[-1], "cpu_seconds": seconds}


def as_table(rows: list[dict[str, Any]], given: argparse.Namespace, steps: int) -> Table:
    title = f"{given.source.stem} to {given.target.stem}, {steps} steps, seed {given.seed}"
    table = Table("trained", title=title)
    for column in ("parameters trained", "held-out loss", "CPU seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        count = "all" if row["trainable"] is None else f"{row['trainable']:,}"
        table.add_row(row["way"], count, f"{row['held_out_loss']:.4f}", f"{row['cpu_seconds']:.0f}")
    return table


if __name__ == "__main__":
    main()
