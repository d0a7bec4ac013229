"""A control loop on an injected clock whose every part can be made to fail; for test_faults_*.

The fakes are those of test_runtime_runner, moving at 1 rad/s.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import ruckig
from test_runtime_runner import ACTION, LIMITS, MS, FakePlant, FakeTime, Ramp, SlowClient

from robopolicy.core.errors import WorkerError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.plant import Stamped
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.core.specs import ArraySpec, PolicySpecs, Specs
from robopolicy.runtime import (
    ChunkScheduler,
    Request,
    Response,
    RunConfig,
    RunResult,
    SafetyFilter,
    run_realtime,
)
from robopolicy.runtime.control.monitors import Monitors
from robopolicy.runtime.inference.channel import READY, Status
from robopolicy.runtime.inference.client import WorkerRestartError
from robopolicy.runtime.inference.watch import Watch

TICK, PERIOD = 10 * MS, 100 * MS
AT = 100  # the tick after which things go wrong
NEVER = 10**18
OBSERVATION = {"q": ArraySpec((3,)), "camera": ArraySpec((2, 2, 3), "uint8", kind="image")}
SPECS = PolicySpecs(Specs(OBSERVATION, ACTION, policy_rate=10.0), Horizons(2, 16, 8), (1,))
RANGES = Affine((0.0, 0.0, 0.04), (2.0, 2.0, 0.04))
NORMALISERS = Normalisers({"q": RANGES}, RANGES)


class Fast(Ramp):
    """1 rad/s, or another speed; its chunks can be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.speed = 2.0  # times that of Ramp
        self.spoil: Callable[[Float32], Float32] = lambda chunk: chunk

    @property
    def policy_specs(self) -> PolicySpecs:
        return SPECS

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        base = observation["q"][:, None, -1:, :]
        return self.spoil(base + self.speed * (super().sample(observation, noise) - base))


class Eyes(FakePlant):
    """A camera with noise, and sensors that can stand still."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__(time, SPECS.specs)
        self.frozen = self.stuck = ""
        self.far = 1.0

    def observe(self) -> dict[str, Stamped]:
        now_ns = self._time.now_ns
        self._stamp_ns = self._stamp_ns if self.frozen else now_ns
        picture = np.full((2, 2, 3), now_ns // MS % 251, dtype=np.uint8)
        if self.stuck == "pixels":
            picture[:] = 7
        values = {"q": self.position.astype(np.float32) * np.float32(self.far), "camera": picture}
        return {
            name: Stamped(value, self._stamp_ns if name == self.frozen else now_ns)
            for name, value in values.items()
        }

    def measured(self) -> np.ndarray:
        self._measured = self._measured if self.stuck == "joints" else super().measured()
        return self._measured


class Watched(SlowClient):
    """With a worker's signs of life, watched as ``WorkerClient`` does."""

    def __init__(self, policy: Ramp, time: FakeTime) -> None:
        super().__init__(policy, time)
        self._watch = Watch(stale_ns=75 * MS, hang_ns=PERIOD, hang_factor=3.0)
        self.stopped = False  # the process; no heartbeat
        self.restarting = 0  # polls until its successor is ready
        self.asked_ns = self._beat_ns = 0

    def request(self, request: Request) -> int:
        self.asked_ns = self._time.now_ns
        return super().request(request)

    def poll(self, now_ns: int) -> Response | None:
        if self.restarting:
            self.restarting -= 1
            self._response = None
            raise WorkerRestartError("inference worker 7 ended with status -9")
        self._beat_ns = self._beat_ns if self.stopped else now_ns
        answered = len(self.requests) - (self._response is not None)
        status = Status(self._beat_ns, READY, 2 * answered, answered, 0)
        wrong = self._watch.look(status, len(self.requests), now_ns)
        if wrong:
            raise WorkerError(f"inference worker 7 {wrong}")
        return super().poll(now_ns)


class Switch:
    """A deadman switch."""

    pressed = True

    def held(self, now_ns: int) -> bool:
        return self.pressed


class FaultRig:
    def __init__(self, monitors: Monitors | None = None) -> None:
        self.time = FakeTime()
        self.plant, self.policy = Eyes(self.time), Fast()
        self.client = Watched(self.policy, self.time)
        self.scheduler, self.safety = ChunkScheduler(SPECS), SafetyFilter(LIMITS, 100.0)
        self.monitors = monitors or Monitors(SPECS, normalisers=NORMALISERS, limits=LIMITS)
        self.deadman = Switch()
        self.failed_ns = 0

    def run(
        self, happens: Callable[[FaultRig], None], duration_s: float = 1.9, **config: object
    ) -> RunResult:
        """``happens`` right after tick ``AT``; its instant is kept in ``failed_ns``."""

        def on_tick(tick: int, deadline_ns: int, command: np.ndarray) -> None:
            if tick == AT:
                self.failed_ns = self.time.now_ns
                happens(self)

        return run_realtime(
            self.plant,
            self.client,
            self.scheduler,
            self.safety,
            RunConfig(duration_s, **config),  # type: ignore[arg-type]
            monitors=self.monitors,
            deadman=self.deadman,
            on_tick=on_tick,
            clock=self.time.clock,
            sleep_until=self.time.sleep_until,
        )


def quickest_stop_s(sent: list[np.ndarray], first: int) -> float:
    """Ruckig's time-optimal stop from the velocity and acceleration before ``sent[first]`` [s]."""
    dt, velocity = TICK * 1e-9, np.diff(sent, axis=0) / (TICK * 1e-9)
    given = ruckig.InputParameter(3)
    given.control_interface = ruckig.ControlInterface.Velocity
    given.current_position = sent[first - 1].tolist()
    given.current_velocity = velocity[first - 2].tolist()
    given.current_acceleration = ((velocity[first - 2] - velocity[first - 3]) / dt).tolist()
    given.target_velocity = given.target_acceleration = [0.0] * 3
    given.max_acceleration, given.max_jerk = LIMITS.acceleration.tolist(), LIMITS.jerk.tolist()
    trajectory = ruckig.Trajectory(3)
    assert ruckig.Ruckig(3, dt).calculate(given, trajectory) >= 0
    return float(trajectory.duration)


def stopping_ticks(sent: list[np.ndarray], first: int) -> tuple[int, int]:
    """Ticks from ``sent[first]``, the first braking command, to the first that repeats the one before, and
    the most it may be: 1.2 times the quickest stop, in whole ticks."""
    still = np.abs(np.diff(sent, axis=0)).max(axis=1) < 1e-11
    rest = next(i for i in range(first, len(sent)) if still[i - 1 :].all())
    return rest - first + 1, math.ceil(1.2 * quickest_stop_s(sent, first) / (TICK * 1e-9))
