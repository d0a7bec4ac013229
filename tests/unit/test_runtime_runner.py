"""The control loop on a fake clock: what is sent when, and how it ends."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from robopolicy.core.errors import ConfigError, SpecError, WorkerError
from robopolicy.core.horizons import Horizons
from robopolicy.core.plant import Stamped
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.core.robot import Limits
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.runtime import (
    ChunkScheduler,
    LocalClient,
    Request,
    Response,
    RunConfig,
    RunResult,
    SafetyFilter,
    run_realtime,
)

MS = 1_000_000
ACTION = ActionSpec((ActionPart("joint_position", ("a", "b")), ActionPart("gripper_opening", ("grip",))))
SPECS = PolicySpecs(Specs({"q": ArraySpec((3,))}, ACTION, policy_rate=10.0), Horizons(2, 16, 8), (1,))
LIMITS = Limits(
    lower=np.array([-2.0, -2.0, 0.0]),
    upper=np.array([2.0, 2.0, 0.08]),
    velocity=np.array([2.0, 2.0, 0.1]),
    acceleration=np.array([10.0, 10.0, 2.0]),
    jerk=np.array([5000.0, 5000.0, 500.0]),
)


class FakeTime:
    """A clock that only moves when somebody sleeps, or takes time."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def clock(self) -> int:
        return self.now_ns

    def sleep_until(self, deadline_ns: int) -> None:
        self.now_ns = max(self.now_ns, deadline_ns + 20_000)  # a little late, as any sleep


class FakePlant:
    """Goes where it is told at once."""

    def __init__(self, time: FakeTime, specs: Specs = SPECS.specs) -> None:
        self._time, self._specs = time, specs
        self.position = np.array([0.1, -0.1, 0.04])
        self.sent: list[np.ndarray] = []
        self.command_ns = 300_000

    @property
    def specs(self) -> Specs:
        return self._specs

    @property
    def control_rate(self) -> float:
        return 100.0

    def observe(self) -> dict[str, Stamped]:
        return {"q": Stamped(self.position.astype(np.float32), self._time.now_ns)}

    def measured(self) -> np.ndarray:
        return self.position.copy()

    def command(self, position: np.ndarray) -> None:
        self._time.now_ns += self.command_ns
        self.position = position.copy()
        self.sent.append(position)


class Ramp:
    """A policy that moves on by 0.05 rad a step from where it is, and can be told to fail."""

    def __init__(self) -> None:
        self.broken = False
        self.ahead = 0  # steps it is off by

    @property
    def policy_specs(self) -> PolicySpecs:
        return SPECS

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        steps = np.arange(16)[None, None, :, None] + self.ahead  # action 1 belongs to the current one
        chunk = observation["q"][:, None, -1:, :] + steps * np.array([0.05, -0.05, 0.0])
        chunk = np.broadcast_to(chunk, (*noise.shape[:2], 16, 3)).astype(np.float32)
        return np.full_like(chunk, np.nan) if self.broken else chunk


class SlowClient(LocalClient):
    """Answers after a while, dies when told to."""

    def __init__(self, policy: Ramp, time: FakeTime, delay_ns: int = 45 * MS) -> None:
        super().__init__(policy, time.clock)
        self._time, self._delay_ns, self._ready_ns = time, delay_ns, 0
        self.requests: list[Request] = []
        self.dead = False

    def request(self, request: Request) -> int:
        self.requests.append(request)
        self._ready_ns = self._time.now_ns + self._delay_ns
        return super().request(request)

    def poll(self, now_ns: int) -> Response | None:
        if self.dead:
            raise WorkerError("inference worker 1 ended with status -9")
        return super().poll(now_ns) if now_ns >= self._ready_ns else None


