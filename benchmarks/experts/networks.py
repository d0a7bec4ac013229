"""The networks compared: a mixture of experts, and the same transformer with dense layers of two sizes."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.models.policy_module import SamplingModule
from robopolicy.policies.mode import Config, MixtureOfDenoisingExperts, build

STATE, JOINTS = 35, 8
#: Of the noise token's embedding, as a multiple of its features.
EMBEDDING_WIDTH = 4


@dataclass(frozen=True)
class Size:
    """A mixture of experts, and what it is compared to."""

    name: str
    config: Config

    @property
    def specs(self) -> PolicySpecs:
        names = tuple(f"joint{i}" for i in range(JOINTS))
        action = ActionSpec((ActionPart("joint_position", names),))
        return PolicySpecs(Specs({"state": ArraySpec((STATE,))}, action, 10.0), Horizons(2, 16, 8))

    def dense(self, experts: int) -> Config:
        """One expert in every layer, as wide as so many: for inference it is laid out as a dense layer."""
        hidden = experts * self.config.expert_hidden
        return dataclasses.replace(self.config, experts=1, active_experts=1, expert_hidden=hidden)

    def build(self) -> dict[str, MixtureOfDenoisingExperts]:
        """Untrained: "mode", "dense_active" and "dense_total" (equal active and equal total parameters)."""
        configs = {
            "mode": self.config,
            "dense_active": self.dense(self.config.active_experts),
            "dense_total": self.dense(self.config.experts),
        }
        return {name: _built(config, self.specs) for name, config in configs.items()}


@functools.cache
def inputs(size: Size, rows: int) -> tuple[Tensor, Tensor]:
    """Conditioning and noise, as ``SamplingModule.sample`` takes them."""
    generator, specs = torch.Generator().manual_seed(rows), size.specs
    conditioning = torch.randn(rows, specs.horizons.observation, size.config.dim, generator=generator)
    return conditioning, torch.randn(rows, *specs.chunk_shape, generator=generator)


DEFAULT = Size("default", Config())
LARGE = Size("large", Config(dim=512, layers=6, heads=8, expert_hidden=1024))


class Uncached(MixtureOfDenoisingExperts):
    """The policy as it is trained: it routes at every step, and computes the chosen experts only."""

    def inference_form(self) -> SamplingModule:
        return self


def uncached(policy: MixtureOfDenoisingExperts) -> Uncached:
    copy = Uncached(policy.config, policy.policy_specs)
    copy.load_state_dict(policy.state_dict())
    return copy.eval()


def flops(config: Config, specs: PolicySpecs, *, cached: bool) -> int:
    """Of the products that make one chunk; a multiplication and an addition count as two."""
    dim, chunk = config.dim, specs.horizons.prediction
    tokens = 1 + specs.horizons.observation + chunk
    attention = 4 * tokens * dim * dim + 2 * tokens * tokens * dim
    experts = 3 * tokens * dim * config.expert_hidden * config.active_experts
    step = config.layers * (attention + experts) + 2 * chunk * dim * specs.specs.action.dim
    if not cached:
        step += 2 * EMBEDDING_WIDTH * dim * dim + config.layers * (dim * dim + dim * config.experts)
    return 2 * config.schedule.denoising_steps * step


def megabytes(module: nn.Module) -> float:
    """Parameters and buffers [MB]."""
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())) / 1e6


def bank_megabytes(module: nn.Module) -> float:
    """Of the experts' weights alone [MB]."""
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    return sum(4 * t.numel() / 1e6 for n, t in tensors.items() if ".experts." in n and t.ndim == 3)


def _built(config: Config, specs: PolicySpecs) -> MixtureOfDenoisingExperts:
    """Weights as they start, except that routes differ between the steps, as they do after training."""
    torch.manual_seed(0)
    module = build(config, specs).eval()
    with torch.no_grad():
        token = module.denoiser.noise_token(module.steps[:, 9])
        for block in module.denoiser.blocks:
            logits = block.router.network(token)
            last = block.router.network[-1]
            factor = 1 / logits.std(0).clamp(min=1e-6)
            last.weight.mul_(factor[:, None])
            last.bias.copy_(factor * (last.bias - logits.mean(0)))
    return module
