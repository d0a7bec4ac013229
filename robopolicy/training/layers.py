"""Which layers of a policy depend on its actions and on its observations, found by building it for others."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from robopolicy import policies
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs

EXTRA = "one_more"


def action_layers(family: str, config: Any, specs: PolicySpecs) -> set[str]:
    """Names of the weights of all layers that actions go in at or come out of."""
    action = specs.specs.action
    wider = ActionSpec((*action.parts, ActionPart("normalised", (EXTRA,))), action.reached)
    return _differing(family, config, specs, dataclasses.replace(specs.specs, action=wider))


def observation_layers(family: str, config: Any, specs: PolicySpecs) -> set[str]:
    """Names of the weights of all layers that read the encoded observations."""
    observation = {**specs.specs.observation, EXTRA: ArraySpec((1,))}
    return _differing(family, config, specs, dataclasses.replace(specs.specs, observation=observation))


def _differing(family: str, config: Any, specs: PolicySpecs, other: Any) -> set[str]:
    """Weights of layers of which at least one has another shape for the other specs."""
    sizes = [_shapes(family, config, each) for each in (specs, dataclasses.replace(specs, specs=other))]
    layers = {name.rpartition(".")[0] for name, shape in sizes[0].items() if sizes[1].get(name) != shape}
    return {name for name in sizes[0] if name.rpartition(".")[0] in layers}


def _shapes(family: str, config: Any, specs: PolicySpecs) -> dict[str, tuple[int, ...]]:
    with torch.random.fork_rng(devices=[]):  # what is drawn for these weights is nobody's business
        module = policies.family(family).build(config, dataclasses.replace(specs, noise_shape=()))
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}
