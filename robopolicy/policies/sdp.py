"""Sparse Diffusion Policy (Wang et al. 2024): a diffusion transformer with experts and a router per task.

Routers here look at the task alone, not at tokens, so that a task's experts are known before it is run. The
task is found from the instruction. ``training.extend`` adds a task and leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.core.language import CLEAN_INSTRUCTION, INSTRUCTION
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.diffusion_module import DiffusionModule, TableSampling, counted
from robopolicy.models.experts import name_usage
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.models.observation_tokens import ObservationTokens
from robopolicy.models.options import (
    check_dropout,
    check_experts,
    check_not_negative,
    check_transformer,
)
from robopolicy.models.policy_module import SamplingModule
from robopolicy.models.sdp_experts import FusedExperts, PresentExperts, StagedExperts
from robopolicy.models.task_denoiser import TaskDenoiser, TaskFinder
from robopolicy.models.task_routing import TaskRouters, mutual_information
from robopolicy.models.transformer import TransformerDenoiser
from robopolicy.models.transformer_inference import InferenceTransformer

PROTOTYPES = "finder.prototypes"
#: Beginnings of the names of weights that belong to the tasks one by one.
TASK_WEIGHTS = ("finder.", "routers.")
#: Added to a new task's logits of the experts that came with it: it starts with them and tries others.
FAVOUR = 2.0


@dataclass(frozen=True)
class Config:
    """Network, experts and noise schedule.

    Args:
        dim: features of a token.
        layers, heads: of the transformer.
        experts: of each layer, for the tasks trained on first.
        active_experts: those a row goes to in each layer.
        expert_hidden: units of each expert; 2 active ones are by default as large as a dense layer of
            4 * dim units.
        router_noise: scale of the Gumbel noise on logits in training.
        information: weight of the mutual information of task and expert in the loss.
        tasks: names, in the order of the routers; training fills them in from the stores' instructions.
        phrasings: (task, another way to say it) that training used; no task that is added may take one.
        added: experts that each of the last tasks brought with it, see ``training.extend``.
        loss_on_padding: train also on the held actions outside an episode.
    Raises:
        ConfigError: names the field.
    """

    dim: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    experts: int = 8
    active_experts: int = 2
    expert_hidden: int = 256
    router_noise: float = 0.5
    information: float = 5e-4
    tasks: tuple[str, ...] = ("",)
    phrasings: tuple[tuple[str, str], ...] = ()
    added: tuple[int, ...] = ()
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    loss_on_padding: bool = True

    def __post_init__(self) -> None:
        check_transformer(self)
        check_dropout(self)
        check_experts(self)
        check_not_negative(self, "router_noise", "information")
        if len(set(self.tasks)) < len(self.tasks) or len(self.tasks) <= len(self.added):
            raise ConfigError(
                f"tasks must differ and be more than the {len(self.added)} added ones, got {self.tasks}"
            )
        if any(count < 0 for count in self.added):
            raise ConfigError(f"added must be >= 0 each, got {self.added}")

    @property
    def visible(self) -> tuple[int, ...]:
        """Of each task, how many experts it knows: those there were when it was added."""
        first = len(self.tasks) - len(self.added)
        later = (self.experts + sum(self.added[: i + 1]) for i in range(len(self.added)))
        return (self.experts,) * first + tuple(later)


Phrasings = Mapping[str, Sequence[str]]


def with_tasks(
    config: Config, instructions: Sequence[str], phrasings: Phrasings = MappingProxyType({})
) -> Config:
    """The config of a policy that is to learn these tasks, each known by its instruction.

    Args:
        phrasings: instruction to other ways to say it; more instructions than there are is fine.
    """
    tasks = tuple(dict.fromkeys(instructions))
    return replace(config, tasks=tasks, phrasings=_told(tasks, phrasings))


def with_added(
    config: Config,
    instructions: Sequence[str],
    experts: int,
    phrasings: Phrasings = MappingProxyType({}),
) -> Config:
    """The config of a policy that has learnt its tasks and gets more of them, each with so many experts."""
    known = sorted(set(instructions) & set(config.tasks))
    if known:
        raise ConfigError(f"the policy already knows the tasks {known}; it knows {sorted(config.tasks)}")
    added = (*config.added, *(experts for _ in instructions))
    told = (*config.phrasings, *_told(instructions, phrasings))
    return replace(config, tasks=(*config.tasks, *instructions), phrasings=told, added=added)


def _told(tasks: Sequence[str], phrasings: Phrasings) -> tuple[tuple[str, str], ...]:
    return tuple((task, text) for task in tasks for text in phrasings.get(task, ()) if text != task)


def build(config: Config, specs: PolicySpecs) -> SparseDiffusion:
    """The untrained module. ConfigError for several tasks without language to tell them apart."""
    return SparseDiffusion(config, specs)


class SparseDiffusion(DiffusionModule):
    encoder: ObservationTokens
    denoiser: TaskDenoiser

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        if len(config.tasks) > 1 and not specs.instruction_dim:
            raise ConfigError(f"without language there is one task, not {len(config.tasks)}: {config.tasks}")
        encoder = ObservationTokens(specs, config.observation, config.dim)
        stages = (config.experts, *config.added)
        network = TransformerDenoiser(
            specs.specs.action.dim,
            specs.horizons.prediction,
            encoder.count,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            feed_forward=lambda: StagedExperts(stages, config.dim, config.expert_hidden),
        )
        denoiser = TaskDenoiser(network, dim=config.dim, routes=(config.layers, sum(stages)))
        super().__init__(specs, encoder, denoiser, config.schedule, loss_on_padding=config.loss_on_padding)
        self.config = config
        self.routers = TaskRouters(
            config.layers, config.visible, config.active_experts, noise=config.router_noise
        )
        self.finder = TaskFinder(len(config.tasks), specs.instruction_dim)
        self._information = torch.zeros(())

    def set_instructions(self, phrasings: Sequence[Tensor]) -> None:
        """Teach which embedded instructions mean which task.

        Args:
            phrasings: of each of the last tasks, or of all, (count, instruction_dim).
        Raises:
            ConfigError: a phrasing that is nearer to another task.
        """
        tasks = list(range(len(self.config.tasks)))[-len(phrasings) :]
        for task, embedded in zip(tasks, phrasings):
            self.finder.learn(task, embedded)
        for task, embedded in zip(tasks, phrasings):
            self.check_instructions(task, embedded)

    def check_instructions(self, task: int, phrasings: Tensor) -> None:
        """ConfigError unless every phrasing (count, instruction_dim) finds its task."""
        found = self.finder.similarity(phrasings).argmax(-1).tolist()
        names = self.config.tasks
        wrong = [f"phrasing {i} of {names[task]!r}: {names[t]!r}" for i, t in enumerate(found) if t != task]
        if wrong:
            raise ConfigError(f"the text encoder cannot tell these tasks apart; it takes {'; '.join(wrong)}")

    @torch.no_grad()
    def take_from(self, weights: Mapping[str, Tensor], phrasings: Sequence[Tensor]) -> list[str]:
        """Become the policy of fewer tasks that these weights are of, plus untrained tasks.

        Args:
            weights: the other policy's ``state_dict``.
            phrasings: of each task that is new, (count, instruction_dim).
        Returns:
            names of the parameters that are new; all others are the given weights, bit for bit.
        Raises:
            ConfigError: weights that are not of such a policy, or instructions that are too much alike.
        """
        own = self.state_dict()
        learnt = own.pop(PROTOTYPES)[: len(weights[PROTOTYPES])]
        places = {**own, PROTOTYPES: learnt}
        wrong = [name for name, value in weights.items() if _shape(places, name) != value.shape]
        if wrong:
            raise ConfigError(f"these are weights of another policy; {wrong[:20]} do not fit")
        for name, value in weights.items():
            places[name].copy_(value)
        for logits, experts in zip(
            self.routers.logits[-len(phrasings) :], self.config.added[-len(phrasings) :]
        ):
            logits[:, logits.shape[1] - experts :] += FAVOUR
        self.set_instructions(phrasings)
        return [name for name, _ in self.named_parameters() if name not in weights]

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """(batch, count * dim + tasks): tokens, then the task as one-hot.

        Training's noise on an instruction reaches tokens alone: it would make one task of another.
        """
        tokens = self.encoder(observation, generator).flatten(1)
        told = observation.get(CLEAN_INSTRUCTION, observation.get(INSTRUCTION))
        return torch.cat([tokens, self.finder(told, tokens)], dim=-1)

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.denoiser.look_up(self._routed(conditioning, None))

    def predict(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        return self.denoiser.denoise(chunk, parameters[:1], conditioning)

    def _routed(self, conditioning: Tensor, generator: torch.Generator | None) -> Tensor:
        """(batch, count * dim + layers * experts): routes in the task's place."""
        tokens, task = conditioning.split(
            [conditioning.shape[1] - self.finder.tasks, self.finder.tasks], dim=1
        )
        return torch.cat([tokens, self.routers(task, generator).flatten(1).to(tokens.dtype)], dim=-1)

    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        routed = self._routed(conditioning, generator if self.training else None)
        information = mutual_information(self.routers.probabilities())
        self._information = information.detach()
        denoising = super().loss(routed, action, mask, generator)
        return denoising - self.config.information * information

    def metrics(self) -> dict[str, float]:
        """Mutual information of task and expert [nats], and each expert's share, in the mean of the tasks."""
        usage = name_usage(self.routers.routes().mean(0))
        return {"mutual_information": self._information.item()} | usage

    @torch.no_grad()
    def expert_usage(self) -> Tensor:
        """(layers, tasks, experts) share of each expert in each task's output; the map that is plotted."""
        return self.routers.routes().transpose(0, 1)

    def inference_form(self) -> SamplingModule:
        return InferenceForm(self)


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


