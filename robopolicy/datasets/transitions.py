"""What critics learn from: windows with the rewards that follow, the window after, and the return."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.normalise import Normalisers
from robopolicy.core.specs import Specs
from robopolicy.datasets.loader import TensorBatch
from robopolicy.datasets.mixture import Mixture
from robopolicy.datasets.windows import Batch, Windows, WindowSource


@dataclass(frozen=True)
class TransitionConfig:
    """How rewards become targets.

    Args:
        gamma: discount per step. Where a step costs 1, failing costs 1 / (1 - gamma): when that is little,
            the steps that a success takes outweigh that it succeeds.
        steps: rewards summed before bootstrapping; 0 takes the action horizon, so that a transition is what
            executing a chunk leads to. A critic of the first action alone takes 1.
    Raises:
        ConfigError: names the field.
    """

    gamma: float = 0.99
    steps: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < 1:
            raise ConfigError(f"gamma {self.gamma} not in [0, 1)")
        if self.steps < 0:
            raise ConfigError(f"steps must be >= 0, got {self.steps}")


@dataclass(frozen=True)
class Label:
    """What an episode was worth.

    Args:
        reward: (steps,) of each step, the consequence of its action.
        success: whether it ended in success. One that did not goes on failing for ever, at the reward of its
            last step; an episode that nobody judged is one of these.
    """

    reward: NDArray[np.floating[Any]]
    success: bool


@dataclass(frozen=True)
class ReturnRange:
    """Of the returns in the data [-]: mean, standard deviation, and bounds of what is worth expecting."""

    mean: float
    deviation: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class TransitionArrays(Batch):
    """A batch of windows and what followed each.

    Args:
        next_observation: as ``observation``, of the window after the chunk; of no meaning where ``discount``
            is 0.
        next_action: (batch, prediction_horizon, action_dim) the chunk of that window.
        reward: (batch,) discounted sum of the rewards in between.
        discount: (batch,) of the value of the next window; 0 where the episode has ended.
        mc_return: (batch,) discounted sum of all rewards to the end, and for ever after a failure.
        success: (batch,) of the episode.
        index, next_index: (batch,) number of the window and of the one after.
    """

    next_observation: dict[str, NDArray[Any]]
    next_action: NDArray[np.float32]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    mc_return: NDArray[np.float32]
    success: NDArray[np.bool_]
    index: NDArray[np.int64]
    next_index: NDArray[np.int64]

    def normalised(self, specs: Specs, normalisers: Normalisers) -> TransitionArrays:
        """What the network sees of it; rewards and returns stay in their own units."""
        return dataclasses.replace(
            self,
            observation=normalisers.observations(specs, self.observation),
            action=normalisers.action.forward(self.action),
            next_observation=normalisers.observations(specs, self.next_observation),
            next_action=normalisers.action.forward(self.next_action),
        )


@dataclass(frozen=True)
class TransitionBatch(TensorBatch):
    """As ``TransitionArrays``, in tensors: ``Loader(transitions, ..., into=TransitionBatch)``.

    Args:
        policy_chunks, next_policy_chunks: (batch, m, prediction_horizon, action_dim) normalised, what a
            policy would do at the window and at the next one; None without a policy.
    """

    next_observation: dict[str, Tensor]
    next_action: Tensor
    reward: Tensor
    discount: Tensor
    mc_return: Tensor
    success: Tensor
    index: Tensor
    next_index: Tensor
    policy_chunks: Tensor | None = None
    next_policy_chunks: Tensor | None = None


class Transitions(WindowSource):
    """Windows of one store or of several, each with what followed; drawn in the same order as they are.

    Goals that are taken from the episode itself are those of its end: one drawn from the future would need
    rewards of its own.

    Args:
        source: the windows.
        labels: one per episode of each of its stores, in the order of ``Windows.names``.
    Attributes:
        reward, discount, mc_return, success, next_index: (windows,), see ``TransitionArrays``.
        episode, group: (windows,) numbers of the episode, and of its store and instruction together.
        returns: range of the returns.
    Raises:
        ShapeError: another number of labels or rewards than episodes and steps; NonFiniteValueError: a reward
            that is not finite. Both name the episode. ConfigError: goals are taken from episodes that failed.
    """

    samples_ahead = False

    def __init__(
        self, source: WindowSource, labels: Sequence[Sequence[Label]], config: TransitionConfig | None = None
    ) -> None:
        self.source, self.config = source, config or TransitionConfig()
        self.specs, self.horizons, self.instructions = source.specs, source.horizons, source.instructions
        parts = _parts(source)
        if len(labels) != len(parts):
            raise ShapeError(f"{len(parts)} stores need as many lists of labels, got {len(labels)}")
        _check_goals(parts, labels)
        count = self.config.steps or source.horizons.action
        found = [
            transitions_of(label, count, self.config)
            for part, told in zip(parts, labels)
            for label in _checked(part, told)
        ]
        ends = np.cumsum([len(one.reward) for one in found])
        starts = ends - [len(one.reward) for one in found]
        self.reward = np.concatenate([one.reward for one in found])
        self.discount = np.concatenate([one.discount for one in found])
        self.mc_return = np.concatenate([one.mc_return for one in found])
        self.next_index = np.concatenate([one.after + start for one, start in zip(found, starts)])
        every = [label for told in labels for label in told]
        self.success = np.repeat([label.success for label in every], [len(label.reward) for label in every])
        self.episode = np.repeat(np.arange(len(every)), [len(label.reward) for label in every])
        told = [(place, text) for place, part in enumerate(parts) for text in part.instruction.tolist()]
        self.group = np.unique(told, axis=0, return_inverse=True)[1].reshape(-1)
        self.returns = _range(self.mc_return, every, self.config.gamma)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def observation(self) -> dict[str, NDArray[Any]]:
        return self.source.observation

    @property
    def action(self) -> NDArray[np.float32]:
        return self.source.action

    @property
    def memory_bytes(self) -> int:
        own = (self.reward, self.discount, self.mc_return, self.success, self.next_index, self.episode)
        return self.source.memory_bytes + sum(array.nbytes for array in (*own, self.group))

    @property
    def digest(self) -> str:
        """SHA-256 of what the windows are worth: it changes with rewards and successes."""
        found = hashlib.sha256()
        for array in (self.reward, self.discount, self.mc_return, self.success):
            found.update(array.tobytes())
        return found.hexdigest()

    @property
    def on_demand(self) -> list[str]:
        return self.source.on_demand

    @property
    def names_by_store(self) -> dict[str, list[str]]:
        return self.source.names_by_store

    def order(self, *, seed: int, epoch: int) -> NDArray[np.int64]:
        return self.source.order(seed=seed, epoch=epoch)

    def batch(self, indices: NDArray[np.int64], ahead: NDArray[np.float64] | None = None) -> TransitionArrays:
        """Gather the windows ``indices`` (batch,) and those after; see ``WindowSource.batch``."""
        now = self.source.batch(indices)
        after = self.next_index.take(indices)
        then = self.source.batch(after)
        return TransitionArrays(
            now.observation,
            now.action,
            now.mask,
            now.instruction,
            then.observation,
            then.action,
            self.reward.take(indices),
            self.discount.take(indices),
            self.mc_return.take(indices),
            self.success.take(indices),
            indices,
            after,
        )


@dataclass(frozen=True)
class EpisodeTransitions:
    """Of each step of one episode, (steps,); ``after`` counts from its first step."""

    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    mc_return: NDArray[np.float32]
    after: NDArray[np.int64]


def transitions_of(label: Label, count: int, config: TransitionConfig) -> EpisodeTransitions:
    """Targets of an episode of T steps, ``count`` steps to a transition.

    With the return to the end G_t = r_t + gamma G_{t+1}, the sum of n rewards is G_t - gamma^n G_{t+n}.
    G_T is what follows the end: 0 after a success, r_{T-1} / (1 - gamma) after a failure.
    """
    gamma, steps = config.gamma, len(label.reward)
    rewards = label.reward.astype(np.float64)
    tail = 0.0 if label.success else rewards[-1] / (1 - gamma)
    returns = np.append(np.zeros(steps), tail)
    for step in range(steps - 1, -1, -1):
        returns[step] = rewards[step] + gamma * returns[step + 1]
    here = np.arange(steps)
    after = np.minimum(here + count, steps)
    discount = np.where(after == steps, 0.0, gamma ** (after - here))
    summed = returns[:steps] - discount * returns[after]
    return EpisodeTransitions(
        summed.astype(np.float32),
        discount.astype(np.float32),
        returns[:steps].astype(np.float32),
        np.minimum(after, steps - 1),
    )


def _parts(source: WindowSource) -> list[Windows]:
    if isinstance(source, Mixture):
        return source.parts
    if isinstance(source, Windows):
        return [source]
    raise ConfigError(f"transitions are of Windows or of a Mixture, got {type(source).__name__}")


def _check_goals(parts: Sequence[Windows], labels: Sequence[Sequence[Label]]) -> None:
    """A goal that is how the episode ended tells whether it failed, which no goal at run time does."""
    taken = [goal for part in parts for goal in part.hindsight]
    if taken and not all(label.success for told in labels for label in told):
        raise ConfigError(
            f"goals {list(dict.fromkeys(taken))} are taken from how each episode ended, and some failed: the "
            "critic would read the outcome from the goal; leave goals out of the keys"
        )


def _checked(part: Windows, labels: Sequence[Label]) -> Sequence[Label]:
    lengths = np.bincount(part.episode, minlength=len(part.names))
    if len(labels) != len(part.names):
        raise ShapeError(f"{part.where}: {len(part.names)} episodes need as many labels, got {len(labels)}")
    for name, length, label in zip(part.names, lengths, labels):
        if label.reward.shape != (length,):
            raise ShapeError(
                f"{part.where}, episode {name}: {length} steps need rewards ({length},), got "
                f"{label.reward.shape}"
            )
        if not np.isfinite(label.reward).all():
            step = int(np.flatnonzero(~np.isfinite(label.reward))[0])
            raise NonFiniteValueError(
                f"{part.where}, episode {name}: the reward of step {step} is {label.reward[step]}"
            )
    return labels


def _range(returns: NDArray[np.float32], labels: Sequence[Label], gamma: float) -> ReturnRange:
    """From the worst step for ever to the best that was seen, or that failing for ever can bring."""
    low = min(0.0, min(float(label.reward.min()) for label in labels)) / (1 - gamma)
    lost = [float(label.reward.max()) / (1 - gamma) for label in labels if not label.success]
    high = max(float(returns.max()), *lost) if lost else float(returns.max())
    mean, deviation = float(returns.mean(dtype=np.float64)), float(returns.std(dtype=np.float64))
    return ReturnRange(mean, deviation if deviation > 1e-6 * max(1.0, math.fabs(mean)) else 1.0, low, high)