class Rig:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.plant, self.policy = FakePlant(self.time), Ramp()
        self.client = SlowClient(self.policy, self.time)
        self.scheduler, self.safety = ChunkScheduler(SPECS), SafetyFilter(LIMITS, 100.0)

    def run(self, duration_s: float = 3.0, on_tick: object = None, **options: int) -> RunResult:
        return run_realtime(
            self.plant,
            self.client,
            self.scheduler,
            self.safety,
            RunConfig(duration_s, seed=5, episode=2, **options),
            on_tick=on_tick,
            clock=self.time.clock,
            sleep_until=self.time.sleep_until,
        )


def assert_stopped(plant: FakePlant, *, since: int = 0) -> None:
    np.testing.assert_allclose(plant.sent[-1], plant.sent[-2], rtol=0, atol=1e-14)
    velocity = np.diff(plant.sent[since:], axis=0) / 0.01
    acceleration = np.diff(velocity, axis=0) / 0.01
    assert (np.abs(velocity) <= LIMITS.velocity * (1 + 1e-6)).all()
    assert (np.abs(acceleration) <= LIMITS.acceleration * (1 + 1e-6)).all()


def test_runs_for_its_time_and_logs_every_tick() -> None:
    rig = Rig()
    result = rig.run(3.0)
    assert (result.reason, result.fault, result.ticks, result.missed_ticks) == ("duration", False, 300, 0)
    assert len(result.commands) == len(rig.plant.sent) == len(result.lateness_ns) == len(result.busy_ns)
    assert (result.lateness_ns == 20_000).all() and result.lateness_ms(99) == pytest.approx(0.02)
    assert np.array_equal(np.diff(result.time_ns), np.full(len(result.time_ns) - 1, 10 * MS))
    assert (result.busy_ns == 300_000).all()
    assert_stopped(rig.plant)


def test_asks_every_action_horizon_with_keyed_noise() -> None:
    rig = Rig()
    result = rig.run(3.0)
    times = np.diff([request.observation_time_ns for request in rig.client.requests])
    assert np.array_equal(times, np.full(3, 800 * MS))
    assert [request.noise_key for request in rig.client.requests] == [(5, 2, k) for k in range(4)]
    assert len(result.delay_ns) == len(result.inference_ns) == 4
    assert (result.delay_ns > 45 * MS).all() and (result.delay_ns < 60 * MS).all()
    assert result.scheduler["starved_ticks"] == 0 and result.scheduler["accepted_chunks"] == 4


def test_follows_the_policy_on_time() -> None:
    """Ramp means 0.5 rad/s; an arm that stood still begins with a chunk's beginning."""
    rig = Rig()
    result = rig.run(3.0)
    velocity = np.diff(result.commands[50:300], axis=0) / 0.01
    np.testing.assert_allclose(velocity[:, 0], 0.5, atol=0.03)
    np.testing.assert_array_equal(result.commands[50:300], result.references[50:300])


def test_the_command_at_the_end_of_each_interval_is_the_action() -> None:
    """Of the second chunk, which was asked for while moving, at policy step 8."""
    rig = Rig()
    result = rig.run(1.7)
    observed = result.commands[79]  # where the arm was at tick 80
    for step in range(11, 16):  # the tick sent 10 ms before observation step + 1
        sent = result.commands[(step + 1) * 10 - 1]
        np.testing.assert_allclose(sent[0], observed[0] + 0.05 * (step + 1 - 8), atol=1e-3)


def test_on_tick_ends_the_run() -> None:
    rig = Rig()
    result = rig.run(on_tick=lambda tick, deadline_ns, command: "success" if tick == 120 else None)
    assert (result.reason, result.ticks, result.fault) == ("success", 121, False)
    assert result.interventions["brake"] == len(result.commands) - 121 > 0
    assert_stopped(rig.plant)


def test_a_dead_worker_brakes_at_once_and_says_so() -> None:
    rig = Rig()

    def kill(tick: int, deadline_ns: int, command: np.ndarray) -> None:
        rig.client.dead = tick >= 100

    result = rig.run(on_tick=kill)
    assert result.fault and "ended with status -9" in result.reason
    assert result.ticks == 101
    assert len(result.commands) - 101 <= 6 + 1  # 0.5 rad/s at 10 rad/s^2, and one to be at rest
    assert_stopped(rig.plant)


