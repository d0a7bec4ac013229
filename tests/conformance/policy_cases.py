"""What the conformance suite runs every policy family on: small configs, several kinds of inputs."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import torch
from synthetic import SCENE, STATES, make_normalisers, make_specs, make_windows

from robopolicy import policies
from robopolicy.core.horizons import Horizons
from robopolicy.core.language import INSTRUCTION, TextEncoder
from robopolicy.core.policy import Context, Policy, draw_noise, keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.policies._saved import save_policy
from robopolicy.runtime.language.choose import load_text_encoder

#: Options that make a family small, taken where its Config has a field of that name.
TINY = {
    "channels": (16, 32),
    "dim": 32,
    "layers": 2,
    "heads": 2,
    "experts": 4,
    "expert_hidden": 32,
    "width": 64,
    "blocks": 2,
    "components": 3,
    "step_embedding": 16,
    "training_steps": 50,
    "denoising_steps": 5,
    "vision_channels": (8, 16),
    "keypoints": 8,
    "instruction_features": 8,
}
#: What a policy may be given; "everything" is all of it at once.
CASES = ("state", "camera", "goal", "instruction", "everything")
INSTRUCTIONS = ("lift the red cube", "open the drawer", "push the button")


def case_specs(case: str) -> PolicySpecs:
    """States; with them a camera, a goal, an instruction, or all of these and a goal picture."""
    specs = make_specs(image=case in ("camera", "everything"))
    observation = dict(specs.observation)
    if case in ("goal", "everything"):
        observation["goal.joints"] = STATES["joints"]
    if case == "everything":
        observation["goal.scene"] = SCENE
    specs = dataclasses.replace(specs, observation=observation)
    return PolicySpecs(specs, Horizons(2, 8, 4), instruction_dim=text_encoder().dim if told(case) else 0)


def told(case: str) -> bool:
    """Whether policies of this case follow instructions."""
    return case in ("instruction", "everything")


@cache
def text_encoder() -> TextEncoder:
    return load_text_encoder("words")


def tiny_config(family: str, case: str = "state"):
    config = shrunk(policies.family(family).Config())
    if told(case) and hasattr(policies.family(family), "with_tasks"):  # as training does
        config = policies.family(family).with_tasks(config, INSTRUCTIONS)
    return config


def shrunk(config):
    """The config with ``TINY``'s values, also in the configs inside it."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = shrunk(value)
        elif field.name in TINY:
            changes[field.name] = TINY[field.name]
    return dataclasses.replace(config, **changes)


def make_module(family: str, case: str = "state", *, seed: int = 0) -> PolicyModule:
    """As training builds it."""
    torch.manual_seed(seed)
    module: PolicyModule = policies.family(family).build(tiny_config(family, case), case_specs(case))
    if told(case) and hasattr(module, "set_instructions"):
        module.set_instructions([torch.from_numpy(text_encoder().encode([text])) for text in INSTRUCTIONS])
    return module


def make_policy(family: str, case: str = "state") -> TorchPolicy:
    """An untrained policy; weights are shaken so that no layer that starts at zero hides an error."""
    module = make_module(family, case)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    normalisers = make_normalisers(module.policy_specs)
    return TorchPolicy(module, normalisers, text_encoder=text_encoder() if told(case) else None)


def inputs(policy: Policy, batch: int = 2, n: int = 3, seed: int = 0):
    """Observations, noise and context of one call; the rows' instructions differ."""
    specs = policy.policy_specs
    noise = np.stack([draw_noise(specs, n, keyed_rng(seed, row)) for row in range(batch)])
    texts = tuple(INSTRUCTIONS[row % 3] for row in range(batch)) if specs.instruction_dim else ()
    return make_windows(specs, batch), noise, Context(texts)


def training_batch(module: PolicyModule, rows: int = 6, seed: int = 0):
    """What ``encode`` and ``loss`` take: network inputs, chunks, and a mask with padding in it."""
    specs = module.policy_specs
    given = make_normalisers(specs).observations(specs.specs, make_windows(specs, rows, seed))
    if specs.instruction_dim:
        given[INSTRUCTION] = text_encoder().encode([INSTRUCTIONS[row % 3] for row in range(rows)])
    chunks = keyed_rng(seed).uniform(-1, 1, (rows, *specs.chunk_shape)).astype(np.float32)
    mask = torch.ones(chunks.shape[:2], dtype=torch.bool)
    mask[0, :3] = False
    return {name: torch.from_numpy(value) for name, value in given.items()}, torch.from_numpy(chunks), mask


def loss_of(module: PolicyModule, seed: int = 0):
    """The training loss of ``training_batch``, all randomness from a generator with this seed."""
    observation, chunks, mask = training_batch(module)
    generator = torch.Generator().manual_seed(seed)
    return module.loss(module.encode(observation, generator), chunks, mask, generator)


def save(policy: TorchPolicy, family: str, case: str, folder) -> None:
    save_policy(
        folder,
        family=family,
        config=tiny_config(family, case),
        specs=policy.policy_specs,
        normalisers=policy.normalisers,
        weights=policy.module.state_dict(),
        text_encoder=policy.text_encoder,
    )
