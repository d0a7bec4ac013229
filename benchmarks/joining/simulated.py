"""Real-time runs in simulated time: the whole loop, with inference that takes as long as one says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy import robots
from robopolicy.core.geometry import Float
from robopolicy.core.policy import Policy
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import make_env_for
from robopolicy.runtime import (
    ChunkScheduler,
    Request,
    Response,
    RunConfig,
    SafetyConfig,
    SafetyFilter,
    SchedulerConfig,
    run_realtime,
)
from robopolicy.runtime.inference.client import answer
from robopolicy.runtime.scheduling.scheduler import Join


class DelayedClient:
    """Computes at once and answers after a delay of simulated time.

    Args:
        delay_ns: from observation to answer; an answer is taken up one control tick later at the earliest.
        chunks: keeps every answer, where given.
    """

    def __init__(self, policy: Policy, delay_ns: int, chunks: list[Float] | None = None) -> None:
        self._policy, self._delay_ns, self._chunks = policy, delay_ns, chunks
        self._next_id = 1
        self._pending: Response | None = None

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._policy.policy_specs

    def request(self, request: Request) -> int:
        candidates, error = answer(self._policy, request)
        if self._chunks is not None and candidates is not None:
            self._chunks.append(candidates[0].astype(np.float64))
        self._pending = Response(
            self._next_id, request.observation_time_ns, candidates, self._delay_ns, error
        )
        self._next_id += 1
        return self._next_id - 1

    def poll(self, now_ns: int) -> Response | None:
        response = self._pending
        if response is None or now_ns < response.observation_time_ns + self._delay_ns:
            return None
        self._pending = None
        return response


@dataclass(frozen=True)
class Run:
    """One episode.

    Args:
        references, commands: (n, action_dim) before and after the safety filter; braking at the end left out.
        time_ns: (n,) their instants.
        joins: chunks taken up.
        fault: why the run was stopped, a collision say; empty where it was not.
    """

    success: bool
    references: Float
    commands: Float
    time_ns: Any
    joins: tuple[Join, ...]
    scheduler: dict[str, int]
    fault: str


class Bench:
    """One environment, reset for every run.

    Args:
        task: with a plant.
        duration_s: longest run [s].
    """

    def __init__(self, task: str, policy: Policy, duration_s: float) -> None:
        self._policy, self._duration_s = policy, duration_s
        self._env: Any = make_env_for(task, policy.policy_specs)
        self.robot = robots.load(self._env.specs.robot)

    def run(
        self,
        seed: int,
        delay_s: float,
        config: SchedulerConfig,
        *,
        wrap: Callable[[ChunkScheduler], Any] = lambda scheduler: scheduler,
        chunks: list[Float] | None = None,
    ) -> Run:
        """An episode from the start of ``seed``; the policy's noise is keyed by it too."""
        env, specs = self._env, self._policy.policy_specs
        env.reset(seed=seed)
        plant = env.plant()

        def clock() -> int:
            return round(env.simulation.time * 1e9)

        scheduler = wrap(ChunkScheduler(specs, config, limits=self.robot.limits))
        safety = SafetyFilter(self.robot.limits, plant.control_rate, SafetyConfig.for_robot(self.robot))
        result = run_realtime(
            plant,
            DelayedClient(self._policy, round(delay_s * 1e9), chunks),
            scheduler,
            safety,
            RunConfig(self._duration_s, seed=seed),
            on_tick=lambda *_: "success" if env.is_success else None,
            clock=clock,
            sleep_until=lambda deadline_ns: None,
        )
        ticks = result.ticks
        return Run(
            success=result.reason == "success",
            references=result.references[:ticks],
            commands=result.commands[:ticks],
            time_ns=result.time_ns[:ticks],
            joins=scheduler.joins,
            scheduler=dict(result.scheduler),
            fault=result.reason if result.fault else "",
        )

    def close(self) -> None:
        self._env.close()
