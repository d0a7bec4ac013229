"""What a critic is fed with: labelled transitions, and what a policy would do there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rich.console import Console

from robopolicy.datasets.loader import Loader
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.transitions import TransitionBatch, Transitions
from robopolicy.datasets.windows import WindowSource
from robopolicy.policies._saved import load_policy
from robopolicy.steering import rewards
from robopolicy.steering._labels import label_episodes
from robopolicy.steering.objectives._unseen import UnseenConfig
from robopolicy.training import data as data_module
from robopolicy.training.distributed import Processes
from robopolicy.training.source import Source
from robopolicy.training.value.building import BuiltCritic
from robopolicy.training.value.data import Stores
from robopolicy.training.value.inputs import ValueInputs
from robopolicy.training.value.job import ValueJob
from robopolicy.training.value.policy import PolicyChunks, check_store


@dataclass(frozen=True)
class Feed:
    """Transitions to train on, and those held out with how they reach the critic (None without)."""

    loader: Loader
    inputs: ValueInputs
    held_out: tuple[Transitions, ValueInputs] | None


def transitions(
    job: ValueJob, stores: Stores, source: Source | None, console: Console
) -> tuple[Transitions, Transitions | None]:
    """Those to train on and those held out."""
    function = rewards.reward(job.reward)
    if source is not None:
        for store, _ in stores:
            check_store(store, source, job.policy)

    def labelled(windows: WindowSource, every: list[tuple[EpisodeStore, tuple[str, ...]]]) -> Transitions:
        labels = [label_episodes(store, names, function) for store, names in every if names]
        return Transitions(windows, labels, job.returns)

    data = data_module.load(stores, job.weights, job.train, console)
    training = labelled(data.windows, [(store, use.episodes) for store, use in stores])
    if data.held_out is None:
        return training, None
    return training, labelled(data.held_out, [(store, use.held_out) for store, use in stores])


def make_feed(
    job: ValueJob,
    built: BuiltCritic,
    training: Transitions,
    held_out: Transitions | None,
    *,
    processes: Processes,
    source: Source | None,
    console: Console,
) -> Feed:
    config = job.train
    policy = load_policy(source.folder, processes.device) if source and source.folder else None

    def inputs_of(transitions: Transitions, *, ask: bool, label: str) -> ValueInputs:
        chunks = None
        if policy is not None and ask:
            chunks = PolicyChunks(
                policy, transitions, built.normalisers, count=config.policy_chunks,
                stride=config.policy_stride, seed=config.seed, console=console, label=label,
            )  # fmt: skip
        table = built.language.table(transitions) if built.language else None
        return ValueInputs(
            transitions.specs, built.normalisers, table, processes, seed=config.seed, chunks=chunks
        )

    asks = isinstance(job.options, UnseenConfig)
    inputs = inputs_of(training, ask=asks, label="what the policy would do")
    loader = Loader(
        training,
        config.batch_size,
        seed=config.seed,
        transform=inputs.normalise,
        pin=torch.device(processes.device).type == "cuda",
        into=TransitionBatch,
    )
    if held_out is None:
        return Feed(loader, inputs, None)
    return Feed(loader, inputs, (held_out, inputs_of(held_out, ask=True, label="the same of held-out ones")))
