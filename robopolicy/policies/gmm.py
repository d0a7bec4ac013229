"""A probabilistic mixture of experts over whole chunks, trained by likelihood.

The policy of PMOE (Ren et al. 2021) as an imitation head: a softmax router mixes Gaussian experts. By the
likelihood alone the router follows the experts' responsibilities; ``router_weight`` adds PMOE's own term,
which regresses it onto the winner ("frequency approximate gradient"), the winner here being the expert that
explains the demonstration best. Standard deviations bounded from below, and scaled down at inference, are as
in robomimic's GMM policy (Mandlekar et al. 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.chunk_head import DirectModule, ResidualMlp
from robopolicy.models.mixture_head import Mixture, num_features, one_hot, pick
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.models.options import check_counts, check_not_negative

CHOICES = ("drawn", "likeliest")
DEAD = 0.1  # an expert that explains less than this part of its even share is called dead


@dataclass(frozen=True)
class Config:
    """Network, mixture and how it is sampled.

    Args:
        width, blocks: of the residual perceptron.
        components: experts.
        min_std: least standard deviation, in normalised action units where 1 is half the data's range [-].
        router_weight: of PMOE's router term beside the likelihood; 0 leaves it out.
        choice: of the expert at inference: "drawn" by the mixing weights, or the "likeliest".
        std_scale: of the experts' deviations at inference; 0 gives their means.
        loss_on_padding: train also on the held actions outside an episode.
    Raises:
        ConfigError: names the option.
    """

    width: int = 256
    blocks: int = 3
    components: int = 5
    min_std: float = 0.03
    router_weight: float = 0.0
    choice: str = "drawn"
    std_scale: float = 0.0
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    loss_on_padding: bool = True

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ConfigError(f"choice {self.choice!r} is not one of {CHOICES}")
        check_counts(self, "components")
        if not 0 < self.min_std < math.inf:
            raise ConfigError(f"min_std must be positive and finite, got {self.min_std}")
        check_not_negative(self, "router_weight", "std_scale")


def build(config: Config, specs: PolicySpecs) -> Gmm:
    """The untrained module. ConfigError names an option out of range."""
    return Gmm(config, specs)


class Gmm(DirectModule):
    """One number of a candidate's noise picks its expert, the others are its Gaussian's."""

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        super().__init__(specs, config.observation, noise_shape=(1 + math.prod(specs.chunk_shape),))
        self.config = config
        self.network = ResidualMlp(
            self.encoder.dim,
            num_features(config.components, specs.chunk_shape),
            width=config.width,
            blocks=config.blocks,
        )
        self._metrics: dict[str, Tensor] = {}

    def mixture(self, conditioning: Tensor) -> Mixture:
        """Of each row of plain ``encode``'s conditioning."""
        config = self.config
        shape = self.policy_specs.chunk_shape
        return Mixture.of_features(self.network(conditioning), config.components, shape, config.min_std)

    def prepare(self, conditioning: Tensor) -> Tensor:
        """(rows, components * (1 + 2 * numbers of a chunk)): mixing weights, means, scaled deviations."""
        mixture = self.mixture(conditioning)
        parts = (mixture.mean, self.config.std_scale * mixture.std)
        return torch.cat([mixture.logits.softmax(-1), *(part.flatten(1) for part in parts)], dim=-1)

    def sample(
        self,
        conditioning: Tensor,
        noise: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        count, shape = self.config.components, self.policy_specs.chunk_shape
        mixing, rest = conditioning.split([count, conditioning.shape[-1] - count], dim=-1)
        if self.config.choice == "drawn":
            chosen = pick(mixing, noise[:, 0])
        else:
            chosen = one_hot(mixing.argmax(-1), mixing)
        taken = (chosen[:, None, :, None] * rest.unflatten(-1, (2, count, -1))).sum(2)
        return (taken[:, 0] + taken[:, 1] * noise[:, 1:]).clamp(-1.0, 1.0).unflatten(-1, shape)

    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Negative log likelihood for each number of a chunk [nats]; it may well be negative."""
        mixture = self.mixture(conditioning)
        weight = torch.ones_like(mask, dtype=action.dtype) if self.config.loss_on_padding else mask.float()
        densities = mixture.log_densities(action, weight)
        joint = mixture.logits.log_softmax(-1) + densities
        loss = -joint.logsumexp(-1).sum() / action.numel()  # not those in the mask alone, see ``masked_mean``
        mixing = mixture.logits.softmax(-1)
        winner = one_hot(densities.argmax(-1), mixing)
        frequency = (mixing - winner).square().sum(-1).mean()
        self._metrics = {
            "negative_log_likelihood": loss.detach(),
            "frequency_loss": frequency.detach(),
            "usage": joint.detach().softmax(-1).mean(0),
            "std": mixture.std.detach().mean(),
        }
        return loss + self.config.router_weight * frequency

    def metrics(self) -> dict[str, float]:
        """Parts of the loss, each expert's share of the last batch, and how many experts are dead."""
        named = {name: float(value) for name, value in self._metrics.items() if name != "usage"}
        if "usage" in self._metrics:
            usage = self._metrics["usage"].tolist()
            named |= {f"usage.expert{index}": share for index, share in enumerate(usage)}
            named["dead_experts"] = float(sum(share < DEAD / len(usage) for share in usage))
        return named
