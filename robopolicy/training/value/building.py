"""The critic to be trained, and saved with all it needs to be used."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.core.normalise import Normalisers
from robopolicy.core.serial import to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.transitions import Transitions
from robopolicy.models.critics import EnsembleCritic
from robopolicy.steering import objectives
from robopolicy.steering._saved import FOLDER, save_critic
from robopolicy.steering.objectives._objective import Objective
from robopolicy.training.ema import Ema
from robopolicy.training.inputs import Language
from robopolicy.training.loop import BEST, RANKS
from robopolicy.training.value.job import ValueJob

LAST = "critic_last"  #: folder of a run, where the last critic is not the one that is used
_CRITIC = "critic."  # of an objective


@dataclass(frozen=True)
class BuiltCritic:
    """An objective on its device, whose ``critic`` is to be kept."""

    objective: Objective
    normalisers: Normalisers
    language: Language | None
    facts: dict[str, Any]

    def save(self, folder: Path, ema: Ema) -> None:
        """Write the critic with averaged weights."""
        critic = self.objective.critic
        weights = {name: value for name, value in ema.weights.items() if name.startswith(_CRITIC)}
        save_critic(
            folder,
            config=critic.config,
            specs=critic.policy_specs,
            normalisers=self.normalisers,
            weights={name.removeprefix(_CRITIC): value.cpu() for name, value in weights.items()},
            facts=self.facts,
            text_encoder=self.language.encoder if self.language else None,
        )


def build_critic(job: ValueJob, transitions: Transitions, device: str) -> BuiltCritic:
    """The untrained critic within its objective.

    Raises:
        ConfigError, SpecError: its options and the data do not fit together.
    """
    config = job.train
    language = Language(config) if config.instruction else None
    dim = language.encoder.dim if language else 0
    specs = PolicySpecs(transitions.specs, config.horizons, instruction_dim=dim)
    normalisers = Normalisers.fit(
        transitions.specs, transitions.observation, transitions.action, config.normaliser
    )
    critic = EnsembleCritic(job.critic, specs)
    if critic.relative is not None:
        critic.relative.fit(
            normalisers,
            transitions.observation,
            transitions.action,
            transitions.episode,
            steps=critic.scored_steps,
        )
    objective = objectives.objective(job.objective).build(job.options, critic, transitions.returns)
    facts = {
        "objective": job.objective,
        "options": to_tree(job.options),
        "reward": job.reward,
        "returns": to_tree(job.returns),
        "range": to_tree(transitions.returns),
        "stores": list(job.stores),
        "policy": job.policy,
    }
    return BuiltCritic(objective.to(device), normalisers, language, facts)


def keep_best(run: Path, result: dict[str, Any]) -> int:
    """Once a training has ended, put the critic that ranks best in the last one's place; returns its step.

    The last one stays where nothing could be ranked: how small a loss is says little of a critic that learns
    from its own values.
    """
    best, end = result["best"], int(result["steps"])
    if not best or best["name"] != RANKS or best["step"] == end:
        return end
    partial = run / f"{FOLDER}.partial"
    for folder in (partial, run / LAST):  # of a run that broke off here
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / BEST, partial)
    (run / FOLDER).rename(run / LAST)
    partial.rename(run / FOLDER)
    return int(best["step"])