def test_a_silent_worker_leaves_the_arm_at_rest() -> None:
    rig = Rig()
    rig.client._delay_ns = 10**18
    rig.client._ready_ns = 0
    result = rig.run(2.0)
    assert np.array_equal(result.commands, np.tile(result.commands[0], (200, 1)))
    assert result.reason == "duration" and not len(result.inference_ns)
    assert np.isnan(result.inference_ms(50))


def test_bad_chunks_are_counted_and_end_the_run_when_they_go_on() -> None:
    rig = Rig()

    def break_policy(tick: int, deadline_ns: int, command: np.ndarray) -> None:
        rig.policy.broken = tick >= 100

    result = rig.run(5.0, on_tick=break_policy, max_failures=3)
    assert result.fault and "3 inferences failed in a row" in result.reason
    assert len(result.failed_inferences) == 3 and "non-finite" in result.failed_inferences[0]
    assert np.isfinite(result.commands).all()
    assert_stopped(rig.plant)


def test_a_hold_up_skips_ticks_and_never_bursts() -> None:
    rig = Rig()

    def hold_up(tick: int, deadline_ns: int, command: np.ndarray) -> None:
        if tick == 50:
            rig.time.now_ns += 47 * MS

    result = rig.run(1.0, on_tick=hold_up)
    assert result.missed_ticks == 4 - 1
    assert result.time_ns[51] - result.time_ns[50] == 40 * MS
    assert (np.diff(result.time_ns)[51:99] == 10 * MS).all()
    rig.plant.sent[51:51] = [rig.plant.sent[50]] * 3  # where the arm stood meanwhile
    assert_stopped(rig.plant, since=51)


def test_interruption_brakes() -> None:
    rig = Rig()

    def interrupt(tick: int, deadline_ns: int, command: np.ndarray) -> None:
        if tick == 100:
            raise KeyboardInterrupt

    result = rig.run(on_tick=interrupt)
    assert (result.reason, result.ticks) == ("interrupted", 101)
    assert len(result.busy_ns) == len(result.commands)
    assert_stopped(rig.plant)


def test_a_failing_driver_is_not_hidden_and_garbage_collection_comes_back() -> None:
    rig = Rig()

    def fail(position: np.ndarray) -> None:
        raise OSError("the cable is out")

    rig.plant.command = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="cable"):
        rig.run()
    assert gc.isenabled()


def test_a_plant_that_does_not_fit_is_refused() -> None:
    rig = Rig()
    rig.plant._specs = Specs({"q": ArraySpec((2,))}, ACTION, policy_rate=10.0)
    with pytest.raises(SpecError, match="'q'"):
        rig.run()
    other = ActionSpec((ActionPart("joint_position", ("a", "b", "c")),))
    rig.plant._specs = Specs({"q": ArraySpec((3,))}, other, policy_rate=10.0)
    with pytest.raises(SpecError, match="commands"):
        rig.run()


def test_more_candidates_than_the_client_has_room_for_are_refused_before_anything_moves() -> None:
    rig = Rig()
    rig.client.max_candidates = 2  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"1\.\.2, got 3"):
        rig.run(num_candidates=3)
    assert not rig.plant.sent
    assert rig.run(0.3, num_candidates=2).reason == "duration"


def test_what_a_request_has_no_room_for_is_refused() -> None:
    for bad in ({"seed": 2**63}, {"episode": 2**63}, {"instruction": "ü" * 257}, {"instruction": "a\0"}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            RunConfig(1.0, **bad)  # type: ignore[arg-type]
    assert RunConfig(1.0, seed=2**63 - 1, instruction="ü" * 256).clock_jump_s == 0.0
    with pytest.raises(ConfigError, match="clock_jump_s"):
        RunConfig(1.0, clock_jump_s=-0.1)
