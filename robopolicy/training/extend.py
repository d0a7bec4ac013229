"""Add a task to a trained policy: a router and a few experts are new, everything else stays bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from robopolicy import policies
from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.language import TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.datasets.mixture import spec_differences
from robopolicy.datasets.windows import WindowSource
from robopolicy.models.policy_module import PolicyModule
from robopolicy.training.optimiser import trainable_parameters
from robopolicy.training.source import Source, as_trained, check_encoder, read_source

if TYPE_CHECKING:
    from robopolicy.training.config import TrainConfig
    from robopolicy.training.inputs import Language

#: Normalised values beyond this are outside what the policy has been trained on.
USUAL = 1.2


@dataclass(frozen=True)
class ExtendConfig:
    """Adding tasks to a trained policy; on the command line ``--extend``, not ``--train.extend``.

    Args:
        run: a run folder, or its ``policy`` folder; empty adds to nothing.
        experts: that each new task brings to every layer; 0 leaves it with the old ones.
    Raises:
        ConfigError: names the field.
    """

    run: str = ""
    experts: int = 2

    def __post_init__(self) -> None:
        if self.experts < 0:
            raise ConfigError(f"extend.experts must be >= 0, got {self.experts}")


@dataclass(frozen=True)
class Extension:
    """A policy with untrained tasks.

    Args:
        module: old parameters are frozen. policy_config: its options, with the new tasks.
        added: how many parameters are new.
        lines: what was done, for printing.
    """

    module: PolicyModule
    policy_config: Any
    normalisers: Normalisers
    added: int
    lines: tuple[str, ...]


def read_extended(config: TrainConfig) -> tuple[Source, TrainConfig]:
    """The policy that tasks are added to, and the training's options as that policy asks for them:
    observations, horizons and text encoder are its own.

    Raises:
        RobopolicyError: no policy there; ConfigError: one that cannot be added to, or options that are not
        its own.
    """
    if config.finetune.run:
        raise ConfigError(
            f"choose one of extend.run {config.extend.run} and finetune.run {config.finetune.run}"
        )
    source = read_source(config.extend.run)
    if not hasattr(policies.family(source.family), "with_added"):
        able = [name for name in policies.names() if hasattr(policies.family(name), "with_added")]
        raise ConfigError(f"no tasks can be added to policies of family {source.family!r}, but to {able}")
    if not source.specs.instruction_dim:
        raise ConfigError(
            f"{config.extend.run} was trained without instructions, by which tasks are told apart; "
            "train it with --train.instruction"
        )
    if not source.encoder:
        raise ConfigError(f"{config.extend.run} follows instructions, but has no text encoder")
    own = as_trained(source, config)
    for name in ("keys", "horizons", "goal"):
        asked, has = getattr(config, name), getattr(own, name)
        if asked not in (has, type(has)()):
            raise ConfigError(f"{name} {asked} are not those of {config.extend.run}, {has}; leave them out")
    return source, own if not config.instruction else replace(own, instruction=config.instruction)


def start_extension(
    source: Source, windows: WindowSource, language: Language, config: ExtendConfig
) -> Extension:
    """The policy with a task for every instruction of the windows.

    Raises:
        SpecError: the demonstrations are of another robot or task space; says what differs.
        ConfigError: a task it knows already, or one that takes an instruction or phrasing of another.
    """
    _check(source, windows, language.encoder, config.run)
    family = policies.family(source.family)
    policy_config = family.with_added(source.config, windows.instructions, config.experts, language.phrasings)
    module: Any = family.build(policy_config, source.specs)
    new = frozenset(module.take_from(source.weights, language.tasks(windows)))
    for task, name in enumerate(source.config.tasks):
        # those of its own training too, and of this file: the new tasks must leave them where they were
        kept = [text for known, text in source.config.phrasings if known == name]
        ways = list(dict.fromkeys([name, *kept, *language.phrasings.get(name, ())]))
        module.check_instructions(task, torch.from_numpy(language.encoder.encode(ways)))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in new)
    added, total = trainable_parameters(module)
    lines = [
        f"{list(windows.instructions)} added to {list(source.config.tasks)}: {added:,} new parameters "
        f"({100 * added / (total - added):.1f} % of the policy), {total - added:,} frozen",
        *outside_lines(source.normalisers, windows),
    ]
    return Extension(module, policy_config, source.normalisers, added, tuple(lines))


def outside_lines(normalisers: Normalisers, windows: WindowSource) -> list[str]:
    """A warning for every state, and the actions, that leave the range the policy was trained on."""
    states = windows.observation
    values = normalisers.observations(windows.specs.select(tuple(states)), states)
    values["action"] = normalisers.action.forward(windows.action)
    lines = []
    for name, normalised in values.items():
        beyond = np.abs(normalised) > USUAL
        if beyond.any():
            clipped = "; chunks are clipped to [-1, 1]: these actions cannot be learnt" * (name == "action")
            lines.append(
                f"warning: {100 * beyond.mean():.1f} % of {name!r} is outside [-{USUAL}, {USUAL}] after the "
                f"policy's normalisation (dimensions {np.flatnonzero(beyond.any(0)).tolist()}, up to "
                f"{np.abs(normalised).max():.3g}){clipped}"
            )
    return lines


def unchanged(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether all of a policy's weights are still there, bit for bit; prototypes may have got more rows."""
    return all(
        name in after and torch.equal(after[name][: len(value)] if value.ndim else after[name], value)
        for name, value in before.items()
    )


def _check(source: Source, windows: WindowSource, encoder: TextEncoder, run: str) -> None:
    names = ("the demonstrations", f"the policy in {run}")
    if differences := spec_differences(windows.specs, source.specs.specs, names=names):
        raise SpecError(f"a task needs the specs of the policy it is added to: {'; '.join(differences)}")
    if windows.horizons != source.specs.horizons:
        raise SpecError(f"horizons {windows.horizons} are not the policy's {source.specs.horizons}")
    check_encoder(source, encoder)
