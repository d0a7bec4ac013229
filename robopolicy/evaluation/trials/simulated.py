"""A simulated arm for trials: the real-time loop, the safety filter and a person's eyes, but no hardware."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy import robots
from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy.evaluation.environments import make_env_for
from robopolicy.evaluation.trials.protocol import Measured
from robopolicy.runtime import (
    ChunkScheduler,
    InferenceClient,
    RunConfig,
    SafetyConfig,
    SafetyFilter,
    SchedulerConfig,
    run_realtime,
)
from robopolicy.runtime.clock import monotonic_ns, sleep_until_ns
from robopolicy.runtime.control.preconditions import check_names, check_plant
from robopolicy.runtime.control.stop_signals import StopSignals

_CLOCK_JUMP_S = 0.5  # a simulated arm waits for its commands


class SimulatedArm:
    """Runs one of several policies against a task, in real time; also the camera of the trials.

    Every policy has its own inference client, all started before the first trial, and its own environment,
    since observations may differ; the seed gives all of them the same start.

    Args:
        task: with a plant, as ``lift``.
        clients: one per policy; not closed here.
        duration_s: longest run [s].
        stop: asked every tick, ends the run; for a person who has seen enough.
        clock, sleep_until: monotonic [ns].
    Raises:
        SpecError: a policy and the plant disagree; ConfigError: the environment has no plant.
    """

    def __init__(
        self,
        task: str,
        clients: Sequence[InferenceClient],
        *,
        duration_s: float,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], int] = monotonic_ns,
        sleep_until: Callable[[int], None] = sleep_until_ns,
        **options: Any,
    ) -> None:
        self._clients, self._duration_s, self._stop = clients, duration_s, stop
        self._clock, self._sleep_until = clock, sleep_until
        self._picture: NDArray[np.uint8] | None = None
        self._envs: list[Any] = []
        try:
            for client in clients:
                self._envs.append(make_env_for(task, client.policy_specs, render_mode="rgb_array", **options))
            if not all(hasattr(env, "plant") for env in self._envs):
                raise ConfigError(f"{task!r} has no plant: only our own tasks run in real time")
            self._plants = [env.plant(clock=clock) for env in self._envs]
            for plant, client in zip(self._plants, clients):
                check_plant(plant, client.policy_specs)
            self._robot = robots.load(self._envs[0].specs.robot)
            for client in clients:
                check_names(client.policy_specs, self._robot)
        except BaseException:
            self.close()
            raise

    @property
    def success_predicate(self) -> str:
        """The task's own words, for the report; empty where it has none."""
        return str(getattr(self._envs[0], "success_predicate", ""))

    def prepare(self, seed: int) -> None:
        """Set up the start that ``seed`` stands for, and take a picture of it."""
        self._envs[0].reset(seed=seed)
        try:
            self._picture = self._envs[0].render()
        except MissingDependencyError:  # nothing to draw with: the trials work without a picture
            self._picture = None

    def read(self) -> NDArray[np.uint8] | None:
        """The picture of the start; only the simulation's own thread can draw."""
        return self._picture

    def run(self, policy: int, seed: int) -> Measured:
        """From the start of ``seed`` until success, ``stop``, the end of the time, or a fault."""
        env, plant, client = self._envs[policy], self._plants[policy], self._clients[policy]
        env.reset(seed=seed)
        scheduler = ChunkScheduler(client.policy_specs, SchedulerConfig(), limits=self._robot.limits)
        safety = SafetyFilter(self._robot.limits, plant.control_rate, SafetyConfig.for_robot(self._robot))

        def on_tick(tick: int, deadline_ns: int, command: Any) -> str | None:
            return "success" if env.is_success else ("stopped" if self._stop() else None)

        config = RunConfig(self._duration_s, seed=seed, clock_jump_s=_CLOCK_JUMP_S)
        with StopSignals() as signals:
            result = run_realtime(
                plant,
                client,
                scheduler,
                safety,
                config,
                on_tick=on_tick,
                clock=self._clock,
                sleep_until=self._sleep_until,
            )
        # A signal, while braking too: the arm has come to rest, the trial does not count.
        if signals.received or result.reason == "interrupted":
            raise KeyboardInterrupt
        seconds = result.ticks / plant.control_rate
        return Measured(
            steps=round(seconds * client.policy_specs.specs.policy_rate),
            seconds=seconds,
            reason=result.reason,
            fault=result.fault,
            inference_ms=tuple(round(float(ns) * 1e-6, 3) for ns in result.inference_ns),
            action_hash=hashlib.sha256(np.ascontiguousarray(result.commands).tobytes()).hexdigest(),
        )

    def close(self) -> None:
        """Free the environments; calling twice is allowed."""
        while self._envs:
            self._envs.pop().close()

    def __enter__(self) -> SimulatedArm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
