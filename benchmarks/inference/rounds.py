"""Ways to get a chunk, timed in turns, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from inference.networks import Network
from inference.peer import Peer
from robopolicy.core.policy import Policy

#: Longest turn of one way, but at least one chunk [s].
TURN_S = 0.3


@dataclass
class Way:
    """One way to get a chunk.

    Args:
        take: given how often, the milliseconds of that many chunks; one more goes before where they are
            short, since other ways have filled the caches.
        ms: what was found so far.
    """

    network: str
    engine: str
    candidates: int
    threads: int
    take: Callable[[int], list[float]]
    ms: list[float] = field(default_factory=list)

    def turn(self, most: int) -> None:
        fits = max(1, int(TURN_S / (1e-3 * self.ms[-1]))) if self.ms else 1
        self.ms += self.take(min(most, fits))

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.ms, q))


def of_policy(
    network: Network,
    engine: str,
    policy: Policy,
    candidates: int,
    threads: int,
    *,
    torch_threads: bool = False,
) -> Way:
    """The whole path: physical observations to physical candidates."""
    observation, noise = network.inputs(candidates)

    def take(count: int) -> list[float]:
        if torch_threads:
            torch.set_num_threads(threads)
        times = []
        for _ in range(count + (count > 1)):
            started = time.perf_counter_ns()
            policy.sample(observation, noise)
            times.append((time.perf_counter_ns() - started) / 1e6)
        return times[-count:]

    return Way(network.name, engine, candidates, threads, take)


def of_peer(network: Network, peer: Peer, candidates: int, threads: int) -> Way:
    return Way(
        network.name,
        "LeRobot eager",
        candidates,
        threads,
        lambda count: peer.ask(network.name, candidates, threads, count),
    )


def measure(ways: Sequence[Way], rounds: int, most: int, also: Sequence[Callable[[], None]] = ()) -> None:
    """``rounds`` turns of every way, of at most ``most`` chunks each, and of ``also``; one more before."""
    for way in ways:
        way.turn(1)
    for _ in range(rounds):
        for way in ways:
            way.turn(most)
        for other in also:
            other()
    for way in ways:
        del way.ms[0]


def best(ways: Sequence[Way], engine: str, candidates: int) -> Way | None:
    """The number of threads that suits an engine best, by the median; None where it was not timed."""
    found = [way for way in ways if (way.engine, way.candidates) == (engine, candidates)]
    return min(found, key=lambda way: way.percentile(50)) if found else None