class InferenceForm(TableSampling):
    """The trained policy as it is exported: no routers, and experts laid side by side."""

    routes: Tensor
    denoiser: InferenceTransformer

    def __init__(self, policy: SparseDiffusion) -> None:
        super().__init__()
        self.policy_specs, self.sampler = policy.policy_specs, policy.sampler
        self.encoder, self.finder = policy.encoder, policy.finder
        self.trained = policy.denoiser
        self.denoiser = InferenceTransformer(policy.denoiser.network, policy.steps[:, 0])
        routes = policy.routers.routes().detach()
        # one task is given the general form as well if others may be added: they must not change its rounding
        language = policy.policy_specs.instruction_dim > 0
        for layer, block in enumerate(self.denoiser.network.blocks):
            experts = block.feed_forward
            assert isinstance(experts, StagedExperts)
            block.feed_forward = (
                PresentExperts(experts) if language else FusedExperts(experts, routes[0, layer])
            )
        self.register_buffer("routes", routes.flatten(1))
        self.register_buffer("steps", counted(policy.steps))

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        tokens = self.encoder(observation, generator).flatten(1)
        task = self.finder(observation.get(INSTRUCTION), tokens)
        return torch.cat([tokens, task @ self.routes], dim=-1)

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.trained.look_up(conditioning)

    def predict(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        return self.denoiser(chunk, parameters[:1].long(), *self.trained.split(conditioning))
