"""Run a policy in many copies of an environment, with batched inference.

Results do not depend on how many copies run, nor on which process finishes first: noise is keyed by (noise
seed, episode seed, step), and inference always sees batches of one size, padded, since rows of a batch are
not bit-equal across batch sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robopolicy.core.errors import ConfigError, WorkerError
from robopolicy.core.policy import Context, Policy, draw_noise, keyed_rng
from robopolicy.evaluation import executors
from robopolicy.evaluation.committed import committed
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.executors import Executor, Lost
from robopolicy.evaluation.hosting import Advance, Begin, Finished, Ready
from robopolicy.evaluation.profile import Profile
from robopolicy.evaluation.results import EpisodeResult

INFERENCE_BATCH = 16
MAX_RESTARTS = 3  # of one episode, after as many deaths of the process that it ran in
_LOGGER = logging.getLogger(__name__)


def evaluate(
    policy: Policy,
    recipe: EnvRecipe | Callable[[], Any],
    seeds: Sequence[int],
    *,
    noise_seed: int = 0,
    num_envs: int = INFERENCE_BATCH,
    executor: str = "inline",
    workers: int = 1,
    films: Path | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    profile: Profile | None = None,
    console: Console | None = None,
) -> list[EpisodeResult]:
    """One episode per seed, executed in receding horizon.

    Args:
        recipe: of the environment, or a callable that builds one; episodes end when it terminates or
            truncates.
        seeds: of ``env.reset``, all different; results come in this order.
        noise_seed: first part of the key of the policy's noise; the episode's seed and step are the others.
        num_envs: environments at once.
        executor: where they live: "inline", "processes" or "ray".
        workers: processes to spread them over.
        films: an existing folder for ``seed_N.mp4`` of every episode; the environment must render.
        on_episode: called with each result as it comes, in the order of finishing.
        profile: filled with where the time went.
        console: of the progress bar.
    Raises:
        ConfigError: no seeds, or one twice; SpecError, ShapeError: policy and environment disagree.
        WorkerError: an environment in another process raised, or one episode killed its process repeatedly.
    """
    if not len(seeds):
        raise ConfigError("evaluation needs at least one episode")
    if len(set(seeds)) != len(seeds):
        raise ConfigError("a seed occurs twice: the episodes would be the same")
    if num_envs < 1:
        raise ConfigError(f"num_envs must be >= 1, got {num_envs}")
    specs = policy.policy_specs
    make = recipe.bind(specs) if isinstance(recipe, EnvRecipe) else recipe
    slots = min(num_envs, len(seeds))
    profile = profile if profile is not None else Profile()
    start = perf_counter()
    host = executors.start(executor, make, specs, slots=slots, workers=workers)
    try:
        with _progress(console) as bar:
            task = bar.add_task("evaluate", total=len(seeds), status="")
            run = _Run(policy, host, [int(s) for s in seeds], noise_seed, films, profile)
            run.begin(slots)
            run.advance()  # the first answers cannot be results: every episode has a step to take
            profile.startup += perf_counter() - start
            while len(run.results) < len(seeds):
                for result in run.advance():
                    if on_episode is not None:
                        on_episode(result)
                    won = sum(r.success for r in run.results.values())
                    bar.update(task, advance=1, status=f"{won}/{len(run.results)} succeed")
    finally:
        host.close()
        profile.wall += perf_counter() - start
    return [run.results[int(seed)] for seed in seeds]


def _progress(console: Console | None) -> Progress:
    status = TextColumn("{task.fields[status]}")
    bar = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), status, TimeRemainingColumn())
    return Progress(*bar, console=console)


@dataclass
class _Run:
    """An evaluation under way. A slot is either with the executor or waiting for its next chunk."""

    policy: Policy
    executor: Executor
    waiting: list[int]  # seeds whose episodes have not begun
    noise_seed: int
    films: Path | None
    profile: Profile

    def __post_init__(self) -> None:
        self.results: dict[int, EpisodeResult] = {}
        self._playing: dict[int, int] = {}  # slot -> seed of its episode
        self._plans: dict[int, NDArray[np.float32]] = {}  # slot -> newest chunk of its episode
        self._restarts: dict[int, int] = {}  # seed -> how often its process died
        self._ready: dict[int, Ready] = {}  # slot -> what its next chunk is planned from

    def begin(self, slots: int) -> None:
        """Start as many episodes as there are slots."""
        for slot in range(slots):
            self._next(slot)

    def advance(self) -> list[EpisodeResult]:
        """Wait for the environments, plan where a full batch is due; returns what has finished."""
        finished = []
        for answer in self.executor.receive():
            if isinstance(answer, Lost):
                self._restart(answer)
                continue
            spent = answer.spent
            self.profile.add(spent.steps, spent.physics, spent.render, spent.total)
            if isinstance(answer, Finished):
                finished.append(self._finish(answer))
            else:
                self._ready[answer.slot] = answer
        while len(self._ready) >= min(INFERENCE_BATCH, len(self._playing)) > 0:
            self._plan()
        return finished

    def _next(self, slot: int) -> None:
        if self.waiting:
            self._play(slot, self.waiting.pop(0))

    def _play(self, slot: int, seed: int) -> None:
        self._playing[slot] = seed
        self._plans.pop(slot, None)
        film = None if self.films is None else self.films / f"seed_{seed}.mp4"
        self.executor.send(Begin(slot, seed, film))

    def _finish(self, answer: Finished) -> EpisodeResult:
        seed = self._playing.pop(answer.slot)
        self.results[seed] = replace(answer.result, restarts=self._restarts.get(seed, 0))
        self._next(answer.slot)
        return self.results[seed]

    def _restart(self, lost: Lost) -> None:
        """Every slot of a dead worker begins its episode again, also those that waited for a chunk."""
        for slot in lost.slots:
            seed = self._playing[slot]
            self._ready.pop(slot, None)
            self._restarts[seed] = self._restarts.get(seed, 0) + 1
            if self._restarts[seed] > MAX_RESTARTS:
                raise WorkerError(
                    f"{lost.reason}; the episode of seed {seed} has lost its process "
                    f"{self._restarts[seed]} times"
                )
            _LOGGER.warning("%s; the episode of seed %d begins again", lost.reason, seed)
            self._play(slot, seed)

    def _plan(self) -> None:
        """One padded batch through the policy."""
        group = [self._ready.pop(slot) for slot in sorted(self._ready)[:INFERENCE_BATCH]]
        with self.profile.inference():
            chunks = self._chunks([*group, *[group[0]] * (INFERENCE_BATCH - len(group))])
        horizons = self.policy.policy_specs.horizons
        part = slice(horizons.action_start, horizons.action_start + horizons.action)
        for ready, chunk in zip(group, chunks):
            self._plans[ready.slot] = chunk
            self.executor.send(Advance(ready.slot, np.ascontiguousarray(chunk[part])))

    def _chunks(self, rows: list[Ready]) -> NDArray[np.float32]:
        specs = self.policy.policy_specs
        observation = {name: np.stack([r.window[name] for r in rows]) for name in rows[0].window}
        keys = [(self.noise_seed, self._playing[r.slot], r.step) for r in rows]
        noise = np.stack([draw_noise(specs, 1, keyed_rng(*key)) for key in keys])
        texts = tuple(r.instruction for r in rows)
        asks = getattr(self.policy, "sees_committed", False)
        prefix = committed([self._plans.get(r.slot) for r in rows], specs) if asks else None
        past = np.stack([r.past for r in rows])
        context = Context(texts if any(texts) else (), prefix, past)
        chunks: NDArray[np.float32] = self.policy.sample(observation, noise, context)[:, 0]
        return chunks
