"""The policy whose candidates a critic is to judge: what it decides, and what it would do at each window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.goals import PREFIX
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import Context, Policy, keyed_rng
from robopolicy.datasets.mixture import spec_differences
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.transitions import Transitions
from robopolicy.training.config import LoopConfig
from robopolicy.training.source import Source
from robopolicy.training.value.config import ValueTrainConfig

#: Options that the policy decides.
OF_THE_POLICY = ("keys", "horizons", "instruction", "goal")
ROWS = 256  # windows per call of the policy
_DRAWS = 6  # part of the keys of random numbers, to tell what they are for


def as_policy(source: Source, config: ValueTrainConfig, *, given: bool = False) -> ValueTrainConfig:
    """The options with the policy's observations, horizons, text encoder and goals.

    Args:
        given: whether options that equal the defaults count as asked for.
    Raises:
        ConfigError: an option contradicts the policy; says which.
    """
    decided: dict[str, Any] = {
        "keys": tuple(source.specs.specs.observation),
        "horizons": source.specs.horizons,
        "instruction": source.encoder,
        "goal": source.goal or config.goal,
    }
    usual = LoopConfig()
    for name, value in decided.items():
        asked = getattr(config, name)
        if asked != value and (given or asked != getattr(usual, name)):
            raise ConfigError(
                f"--train.{name} {asked!r} contradicts the policy, which has {value!r}: leave out one of them"
            )
    return replace(config, **decided)


def check_store(store: EpisodeStore, source: Source, where: str | Path) -> None:
    """SpecError unless the store has what the policy looks at, and its kind of action."""
    wanted = source.specs.specs
    held = set(store.specs.observation)
    if missing := [key for key in wanted.observation if not held & {key, key.removeprefix(PREFIX)}]:
        raise SpecError(
            f"the policy {where} looks at {missing}, which {store.where} lacks; it has {sorted(held)}"
        )
    kept = {key: store.specs.observation[key] for key in wanted.observation if key in held}
    alike = {key: spec for key, spec in wanted.observation.items() if key in held}
    names = (store.where, f"the policy {where}")
    if found := spec_differences(
        replace(store.specs, observation=kept), replace(wanted, observation=alike), names=names
    ):
        raise SpecError(f"{store.where} cannot train a critic of the policy {where}: {'; '.join(found)}")


class PolicyChunks:
    """What a policy would do at every window of some episodes, drawn once and kept in memory.

    Args:
        normalisers: the critic's, which the chunks are kept in.
        count, stride: see ``ValueTrainConfig.policy_chunks`` and ``policy_stride``.
        seed: they are a pure function of it, of ``transitions`` and of the stride, on the same device:
            windows share calls of the policy, so that for another set of them others are drawn.
        label: of the progress bar.
    """

    def __init__(
        self,
        policy: Policy,
        transitions: Transitions,
        normalisers: Normalisers,
        *,
        count: int,
        stride: int,
        seed: int,
        console: Console,
        label: str = "policy chunks",
    ) -> None:
        starts = np.searchsorted(transitions.episode, transitions.episode)  # first window of the episode
        own = np.arange(len(transitions))
        drawn = own - (own - starts) % stride
        wanted, self._row = np.unique(drawn, return_inverse=True)
        shape = policy.policy_specs.chunk_shape
        self._chunks = np.empty((len(wanted), count, *shape), np.float16)  # 0.05 % of the range is enough
        with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"drawing {label}", total=len(wanted))
            for start in range(0, len(wanted), ROWS):
                rows = slice(start, start + ROWS)
                chunks = _draw(policy, transitions, wanted[rows], count, (seed, start, _DRAWS))
                self._chunks[rows] = normalisers.action.forward(chunks)
                progress.update(task, completed=min(len(wanted), start + ROWS))

    def take(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """(batch, count, prediction_horizon, action_dim) normalised, of windows (batch,)."""
        return self._chunks.take(self._row.take(index), axis=0).astype(np.float32)

    @property
    def memory_bytes(self) -> int:
        return self._chunks.nbytes + self._row.nbytes


def _draw(
    policy: Policy, transitions: Transitions, index: NDArray[np.int64], count: int, key: tuple[int, ...]
) -> NDArray[np.float32]:
    batch = transitions.source.batch(index)
    specs = policy.policy_specs
    noise = keyed_rng(*key).standard_normal((len(index), count, *specs.noise_shape), dtype=np.float32)
    texts = tuple(transitions.instructions[row] for row in batch.instruction)
    context = Context(texts if specs.instruction_dim else ())
    return policy.sample(batch.observation, noise, context)
