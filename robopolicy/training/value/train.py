"""Train a critic on stores of episodes, failed ones too, or go on with a training that was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from robopolicy.core.provenance import write_json
from robopolicy.core.serial import to_tree
from robopolicy.datasets.transitions import TransitionConfig
from robopolicy.models.critics import CriticConfig
from robopolicy.steering import objectives
from robopolicy.steering._saved import FOLDER
from robopolicy.training.allocator import keep_freed_memory
from robopolicy.training.data import StoreUse
from robopolicy.training.distributed import join
from robopolicy.training.failures import StopRequest
from robopolicy.training.job import RESULT, SOURCE, check_new, check_same_data, write_job
from robopolicy.training.loop import RANKS, Position
from robopolicy.training.running import Measures, optimise, restore
from robopolicy.training.source import Source, read_source
from robopolicy.training.value.building import build_critic, keep_best
from robopolicy.training.value.config import ValueTrainConfig
from robopolicy.training.value.data import open_stores
from robopolicy.training.value.feed import make_feed, transitions
from robopolicy.training.value.job import DEFAULT_OBJECTIVE, ValueJob, keep_labels, read_value_job
from robopolicy.training.value.judge import Judge
from robopolicy.training.value.policy import as_policy
from robopolicy.training.value.report import conclude, seen_relative, tell
from robopolicy.training.value.update import ValueUpdate

COMMAND = "train-value"
Version = int | str | None


def train_value(
    store_path: str | Path | Sequence[str | Path],
    output: Path,
    *,
    version: Version | Sequence[Version] = None,
    weights: Sequence[float] = (),
    objective: str = DEFAULT_OBJECTIVE,
    options: Any = None,
    reward: str = "sparse",
    returns: TransitionConfig | None = None,
    critic: CriticConfig | None = None,
    policy: str | Path = "",
    source: Source | None = None,
    config: ValueTrainConfig | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, and save the averaged critic under ``output/critic``: that of the measurement at which it ranked
    best, or the last where nothing could be ranked.

    Args:
        store_path: episodes, by path or URL; failed ones are used like the others.
        version: of the store, a number or a tag, or one per store; None takes the newest.
        weights: of several stores; empty weighs each by its windows.
        objective: file name in ``steering.objectives``; options: its ``Config``, None for the defaults.
        reward: file name in ``steering.rewards``, or "package.module:function".
        policy: run whose candidates are to be judged. It decides observations, horizons, text encoder and
            goals, and an objective that asks about chunks that no episode has asks about this policy's.
        source: what ``read_source`` says of the policy; None reads it.
    Returns:
        {"train_seconds", "samples_per_s", "final_loss", "parameters", "steps", "best", "value"}; the last
        is what ``value.json`` says, None where nothing was held out.
    Raises:
        RunExistsError: output holds results; StoreError, SpecError, ConfigError, UnknownNameError: bad input;
        BadLossError, OutOfMemoryError, InterruptedTrainingError: see ``training.failures``; the last
        checkpoint stays.
    """
    check_new(output)
    stores = [store_path] if isinstance(store_path, (str, Path)) else list(store_path)
    versions = [version] * len(stores) if isinstance(version, (int, str, type(None))) else list(version)
    config, critic = config or ValueTrainConfig(), critic or CriticConfig()
    module = objectives.objective(objective)
    if policy and source is None:
        source = read_source(policy)
    if source is not None:
        config = as_policy(source, config)
    job = ValueJob(
        tuple(map(str, stores)),
        tuple(versions),
        tuple(weights),
        objective,
        module.Config() if options is None else options,
        reward,
        _transition_config(returns or TransitionConfig(), critic),
        critic,
        str(policy),
        config,
    )
    return _run(job, output, console or Console(), source=source, uses=None)


def resume_value(run: Path, *, console: Console | None = None) -> dict[str, Any]:
    """Go on with an interrupted training from its newest checkpoint, or from the start where there is none.

    On the CPU of the same machine, with the same versions and threads, the result is bit for bit that of a
    training that was never interrupted.

    Returns:
        as ``train_value``.
    Raises:
        ConfigError: not a run, one that is finished, or its stores have changed; CheckpointError: no
        checkpoint can be read; others as ``train_value``.
    """
    job, uses = read_value_job(run)
    job = replace(job, versions=tuple(use.version for use in uses))
    source = None
    if job.policy:
        source = read_source(run / SOURCE)  # the original may be gone or changed
        job = replace(job, train=replace(job.train, instruction=source.encoder))
    return _run(job, run, console or Console(), source=source, uses=uses)


def _transition_config(returns: TransitionConfig, critic: CriticConfig) -> TransitionConfig:
    """A critic of the first action looks one step ahead unless told otherwise."""
    return replace(returns, steps=1) if critic.actions == "first" and not returns.steps else returns


def _run(
    job: ValueJob, output: Path, console: Console, *, source: Source | None, uses: tuple[StoreUse, ...] | None
) -> dict[str, Any]:
    """``uses``: the data that an interrupted run was made of; None begins a new run."""
    config, processes = job.train, join(job.train.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if processes.device == "cpu":
        keep_freed_memory()
    try:
        stores = open_stores(job.stores, job.versions, config)
        if uses is not None:
            check_same_data(uses, tuple(use for _, use in stores))
        training, held_out = transitions(job, stores, source, console)
        labels = training.digest + (held_out.digest if held_out else "")
        torch.manual_seed(config.seed)
        built = build_critic(job, training, processes.device)
        update = ValueUpdate(built.objective, config, processes)
        feed = make_feed(job, built, training, held_out, processes=processes, source=source, console=console)
        if uses is None:  # only now: what was refused above leaves no folder in the way
            write_job(output, job, tuple(use for _, use in stores), source)
        keep_labels(output, labels, job.reward)
        warnings = tell(stores, console)
        console.print(seen_relative(built.objective.critic), highlight=False, markup=False)
        position = Position() if uses is None else restore(update, output, console)
        judge = Judge(update, *feed.held_out) if feed.held_out else None
        result = optimise(
            update,
            feed.loader,
            feed.inputs,
            output=output,
            console=console,
            told=to_tree(job),
            position=position,
            source=training.source,
            save=partial(built.save, ema=update.ema),
            measures=partial(_measures, judge, config.held_out.every),
            name=FOLDER,
            command=COMMAND,
        )
        value = conclude(output, job, judge, warnings, console, step=keep_best(output, result))
    finally:
        processes.close()
    result["parameters"] = sum(p.numel() for p in built.objective.critic.parameters())
    write_json(output / RESULT, result)
    return {**result, "value": value}


def _measures(judge: Judge | None, every: int, stop: StopRequest) -> Measures:
    return {} if judge is None else {RANKS: (every, lambda: judge().scalars())}
