"""Train a policy on a store of demonstrations."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robopolicy import policies
from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import MODES, Normalisers
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.specs import PolicySpecs, Specs
from robopolicy.datasets.columns import OnDemand
from robopolicy.datasets.loader import Loader, TensorBatch
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
        loader_threads: that decode camera frames, where these do not fit in memory.
        memory_gib: demonstrations held in memory; cameras beyond it are decoded when sampled [GiB].
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
    loader_threads: int = 2
    memory_gib: float = 2.0
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
        if self.loader_threads < 1 or not 0 <= self.memory_gib < math.inf:
            raise ConfigError(
                "loader_threads must be >= 1 and memory_gib >= 0 and finite, "
                f"got {self.loader_threads} and {self.memory_gib}"
            )


def train(
    store_path: str | Path,
    output: Path,
    *,
    version: int | str | None = None,
    family: str = "diffusion_unet",
    policy_config: Any = None,
    config: TrainConfig,
    names: list[str] | None = None,
    console: Console | None = None,
) -> dict[str, float]:
    """Train and save the averaged policy under ``output/policy``.

    Args:
        store_path: demonstrations, by path or URL.
        version: of the store, a number or a tag; None takes the newest. The run records which it was.
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
    store = EpisodeStore.open(store_path, version)
    keys = config.keys or tuple(k for k, s in store.specs.observation.items() if s.kind == "state")
    store.specs.select(keys)
    names = store.names if names is None else names
    judged = {name: store.facts(name)["success"] for name in names}
    used = [n for n in names if config.include_failures or judged[n] is not False]
    windows = _load(store, keys, used, config, console)
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
        store_version=store.version,
        store_digest=store.digest,
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
    transform = partial(normalised, specs=windows.specs, normalisers=normalisers)
    loader = Loader(windows, config.batch_size, seed=config.seed, transform=transform)
    with contextlib.closing(loader.batches()) as batches:
        losses = _optimise(module, ema, batches, config, device, output, save, console)
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


def _load(
    store: EpisodeStore, keys: tuple[str, ...], names: list[str], config: TrainConfig, console: Console | None
) -> Windows:
    with Progress(transient=True, console=console) as progress:
        task = progress.add_task("loading demonstrations", total=len(names))
        windows = Windows(
            store,
            config.horizons,
            keys,
            names,
            memory_bytes=int(config.memory_gib * 2**30),
            threads=config.loader_threads,
            on_progress=lambda done, _: progress.update(task, completed=done),
        )
    on_demand = [key for key, column in windows.columns.items() if isinstance(column, OnDemand)]
    if on_demand:
        (console or Console()).print(
            f"{on_demand} exceed {config.memory_gib} GiB and are decoded when sampled (--train.memory-gib)"
        )
    return windows


def _optimise(
    module: PolicyModule,
    ema: Ema,
    batches: Iterator[TensorBatch],
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
        for step, host in zip(range(1, config.steps + 1), batches):
            batch = host.to(device)
            with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
                loss = module.loss(
                    module.encode(batch.observation, generator), batch.action, batch.mask, generator
                )
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


def normalised(batch: Batch, specs: Specs, normalisers: Normalisers) -> Batch:
    """What the network sees of a batch."""
    observation = normalisers.observations(specs, batch.observation)
    return Batch(observation, normalisers.action.forward(batch.action), batch.mask)


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to zero."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
