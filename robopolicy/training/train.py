"""Train a policy on stores of demonstrations, or go on with a training that was interrupted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from robopolicy import policies
from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import write_json
from robopolicy.core.serial import to_tree
from robopolicy.datasets.loader import Loader
from robopolicy.datasets.windows import WindowSource
from robopolicy.training import data as data_module
from robopolicy.training import failures
from robopolicy.training.allocator import keep_freed_memory
from robopolicy.training.building import Built, build, read_start
from robopolicy.training.config import TrainConfig
from robopolicy.training.data import Data, StoreUse
from robopolicy.training.distributed import join
from robopolicy.training.held_out import held_out_loss
from robopolicy.training.inputs import Inputs
from robopolicy.training.job import RESULT, SOURCE, Job, check_new, check_same_data, read_job, write_job
from robopolicy.training.loop import HELD_OUT, Position
from robopolicy.training.rollouts import SUCCESS, check_rollouts, rollout
from robopolicy.training.running import Measures, optimise, restore
from robopolicy.training.source import Source
from robopolicy.training.update import Update

__all__ = ["TrainConfig", "resume", "train"]
Version = int | str | None


def train(
    store_path: str | Path | Sequence[str | Path],
    output: Path,
    *,
    version: Version | Sequence[Version] = None,
    weights: Sequence[float] = (),
    family: str = "diffusion_unet",
    policy_config: Any = None,
    config: TrainConfig,
    names: Sequence[str] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, and save the averaged policy under ``output/policy``.

    Args:
        store_path: demonstrations, by path or URL; several for one policy of several tasks.
        version: of the store, a number or a tag, or one per store; None takes the newest. The run records
            which it was.
        weights: of several stores; empty weighs each by its windows.
        policy_config: the family's ``Config``; None takes its defaults, or those of the
            policy that is fine-tuned. One that is extended keeps its own.
        names: episodes to use, of a single store; None takes all.
    Returns:
        {"train_seconds", "samples_per_s", "final_loss", "parameters", "steps", "best"}.
    Raises:
        RunExistsError: output holds results; StoreError, SpecError, ConfigError, UnknownNameError: bad input;
        BadLossError, OutOfMemoryError, InterruptedTrainingError: see ``training.failures``; the last
        checkpoint stays.
    """
    check_new(output)
    stores = [store_path] if isinstance(store_path, (str, Path)) else list(store_path)
    versions = [version] * len(stores) if isinstance(version, (int, str, type(None))) else list(version)
    source, config = read_start(config)
    whole = policy_config is None and not config.finetune.take
    if source is not None and (whole or config.extend.run):
        family, policy_config = source.family, source.config
    module_family = policies.family(family)
    job = Job(
        tuple(map(str, stores)),
        tuple(versions),
        tuple(weights),
        family,
        module_family.Config() if policy_config is None else policy_config,
        config,
        None if names is None else tuple(names),
    )
    return _run(job, output, console or Console(), source=source, uses=None)


def resume(run: Path, *, console: Console | None = None) -> dict[str, Any]:
    """Go on with an interrupted training from its newest checkpoint, or from the start where there is none.

    On the CPU of the same machine, with the same versions and threads, the result is bit for bit that of a
    training that was never interrupted.

    Returns:
        as ``train``.
    Raises:
        ConfigError: not a run, one that is finished, or its stores have changed; CheckpointError: no
        checkpoint can be read; others as ``train``.
    """
    job, uses = read_job(run)
    if (run / RESULT).is_file():
        done = json.loads((run / RESULT).read_text())["steps"]
        raise ConfigError(f"{run} is finished after {done} steps; --train.finetune.run trains its policy on")
    source, config = read_start(job.train, kept=run / SOURCE)
    job = replace(job, versions=tuple(use.version for use in uses), train=config)
    return _run(job, run, console or Console(), source=source, uses=uses)


def _run(
    job: Job, output: Path, console: Console, *, source: Source | None, uses: tuple[StoreUse, ...] | None
) -> dict[str, Any]:
    """``uses``: the data that an interrupted run was made of; None begins a new run."""
    config = job.train
    processes = join(config.device)
    console = console if processes.main else Console(quiet=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    if processes.device == "cpu":
        keep_freed_memory()
    stores = data_module.open_stores(job.stores, job.versions, config, names=job.episodes)
    if uses is not None:
        check_same_data(uses, tuple(use for _, use in stores))
    data = data_module.load(stores, job.weights, config, console)
    torch.manual_seed(config.seed)
    built = build(job, data.windows, source, processes.device)
    update = Update(built.module, config, processes)
    if config.rollouts.env and processes.main:
        check_rollouts(config.rollouts, built.policy(processes.device))
        built.module.train()
    feed = _feed(data, built, update)
    if uses is None:  # only now: what was refused above leaves no folder in the way of the corrected run
        processes.on_main(
            lambda: write_job(output, replace(job, policy=built.policy_config), data.uses, source)
        )
    position = Position() if uses is None else restore(update, output, console)
    for line in (*built.said, *_left_out(data)):
        console.print(line, highlight=False)
    try:
        result = optimise(
            update,
            feed.loader,
            feed.inputs,
            output=output,
            console=console,
            told=to_tree(job),
            position=position,
            source=data.windows,
            save=partial(built.save, ema=update.ema),
            measures=partial(_measures, output, feed, built, update),
        )
        result["parameters"] = sum(p.numel() for p in built.module.parameters())
        if processes.main:
            write_json(output / RESULT, result)
        return result
    finally:
        processes.close()


def _left_out(data: Data) -> Iterator[str]:
    if count := sum(use.failures_left_out for use in data.uses):
        yield f"{count} failed episodes left out; --train.include-failures takes them"
    if count := sum(len(use.held_out) for use in data.uses):
        yield f"{count} episodes held out"


@dataclass(frozen=True)
class Feed:
    """Batches to train on, how they reach the policy, and the same of what is held out."""

    loader: Loader
    inputs: Inputs
    held_out: tuple[WindowSource, Inputs] | None


def _feed(data: Data, built: Built, update: Update) -> Feed:
    """ConfigError: batches that cannot be shared, or instructions that have no phrasings."""
    config, processes = update.config, update.processes
    share = processes.share(config.batch_size, config.accumulate)

    def inputs_of(source: WindowSource) -> Inputs:
        table = built.language.table(source) if built.language else None
        return Inputs(source.specs, built.normalisers, table, processes, seed=config.seed, share=share)

    inputs = inputs_of(data.windows)
    loader = Loader(
        data.windows,
        config.batch_size,
        seed=config.seed,
        transform=inputs.normalise,
        pin=torch.device(processes.device).type == "cuda",
        share=share,
    )
    return Feed(loader, inputs, (data.held_out, inputs_of(data.held_out)) if data.held_out else None)


def _measures(output: Path, feed: Feed, built: Built, update: Update, stop: failures.StopRequest) -> Measures:
    """What is measured during the training, and how often."""
    config, found = update.config, Measures()
    if feed.held_out is not None:
        source, inputs = feed.held_out
        found[HELD_OUT] = (
            config.held_out.every,
            lambda: {HELD_OUT: held_out_loss(update, source, inputs, config)},
        )
    if config.rollouts.env:

        def measure_success() -> dict[str, float]:
            device = update.processes.device
            with tempfile.TemporaryDirectory(prefix="rollout_", dir=output) as scratch:  # policy/ stays
                built.save(Path(scratch), update.ema)
                return rollout(
                    Path(scratch), config.rollouts, device=device, on_episode=lambda _: stop.heed()
                )

        found[SUCCESS] = (config.rollouts.every, measure_success)
    return found
