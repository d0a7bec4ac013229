"""One evaluation into one folder: journal, films, ``eval.json`` and the page. Goes on after an interrupt."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.policy import Policy
from robopolicy.core.provenance import git_revision, package_versions
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.environments import EnvRecipe, named_observation
from robopolicy.evaluation.journal import EpisodeJournal
from robopolicy.evaluation.profile import Profile
from robopolicy.evaluation.reranked import SelectionRecord
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.rollout import INFERENCE_BATCH, evaluate
from robopolicy.evaluation.stored import (
    EnvironmentRecord,
    Evaluation,
    PolicyRecord,
    StoppingRule,
    Timing,
    write_evaluation,
)

JOURNAL = "episodes.jsonl"
_DECIDING = ("robopolicy", "numpy", "torch", "onnxruntime", "mujoco", "gymnasium")  # versions that decide
_LOGGER = logging.getLogger(__name__)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Campaign:
    """What to evaluate, apart from the policy.

    Args:
        env: a task name, or a Gymnasium id as NAMESPACE/Name-vN.
        options: of its constructor.
        seeds: of the episodes.
        noise_seed: of the policy.
        num_envs, executor, workers: as ``evaluate``; 0 workers means one for each core. None of the three
            changes a result.
        videos: episodes to film, failures first.
        stopping: declared before the first episode; None means exactly these seeds.
    """

    env: str
    seeds: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    noise_seed: int = 0
    num_envs: int = INFERENCE_BATCH
    executor: str = "processes"
    workers: int = 0
    videos: int = 0
    stopping: StoppingRule | None = None

    @property
    def recipe(self) -> EnvRecipe:
        return EnvRecipe(self.env, self.options)


def check_environment(campaign: Campaign, policy: Policy) -> str:
    """Make and reset it once, so that a wrong name or specs that differ fail before anything is written.

    Returns:
        what counts as success there, in words.
    """
    if not campaign.seeds:
        raise ConfigError("evaluation needs at least one episode")
    options = {"render_mode": "rgb_array"} if campaign.videos else {}
    specs = policy.policy_specs
    env = EnvRecipe(campaign.env, {**campaign.options, **options}).bind(specs)()
    try:
        raw, info = env.reset(seed=campaign.seeds[0])
        named_observation(raw, specs)
        given = info.get("instruction", getattr(getattr(env, "unwrapped", env), "instruction", ""))
        if getattr(policy, "needs_instruction", False) and not given:
            raise SpecError(
                "the critic follows instructions and got none; say what to do: --instruction TEXT"
            )
        if campaign.videos:
            env.render()
        return _success_in_words(env)
    finally:
        env.close()


def _success_in_words(env: Any) -> str:
    inner = getattr(env, "unwrapped", env)
    if text := getattr(inner, "success_predicate", ""):
        return str(text)
    return "the environment's own: is_success (else success, else terminated) when the episode ends"


def run_campaign(
    campaign: Campaign,
    policy: Policy,
    output: Path,
    *,
    label: str,
    command: Sequence[str],
    now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    console: Console | None = None,
    selection: Callable[[], SelectionRecord] | None = None,
) -> Evaluation:
    """Evaluate into an existing folder.

    Episodes that the folder's journal already holds are not run again, so the same call after an interrupt
    goes on where it stopped; each environment loses at most the episode it was in.

    Args:
        label: the policy's name for people.
        command: the command line, for the record.
        selection: of a reranked policy, asked when all episodes have been run.
    Raises:
        ConfigError: the journal belongs to another policy or environment; plus what ``evaluate`` raises.
    """
    success = check_environment(campaign, policy)
    started = now().isoformat(timespec="seconds")
    key = _key(campaign, policy)
    if selection is not None:  # what decides, also where the policy has no digest
        key["selection"] = to_tree(selection().config)
    journal = EpisodeJournal(output / JOURNAL, key)
    profile = Profile()
    due = [seed for seed in campaign.seeds if seed not in journal.episodes]
    if due:
        _evaluate(campaign, policy, due, on_episode=journal.append, profile=profile, console=console)
    episodes = [journal.episodes[seed] for seed in campaign.seeds]
    chosen = selection() if selection is not None else None  # before films play episodes once more
    if campaign.videos:
        episodes = _film(campaign, policy, episodes, output, console)
    evaluation = Evaluation(
        environment=EnvironmentRecord(campaign.env, dict(campaign.options)),
        policy=PolicyRecord(label, str(getattr(policy, "digest", "")), policy.policy_specs),
        noise_seed=campaign.noise_seed,
        command=tuple(command),
        success_predicate=success,
        stopping=campaign.stopping or StoppingRule.fixed(len(campaign.seeds)),
        started=started,
        ended=now().isoformat(timespec="seconds"),
        episodes=tuple(episodes),
        versions=package_versions(),
        git_revision=git_revision(),
        timing=Timing.of(profile, inference_batch=INFERENCE_BATCH) if due else None,
        selection=chosen,
    )
    write_evaluation(output, evaluation)
    return evaluation


def _key(campaign: Campaign, policy: Policy) -> dict[str, Any]:
    versions = package_versions()
    return {
        "policy": str(getattr(policy, "digest", "")),
        "environment": campaign.env,
        "options": dict(campaign.options),
        "noise_seed": campaign.noise_seed,
        "versions": {name: versions[name] for name in _DECIDING if name in versions},
    }


def _evaluate(campaign: Campaign, policy: Policy, seeds: Sequence[int], **more: Any) -> list[EpisodeResult]:
    return evaluate(
        policy,
        more.pop("recipe", campaign.recipe),
        seeds,
        noise_seed=campaign.noise_seed,
        num_envs=campaign.num_envs,
        executor=campaign.executor,
        workers=campaign.workers or available_cores(),
        **more,
    )


def _film(
    campaign: Campaign,
    policy: Policy,
    episodes: list[EpisodeResult],
    folder: Path,
    console: Console | None,
) -> list[EpisodeResult]:
    """Play the episodes to be shown once more, this time with pictures; failures first.

    Results depend on seeds alone, so what is filmed is what was counted; the actions' hashes prove it.
    """
    chosen = sorted(episodes, key=lambda e: e.success)[: campaign.videos]
    recipe = EnvRecipe(campaign.env, {**campaign.options, "render_mode": "rgb_array"})
    seeds = [e.seed for e in chosen]
    filmed = {
        e.seed: e for e in _evaluate(campaign, policy, seeds, recipe=recipe, films=folder, console=console)
    }
    shown = []
    for episode in episodes:
        film = filmed.get(episode.seed)
        if film is not None and film.action_hash != episode.action_hash:
            _LOGGER.warning(
                "seed %d went another way when filmed: the environment does not repeat", film.seed
            )
            (folder / film.video).unlink()
        elif film is not None:
            episode = replace(episode, video=film.video)
        shown.append(episode)
    return shown
