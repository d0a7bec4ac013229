"""Train a policy on a store of demonstrations."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from robopolicy import policies
from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import MODES, Normalisers
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Batch, Windows
from robopolicy.models.policy_module import PolicyModule
from robopolicy.policies._saved import save_policy
from robopolicy.training.ema import Ema

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Args:
        steps: optimiser steps.
        batch_size: windows per step.
        learning_rate: peak of the cosine schedule.
        warmup_steps: of linear warm-up.
        precision: "fp32", or "bf16" autocast.
        keys: observations to use; empty means every state and no image.
        normaliser: of observations, "min_max" or "gaussian"; actions always map onto [-1, 1].
        include_failures: train also on episodes that are marked as failed.
        threads: of torch on the CPU; 0 leaves torch's own choice.
        save_every: steps between saved policies; the last one is always saved.
    """

    steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 5e-4
    weight_decay: float = 1e-6
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_power: float = 0.75
    precision: str = "fp32"
    normaliser: str = "min_max"
    include_failures: bool = False
    keys: tuple[str, ...] = ()
    horizons: Horizons = field(default_factory=Horizons)
    seed: int = 0
    threads: int = 0
    device: str = "auto"
    save_every: int = 5_000

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r} is not one of {PRECISIONS}")
        if self.steps < 1 or self.batch_size < 1:
            raise ConfigError(f"steps and batch_size must be >= 1, got {self.steps}, {self.batch_size}")
        if self.normaliser not in MODES:
            raise ConfigError(f"normaliser {self.normaliser!r} is not one of {MODES}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        if self.save_every < 1:
            raise ConfigError(f"save_every must be >= 1, got {self.save_every}")


def train(
    store_path: Path,
    output: Path,
    *,
    family: str = "diffusion_unet",
    policy_config: Any = None,
    config: TrainConfig,
    names: list[str] | None = None,
    console: Console | None = None,
) -> dict[str, float]:
    """Train and save the averaged policy under ``output/policy``.

    Args:
        policy_config: the family's ``Config``; None takes its defaults.
        names: episodes to use; None takes all.
    Returns:
        {"train_seconds", "samples_per_s", "final_loss", "parameters"}.
    Raises:
        RunExistsError: output holds results; StoreError, SpecError, UnknownNameError: bad input;
        NonFiniteValueError: the loss became NaN, names the step; the last saved policy stays.
    """
    module_family = policies.family(family)
    if policy_config is None:
        policy_config = module_family.Config()
    store = EpisodeStore.open(store_path)
    keys = config.keys or tuple(k for k, s in store.specs.observation.items() if s.kind == "state")
    store.specs.select(keys)
    names = store.names if names is None else names
    judged = {name: store.facts(name)["success"] for name in names}
    used = [n for n in names if config.include_failures or judged[n] is not False]
    windows = Windows(store, config.horizons, keys, used)
    if len(windows) < config.batch_size:
        raise ConfigError(f"{len(windows)} windows are fewer than one batch of {config.batch_size}")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    specs = PolicySpecs(windows.specs, config.horizons)
    normalisers = Normalisers.fit(windows.specs, windows.observation, windows.action, config.normaliser)
    module: PolicyModule = module_family.build(policy_config, specs).to(device)
    # only now: what was refused above leaves no folder that stands in the way of the corrected run
    saved = {"store": str(store_path), "family": family, "policy": policy_config, "train": config}
    left_out = len(names) - len(used)
    create_run(
        output,
        saved,
        seed=config.seed,
        store_digest=store.digest(),
        episodes=used,
        failures_left_out=left_out,
    )
    if left_out:
        (console or Console()).print(
            f"{left_out} failed episodes left out; --train.include-failures takes them"
        )
    ema = Ema(module, power=config.ema_power)

    def save() -> None:
        weights = {name: value.cpu() for name, value in ema.weights.items()}
        save_policy(
            output / "policy",
            family=family,
            config=policy_config,
            specs=specs,
            normalisers=normalisers,
            weights=weights,
        )

    started = time.monotonic()
    losses = _optimise(module, ema, windows, normalisers, config, device, output, save, console)
    seconds = time.monotonic() - started
    save()
    result = {
        "train_seconds": seconds,
        "samples_per_s": config.steps * config.batch_size / seconds,
        "final_loss": sum(losses[-100:]) / len(losses[-100:]),
        "parameters": sum(p.numel() for p in module.parameters()),
    }
    write_json(output / "train.json", result)
    return result


def _optimise(
    module: PolicyModule,
    ema: Ema,
    windows: Windows,
    normalisers: Normalisers,
    config: TrainConfig,
    device: str,
    output: Path,
    save: Any,
    console: Console | None,
) -> list[float]:
    fused = {"fused": True} if device in ("cpu", "cuda") else {}
    optimiser = torch.optim.AdamW(
        module.parameters(), config.learning_rate, (0.9, 0.999), weight_decay=config.weight_decay, **fused
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, config))
    generator = torch.Generator(device).manual_seed(config.seed)
    losses: list[float] = []
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"))
    with (
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
        (output / "metrics.jsonl").open("w") as log,
    ):
        task = progress.add_task("train", total=config.steps, status="")
        started = time.monotonic()
        for step, batch in enumerate(_batches(windows, config), start=1):
            observation, action, mask = to_tensors(batch, windows, normalisers, device)
            with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
                loss = module.loss(module.encode(observation, generator), action, mask, generator)
            value = loss.item()
            if not math.isfinite(value):
                raise NonFiniteValueError(f"loss is {value} at step {step}; lower the learning rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), config.gradient_clip)
            optimiser.step()
            schedule.step()
            ema.update(module)
            losses.append(value)
            if step % 50 == 0 or step == config.steps:
                mean = sum(losses[-50:]) / len(losses[-50:])
                rate = step * config.batch_size / (time.monotonic() - started)
                progress.update(task, completed=step, status=f"loss {mean:.4f}, {rate:.0f} samples/s")
                log.write(json.dumps({"step": step, "loss": mean, "samples_per_s": rate}) + "\n")
                log.flush()
            if step % config.save_every == 0:
                save()
    return losses


def _batches(windows: Windows, config: TrainConfig) -> Iterator[Batch]:
    step, epoch = 0, 0
    while True:
        for batch in windows.epoch(config.batch_size, seed=config.seed, epoch=epoch):
            yield batch
            step += 1
            if step == config.steps:
                return
        epoch += 1


def to_tensors(
    batch: Batch, windows: Windows, normalisers: Normalisers, device: str
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """A batch as normalised tensors: observation, action, mask."""
    inputs = normalisers.observations(windows.specs, batch.observation)
    observation = {key: torch.from_numpy(value).to(device) for key, value in inputs.items()}
    action = torch.from_numpy(normalisers.action.forward(batch.action)).to(device)
    return observation, action, torch.from_numpy(batch.mask).to(device)


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to zero."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
