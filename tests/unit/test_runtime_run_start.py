"""How a real-time run begins, and what must not get into it; the fakes are those of test_runtime_runner."""

from __future__ import annotations

import numpy as np
import pytest
from test_runtime_runner import ACTION, LIMITS, MS, SPECS, FakeTime, Ramp, Rig, assert_stopped

from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons
from robopolicy.core.plant import Stamped
from robopolicy.core.specs import ActionSpec, PolicySpecs, Specs
from robopolicy.runtime import ChunkScheduler, LocalClient, Response, RunConfig, SafetyFilter


class LateClient(LocalClient):
    """Hands the first answer out again, as a worker that was busy when the last run ended does."""

    def __init__(self, policy: Ramp, time: FakeTime) -> None:
        super().__init__(policy, time.clock)
        self.stale: Response | None = None
        self.answered: list[Response] = []

    def poll(self, now_ns: int) -> Response | None:
        if self.stale is not None:
            stale, self.stale = self.stale, None
            return stale
        response = super().poll(now_ns)
        self.answered += [response] if response is not None else []
        return response


@pytest.mark.parametrize("tick", [0, 1])  # before the new run's first request, and while it is answered
def test_an_answer_to_the_run_before_is_dropped(tick: int) -> None:
    rig, other = Rig(), Rig()
    for r in (rig, other):
        r.client = LateClient(r.policy, r.time)
        r.run(1.0)
        r.time.now_ns += 100 * MS
    before = rig.plant.position.copy()

    def late(at: int, deadline_ns: int, command: np.ndarray) -> None:
        if at == tick - 1:
            rig.client.stale = stale

    old = rig.client.answered[0]
    # The scheduler was reset, so that its stamp passes for new: it is the id that tells.
    stale = Response(
        old.request_id, rig.time.now_ns - 500 * MS, old.candidates + np.float32(1.0), old.inference_ns
    )
    if tick == 0:
        rig.client.stale = stale
    result, expected = rig.run(1.0, on_tick=late), other.run(1.0)
    assert result.stale_responses == 1 and expected.stale_responses == 0
    assert np.abs(result.commands[:5] - before).max() < 0.05
    assert rig.scheduler.delay_p95_ns < 50 * MS
    assert len(result.delay_ns) == len(result.inference_ns) == result.scheduler["accepted_chunks"]
    # A tick later at most, since the drop takes the place of the answer.
    assert np.abs(result.commands[:100] - expected.commands[:100]).max() < 0.05


@pytest.mark.parametrize("ahead", [30, -30])
def test_a_first_chunk_far_away_is_approached_from_rest_without_a_jump(ahead: int) -> None:
    rig = Rig()
    rig.policy.ahead = ahead  # 30 steps are 1.5 rad
    start = rig.plant.measured()
    result = rig.run(1.0)
    assert np.array_equal(result.commands[0], start)  # nothing moves before a chunk has come
    rig.plant.sent[:0] = [start, start]
    assert_stopped(rig.plant)
    assert {"velocity", "acceleration"} <= set(result.interventions)


def test_an_arm_measured_outside_its_limits_is_brought_in_gently() -> None:
    rig = Rig()
    rig.plant.position = start = np.array([2.01, -2.02, 0.0803])
    rig.client._delay_ns = 10**18  # no chunk ever
    result = rig.run(1.0)
    rig.plant.sent[:0] = [start, start]
    assert_stopped(rig.plant)
    assert (np.abs(np.diff(result.commands, axis=0)[0]) > 0).all() and result.interventions["position"]
    np.testing.assert_allclose(result.commands[-1], [2.0, -2.0, 0.08], atol=1e-9)


def test_a_bad_observation_is_a_fault_and_brakes() -> None:
    rig = Rig()
    observe = rig.plant.observe

    def blind() -> dict[str, Stamped]:
        seen = observe()["q"]
        return {"q": Stamped(seen.value * (np.nan if len(rig.plant.sent) > 100 else 1), seen.time_ns)}

    rig.plant.observe = blind  # type: ignore[method-assign]
    result = rig.run(3.0)
    assert result.fault and "'q' has non-finite values" in result.reason
    assert result.interventions["brake"] > 0
    assert_stopped(rig.plant)


def test_what_on_tick_raises_comes_out_after_braking() -> None:
    rig = Rig()

    def fail(tick: int, deadline_ns: int, command: np.ndarray) -> None:
        if tick == 100:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        rig.run(on_tick=fail)
    assert len(rig.plant.sent) > 101
    assert_stopped(rig.plant)


def test_parts_made_for_something_else_are_refused() -> None:
    rig = Rig()
    rig.safety = SafetyFilter(LIMITS, 1000.0)
    with pytest.raises(ConfigError, match=r"1000\.0 Hz"):
        rig.run()
    rig = Rig()
    rig.scheduler = ChunkScheduler(PolicySpecs(SPECS.specs, Horizons(2, 16, 4), (1,)))
    with pytest.raises(ConfigError, match="scheduler was made for"):
        rig.run()
    for bad in ({"seed": -1}, {"episode": -1}, {"num_candidates": 0}, {"max_failures": 0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            RunConfig(1.0, **bad)


def test_when_a_policy_step_is_reached_does_not_concern_the_plant() -> None:
    rig = Rig()
    logged = ActionSpec(ACTION.parts, reached="start")
    rig.plant._specs = Specs(SPECS.specs.observation, logged, policy_rate=10.0)
    assert rig.run(0.5).reason == "duration"
