"""Start a training from a run: which weights are kept, which are made new, and which of them move."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from robopolicy import policies
from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.policy_module import PolicyModule
from robopolicy.training.layers import action_layers, observation_layers
from robopolicy.training.lora import LoraConfig, add_adapters
from robopolicy.training.optimiser import ENCODER, named_so, trainable_parameters
from robopolicy.training.source import Source

PARAMETERS = ("all", "head", "encoder", "conditioning", "lora")
HEADS = ("auto", "keep", "new")
OBSERVATIONS = ("same", "new")
NORMALISERS = ("keep", "refit")
#: Values of the new data may leave the range that the run's normaliser maps onto [-1, 1] by so much of it.
TOLERANCE = 0.05


@dataclass(frozen=True)
class FinetuneConfig:
    """What to take from a run. Whatever is made new is always trained.

    Args:
        run: a run folder, or its ``policy`` folder; empty trains from nothing.
        take: beginnings of the names of weights to take ("encoder.vision"), all else being new, the family
            and its options included; empty takes the whole policy.
        parameters: that are trained: "all", "head" (the layers that actions come out of), "encoder",
            "conditioning" (the layers that read the encoded observation) or "lora".
        lora: adapters, for parameters "lora".
        head: "keep" or "new" weights of the layers that actions go in at and come out of; "auto" makes them
            new where the action spec or what the noise schedule predicts differs from the run's.
        observations: "same" insists on those of the run; "new" makes the layers that read them new where
            they differ.
        normalisers: "keep" the run's where they apply, or "refit" all of them on the new demonstrations.
    Raises:
        ConfigError: names the field.
    """

    run: str = ""
    take: tuple[str, ...] = ()
    parameters: str = "all"
    lora: LoraConfig = field(default_factory=LoraConfig)
    head: str = "auto"
    observations: str = "same"
    normalisers: str = "keep"

    def __post_init__(self) -> None:
        choices = {
            "parameters": PARAMETERS,
            "head": HEADS,
            "observations": OBSERVATIONS,
            "normalisers": NORMALISERS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r} is not one of {known}")
        changed = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != _default(f)]
        if not self.run and changed:
            raise ConfigError(f"{', '.join(changed)} of finetune need a run to start from: finetune.run")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]


@dataclass(frozen=True)
class Start:
    """What became of the weights.

    Args:
        normalisers: to train with.
        kept, new: names of parameters and buffers.
        adapted: layers with adapters.
        trainable, total: numbers.
        notes: what the person should know.
    """

    normalisers: Normalisers
    kept: tuple[str, ...]
    new: tuple[str, ...]
    adapted: tuple[str, ...]
    trainable: int
    total: int
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """In words, for printing."""
        said = [f"kept {len(self.kept)} tensors of the run; new: {', '.join(self.new) or 'none'}"]
        if self.adapted:
            said.append(f"low-rank adapters on {len(self.adapted)} layers")
        share = 100 * self.trainable / self.total
        said.append(f"{self.trainable:,} of {self.total:,} parameters are trained ({share:.1f} %)")
        return [*said, *self.notes]


def start_from(
    source: Source,
    module: PolicyModule,
    *,
    policy_config: Any,
    normalisers: Normalisers,
    config: FinetuneConfig,
) -> Start:
    """Load the run's weights into a module for the new demonstrations, and choose what is trained.

    Args:
        module: built from ``policy_config`` for the new specs; its weights are what new parts start with.
        normalisers: fitted on the new demonstrations.
    Raises:
        SpecError: observations differ and may not; ConfigError: weights do not fit, named one by one.
    """
    specs, notes = module.policy_specs, list[str]()
    if config.take:
        wanted = {name for name in module.state_dict() if named_so(name, config.take)}
        if not wanted:
            raise ConfigError(f"no weight's name begins with any of {list(config.take)}")
        new = set(module.state_dict()) - wanted
        fitted = normalisers
    else:
        new = _made_new(source, module, policy_config, config)
        fitted = _normalisers(source, specs, normalisers, config, notes)
    kept = _load(source, module, new)
    adapted = _choose(module, frozenset(new), policy_config, source.family, config)
    trainable, total = trainable_parameters(module)
    return Start(fitted, tuple(kept), tuple(sorted(new)), tuple(adapted), trainable, total, tuple(notes))


def _made_new(source: Source, module: PolicyModule, policy_config: Any, config: FinetuneConfig) -> set[str]:
    """Names of weights that start from nothing."""
    specs, new = module.policy_specs, set[str]()
    if getattr(source.config, "tasks", ()) != getattr(policy_config, "tasks", ()):  # other tasks' places
        beginnings = getattr(policies.family(source.family), "TASK_WEIGHTS", ())
        new |= {name for name in module.state_dict() if name.startswith(beginnings)}
    differs = source.specs.specs.action != specs.specs.action
    differs |= _predicted(source.config) != _predicted(policy_config)
    if config.head == "new" or (config.head == "auto" and differs):
        new |= action_layers(source.family, policy_config, specs)
    changed = _changed_observations(source.specs, specs)
    if changed:
        if config.observations == "same":
            raise SpecError(
                f"observations differ from the run's: {'; '.join(changed)}; "
                "finetune.observations 'new' makes the layers that read them new"
            )
        new |= observation_layers(source.family, policy_config, specs)
        new |= {n for n in module.state_dict() if n.startswith(ENCODER) and n not in source.weights}
    return new


def _predicted(policy_config: Any) -> tuple[Any, ...]:
    """What comes out of a denoiser; nothing in particular for policies without a noise schedule."""
    schedule = getattr(policy_config, "schedule", None)
    return getattr(schedule, "kind", None), getattr(schedule, "prediction", None)


def _changed_observations(old: PolicySpecs, new: PolicySpecs) -> list[str]:
    before, after = old.specs.observation, new.specs.observation
    said = [f"{key!r} is not among its {sorted(before)}" for key in after if key not in before]
    said += [f"{key!r} is missing" for key in before if key not in after]
    said += [
        f"{key!r} has shape {spec.shape} instead of {before[key].shape}, or other units or angles"
        for key, spec in after.items()
        if key in before and before[key] != spec
    ]
    if not said and list(before) != list(after):
        said.append(f"the order {list(after)} is not {list(before)}")
    if old.instruction_dim != new.instruction_dim:
        said.append(f"instructions of {new.instruction_dim} features instead of {old.instruction_dim}")
    if old.horizons.observation != new.horizons.observation:
        said.append(f"observation_horizon {new.horizons.observation} is not {old.horizons.observation}")
    return said


def _normalisers(
    source: Source, specs: PolicySpecs, fitted: Normalisers, config: FinetuneConfig, notes: list[str]
) -> Normalisers:
    if config.normalisers == "refit":
        return fitted
    old, observation = source.normalisers, source.specs.specs.observation
    states = {
        key: old.observation[key] if observation.get(key) == specs.specs.observation[key] else own
        for key, own in fitted.observation.items()
    }
    if source.specs.specs.action != specs.specs.action:
        notes.append("the action normaliser is new, as the action space is")
        return Normalisers(states, fitted.action)
    outside = _outside(old.action, fitted.action)
    if outside:
        names = [specs.specs.action.names[i] for i in outside]
        notes.append(
            f"actions of {names} leave the range of the run's normaliser and will be clipped to it; "
            "finetune.normalisers 'refit' takes the new range"
        )
    return Normalisers(states, old.action)


def _outside(old: Affine, new: Affine) -> list[int]:
    """Dimensions in which [-1, 1] of ``new`` is not within [-1, 1] of ``old``."""
    pairs = zip(old.offset, old.scale, new.offset, new.scale)
    return [i for i, (a, s, b, t) in enumerate(pairs) if abs(b - a) + t > s * (1 + 2 * TOLERANCE)]


def _load(source: Source, module: PolicyModule, new: set[str]) -> list[str]:
    """Every weight that is not new comes from the run, or nothing is loaded."""
    own = module.state_dict()
    kept = [name for name in own if name not in new]
    wrong = [f"{name}: not in the run" for name in kept if name not in source.weights]
    wrong += [
        f"{name}: {tuple(source.weights[name].shape)} in the run, {tuple(own[name].shape)} here"
        for name in kept
        if name in source.weights and source.weights[name].shape != own[name].shape
    ]
    if wrong:
        raise ConfigError(f"{len(wrong)} weights of the run do not fit: {'; '.join(wrong[:20])}")
    with torch.no_grad():
        for name in kept:
            own[name].copy_(source.weights[name])
    return kept


def _choose(
    module: PolicyModule, new: frozenset[str], policy_config: Any, family: str, config: FinetuneConfig
) -> list[str]:
    """Let move what the config says and what is new; returns the adapted layers."""
    if config.parameters == "all":
        return []
    specs = module.policy_specs
    if config.parameters == "lora":
        adapted = add_adapters(module, config.lora, without=new)
        for name, parameter in module.named_parameters():
            if name in new:
                parameter.requires_grad_(True)
        return adapted
    if config.parameters == "head":
        trained = action_layers(family, policy_config, specs)
        trained |= {name for name, _ in module.named_parameters() if "head" in name.split(".")}
    elif config.parameters == "conditioning":
        trained = observation_layers(family, policy_config, specs)
    else:
        trained = {name for name, _ in module.named_parameters() if name.startswith(ENCODER)}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained or name in new)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError(f"a policy of these observations has no {config.parameters!r} parameters to train")
    return []
