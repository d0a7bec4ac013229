"""Record demonstrations by letting an expert act in a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robopolicy.core.errors import RobopolicyError
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.store import EpisodeStore


class UnstableEpisodeError(RobopolicyError):
    """The simulation broke down during an episode."""


class Demonstrator(Protocol):
    """Acts in an environment: a scripted expert, a person with a device."""

    def reset(self, env: Any, seed: int) -> None:
        """Attach to an environment that has just been reset; ``seed`` keys the demonstrator's own noise."""
        ...

    def act(self) -> NDArray[Any]:
        """The action to record for the present step."""
        ...

    def perturb(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action to execute instead; noise here widens the states that are seen."""
        ...

    # Optional: ``facts() -> dict[str, Any]``, JSON-able, of the episode since ``reset``; stored with it.


def record(
    env: Any,
    demonstrator: Demonstrator,
    store: EpisodeStore,
    seeds: Sequence[int],
    console: Console | None = None,
    *,
    keep_failures: bool = True,
) -> int:
    """Append one episode per seed; each is safe on disk before the next begins.

    Failed episodes are stored too, marked as such, or dropped; unstable ones are dropped with a message.

    Returns:
        How many of the episodes succeeded.
    Raises:
        StoreError: the disk refused an episode; those before it stay.
        KeyboardInterrupt: passed on; the unfinished episode is dropped, the finished ones stay.
    """
    columns = (
        TextColumn("recording"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
    )
    successes, unstable = 0, 0
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("record", total=len(seeds), status="")
        for count, seed in enumerate(seeds, start=1):
            try:
                episode = record_episode(env, demonstrator, seed)
            except UnstableEpisodeError as error:
                unstable += 1
                progress.console.print(f"[yellow]dropped:[/] {error}")
            else:
                if episode.success or keep_failures:
                    store.append(episode)
                successes += bool(episode.success)
            status = f"{successes}/{count} succeed" + (f", {unstable} unstable" if unstable else "")
            progress.update(task, advance=1, status=status)
    return successes


def record_episode(env: Any, demonstrator: Demonstrator, seed: int) -> Episode:
    """One episode in memory: observations before each action and after the last, at simulated time.

    Raises:
        UnstableEpisodeError: physics broke down.
    """
    observation, info = env.reset(seed=seed)
    conditions = info.get("conditions", {})
    demonstrator.reset(env, seed)
    frames: list[dict[str, NDArray[Any]]] = []
    actions, executed, rewards, times = [], [], [], []
    done = False
    while not done:
        frames.append(observation)
        times.append(round(info["time"] * 1e9))
        action = demonstrator.act()
        actions.append(np.asarray(action, dtype=np.float32))
        executed.append(np.asarray(demonstrator.perturb(action), dtype=np.float32))
        observation, reward, terminated, truncated, info = env.step(executed[-1])
        rewards.append(np.float32(reward))
        done = terminated or truncated
    if info.get("unstable", False):
        raise UnstableEpisodeError(f"physics became unstable while recording seed {seed}")
    facts = demonstrator.facts() if hasattr(demonstrator, "facts") else {}
    time_ns = np.array(times, dtype=np.int64)
    frames.append(observation)  # where the last action led; a critic needs it
    seen_ns = np.append(time_ns, round(info["time"] * 1e9))
    return Episode(
        observation={key: Signal(np.stack([f[key] for f in frames]), seen_ns) for key in frames[0]},
        action=Signal(np.stack(actions), time_ns),
        extra={
            "executed_action": Signal(np.stack(executed), time_ns),
            "reward": Signal(np.stack(rewards), time_ns),
        },
        instruction=getattr(env, "instruction", ""),
        success=bool(info.get("is_success", False)),
        seed=seed,
        clock="simulation",
        metadata={"demonstrator": type(demonstrator).__name__, **facts, "conditions": conditions},
    )
