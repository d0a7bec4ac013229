"""An ensemble of value functions over one encoder: all members are computed at once."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.critic_module import CriticModule
from robopolicy.models.observation_encoder import ObservationConfig, ObservationEncoder
from robopolicy.models.options import check_counts
from robopolicy.models.relative_actions import RelativeActions, matches

ACTIONS = ("chunk", "first")


@dataclass(frozen=True)
class CriticConfig:
    """Network of a critic.

    Args:
        members: value functions with weights of their own; they share the encoder of cameras.
        hidden: widths of each member's layers.
        layer_norm: before each activation. Without it values of chunks that no episode has grow without
            bound (Ball et al. 2023, section 4.2).
        actions: "chunk" scores the actions that are executed before the policy is asked again, "first" only
            the first of them, as Nakamoto et al. 2024 do.
        relative: actions that are places (joint or tool positions) enter as their distance from where the
            arm is, where an observation tells that.
    Raises:
        ConfigError: names the field.
    """

    members: int = 5
    hidden: tuple[int, ...] = (256, 256)
    layer_norm: bool = True
    actions: str = "chunk"
    relative: bool = True
    observation: ObservationConfig = field(default_factory=ObservationConfig)

    def __post_init__(self) -> None:
        check_counts(self, "members")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden needs at least one width, each >= 1, got {self.hidden}")
        if self.actions not in ACTIONS:
            raise ConfigError(f"actions {self.actions!r} is not one of {ACTIONS}")


class Members(nn.Module):
    """What follows the first linear layer of every member: (rows, members * hidden[0]) -> (rows, members)."""

    def __init__(self, config: CriticConfig, members: int) -> None:
        super().__init__()
        widths = (*config.hidden, 1)
        self.members, self.layer_norm = members, config.layer_norm
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(_uniform((members, a, b), a) for a, b in pairs)
        self.biases = nn.ParameterList(_uniform((members, 1, b), a) for a, b in pairs)
        kept = config.hidden if config.layer_norm else ()
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(members, 1, width)) for width in kept)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, width)) for width in kept)

    def forward(self, first: Tensor) -> Tensor:
        x = first.unflatten(-1, (self.members, -1)).transpose(0, 1)  # (members, rows, hidden)
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            if self.layer_norm:
                x = torch.addcmul(
                    self.shifts[place], functional.layer_norm(x, x.shape[-1:]), self.scales[place]
                )
            x = torch.relu(x) @ weight + bias
        return x[..., 0].transpose(0, 1)


class _Scaled(nn.Module):
    """Networks near unit size, values in units of return: value = offset + scale * network."""

    offset: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def set_returns(self, *, mean: float, deviation: float) -> None:
        """Expect returns of this mean and standard deviation; ConfigError unless they are sensible."""
        if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
            raise ConfigError(f"returns need a finite mean and a positive deviation, got {mean}, {deviation}")
        self.offset.fill_(mean)
        self.scale.fill_(deviation)

    def _scaled(self, x: Tensor) -> Tensor:
        """In single precision: half of it leaves a return of -40 two digits."""
        return self.offset + self.scale * x.float()


class EnsembleCritic(_Scaled, CriticModule):
    """Q(observation, chunk) of several members.

    The first layer of W [o; a] + b is the sum of W_o o + b and W_a a. ``encode`` gives the one, once per
    observation, ``value`` adds the other, so that another candidate costs no work on the observation.

    Args:
        specs: of the policies whose chunks it scores; what else they take (noise, prefixes) is dropped.
    """

    def __init__(self, config: CriticConfig, specs: PolicySpecs) -> None:
        super().__init__()
        self.config = config
        self.policy_specs = dataclasses.replace(specs, noise_shape=(), takes_prefix=False)
        executed = specs.horizons.executed
        self._scored = executed if config.actions == "chunk" else slice(executed.start, executed.start + 1)
        actions = self.scored_steps * specs.specs.action.dim
        width = config.members * config.hidden[0]
        self.encoder = ObservationEncoder(specs, config.observation)
        inputs = self.encoder.dim + actions
        self.observe = _linear(self.encoder.dim, width, inputs, bias=True)
        self.act = _linear(actions, width, inputs, bias=False)
        self.heads = Members(config, config.members)
        self.relative = RelativeActions(specs.specs) if config.relative and matches(specs.specs) else None

    @property
    def members(self) -> int:
        return self.config.members

    @property
    def scored_steps(self) -> int:
        """Of a chunk, from the current one on."""
        return self._scored.stop - self._scored.start

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """(batch, members * hidden[0]); a generator means training, so augment."""
        first = self.observe(self.encoder(observation, generator))
        if self.relative is None:
            return first
        here = self.relative.of_observation(observation)[:, None]
        return first + self.act(here.expand(-1, self.scored_steps, -1).flatten(1))

    def value(self, conditioning: Tensor, chunk: Tensor) -> Tensor:
        scored = chunk[:, self._scored]
        if self.relative is not None:
            scored = self.relative.of_chunk(scored)
        return self._scaled(self.heads(conditioning + self.act(scored.flatten(1))))

    def values(self, conditioning: Tensor, chunks: Tensor) -> Tensor:
        """(batch, n, members) of n chunks per observation: conditioning (batch, ...), chunks (batch, n,
        prediction_horizon, action_dim)."""
        rows = conditioning.repeat_interleave(chunks.shape[1], dim=0)
        return self.value(rows, chunks.flatten(0, 1)).unflatten(0, chunks.shape[:2])


class StateValue(_Scaled):
    """V(observation), for objectives that need one: a critic that sees no chunk."""

    def __init__(self, config: CriticConfig, specs: PolicySpecs) -> None:
        super().__init__()
        self.encoder = ObservationEncoder(specs, config.observation)
        self.observe = nn.Linear(self.encoder.dim, config.hidden[0])
        self.heads = Members(config, 1)

    def forward(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """(batch,)"""
        first = self.observe(self.encoder(observation, generator))
        return self._scaled(self.heads(first))[:, 0]


def _uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """As ``nn.Linear`` draws its weights."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def _linear(dim_in: int, dim_out: int, inputs: int, *, bias: bool) -> nn.Linear:
    """A part of a layer that has ``inputs`` in all."""
    layer = nn.Linear(dim_in, dim_out, bias=bias)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound)
        if bias:
            layer.bias.uniform_(-bound, bound)
    return layer
