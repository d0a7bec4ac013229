"""Where the time of an evaluation goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter


@dataclass
class Profile:
    """Counters that ``evaluate`` fills; times are summed over processes [s].

    Args:
        steps: policy steps taken in all environments.
        wall: of the whole evaluation, by the clock; ``startup`` of it until the first environment answered.
        physics, render: inside the environments; ``environment`` is the rest of them (observations,
            rewards), and all of it where an environment does not tell its ``timings``.
        policy: in inference. ``inferences`` holds each call's share for one batch [s].
    """

    steps: int = 0
    wall: float = 0.0
    startup: float = 0.0
    physics: float = 0.0
    render: float = 0.0
    environment: float = 0.0
    policy: float = 0.0
    inferences: list[float] = field(default_factory=list)

    @property
    def steps_per_s(self) -> float:
        """Policy steps of all environments per second by the clock, start-up apart."""
        running = self.wall - self.startup
        return self.steps / running if running > 0 else 0.0

    def shares(self) -> dict[str, float]:
        """Fraction of the summed time in physics, render, environment and policy; zeros before any work."""
        parts = {
            "physics": self.physics,
            "render": self.render,
            "environment": self.environment,
            "policy": self.policy,
        }
        total = sum(parts.values())
        return {name: (value / total if total else 0.0) for name, value in parts.items()}

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Time one batch through the policy."""
        start = perf_counter()
        yield
        self.inferences.append(perf_counter() - start)
        self.policy += self.inferences[-1]

    def add(self, steps: int, physics: float, render: float, total: float) -> None:
        """What one environment did: ``total`` seconds, of which some are known to be physics and render."""
        self.steps += steps
        self.physics += physics
        self.render += render
        self.environment += max(total - physics - render, 0.0)

    def describe(self) -> str:
        """One line for people."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares().items())
        return f"{self.steps} steps in {self.wall:.1f} s: {self.steps_per_s:.0f} steps/s ({shares})"
