"""The closed form of the quickest stop, beside trying every length and beside ruckig."""

from __future__ import annotations

import numpy as np
import pytest

from robopolicy.core.robot import Limits
from robopolicy.robots import load
from robopolicy.runtime.safety.stopping import TickLimits, plan_stop

RATES = [50.0, 100.0, 250.0, 500.0, 1000.0]


def smallest_by_trying(a: float, v: float, beta: float) -> int:
    """Fewest ticks whose reachable sums of accelerations, in jerk limits, hold -v."""
    n, room = int(np.ceil(abs(a))), 1e-9 * (1 + abs(v))
    while True:
        low = sum(max(-beta, a - i, i - n) for i in range(1, n + 1))
        high = sum(min(beta, a + i, n - i) for i in range(1, n + 1))
        if low - room <= -v <= high + room:
            return n
        n += 1


def test_no_shorter_stop_exists() -> None:
    rng = np.random.default_rng(0)
    for trial in range(600):
        beta = float(rng.choice([0.02, 0.1, 0.2, 0.5, 1, 1.5, 2, 4, 5, 10, np.exp(rng.uniform(-4, 4))]))
        a = float(rng.choice([-beta, 0.0, beta]) if trial % 3 == 0 else rng.uniform(-beta, beta))
        v = float(rng.uniform(-1, 1) * rng.choice([beta, 3 * beta**2, 10 * beta]))
        one = TickLimits(*(np.array([x]) for x in (1e9, beta, 1.0, beta)))
        stop, _ = plan_stop(np.array([v]), np.array([a]), one)
        assert stop.ticks[0] == smallest_by_trying(a, v, beta), (a, v, beta)


@pytest.mark.parametrize("name", ["fr3", "ur5e"])
@pytest.mark.parametrize("rate", RATES)
def test_its_path_keeps_the_limits_and_goes_as_far_as_it_says(name: str, rate: float) -> None:
    rng, limits = np.random.default_rng(1), load(name).limits
    tick, dim = TickLimits.of(limits, 1 / rate), len(limits.lower)
    for trial in range(20):
        v = rng.uniform(-1, 1, dim) * tick.velocity * (0.01 if trial % 4 == 1 else 1.0)
        a = rng.uniform(-1, 1, dim) * tick.acceleration * (0.0 if trial % 4 == 2 else 1.0)
        if trial % 5 == 0:
            v, a = np.sign(v) * tick.velocity, np.sign(a) * tick.acceleration
        stop, extent = plan_stop(v, a, tick)
        path = np.vstack([np.zeros(dim), stop.path(np.zeros(dim), v, tick)])
        velocity = np.diff(np.vstack([-v, path]), axis=0)
        acceleration = np.diff(velocity, axis=0)
        jerk = np.diff(np.vstack([a, acceleration, np.zeros(dim)]), axis=0)
        assert (np.abs(acceleration) <= tick.acceleration * (1 + 1e-7)).all()
        assert (np.abs(jerk) <= tick.jerk * (1 + 1e-6)).all()
        assert not velocity[-1].any()
        np.testing.assert_allclose(path.min(axis=0), extent.lowest, atol=1e-12)
        np.testing.assert_allclose(path.max(axis=0), extent.highest, atol=1e-12)
        np.testing.assert_allclose(np.abs(velocity).max(axis=0), extent.fastest, rtol=1e-9)
        step_by_step, at, speed = stop, np.zeros(dim), v
        for command in path[1:]:
            speed = step_by_step.next_velocity(speed, tick)
            at, step_by_step = at + speed, step_by_step.older()
            np.testing.assert_allclose(at, command, atol=1e-12)


def shortest_s(limits: Limits, d: int, velocity: float, acceleration: float) -> float:
    """Least time to rest in continuous time, by ruckig's velocity interface."""
    ruckig = pytest.importorskip("ruckig")
    request, trajectory = ruckig.InputParameter(1), ruckig.Trajectory(1)
    request.control_interface = ruckig.ControlInterface.Velocity
    request.current_position, request.current_velocity = [0.0], [velocity]
    request.current_acceleration = [acceleration]
    request.target_velocity, request.target_acceleration = [0.0], [0.0]
    request.max_acceleration, request.max_jerk = [limits.acceleration[d]], [limits.jerk[d]]
    assert ruckig.Ruckig(1).calculate(request, trajectory) >= 0
    return float(trajectory.duration)


@pytest.mark.parametrize("name", ["fr3", "ur5e"])
@pytest.mark.parametrize("rate", RATES[1:])
def test_a_stop_takes_no_more_than_ruckigs_and_the_rounding_to_ticks(name: str, rate: float) -> None:
    rng, limits = np.random.default_rng(2), load(name).limits
    tick, dim = TickLimits.of(limits, 1 / rate), len(limits.lower)
    for _ in range(30):
        speed, push = (rng.uniform(-1, 1, dim) * x for x in (limits.velocity, limits.acceleration))
        stop, _ = plan_stop(speed / rate, push / rate**2, tick)
        for d in range(dim):
            least = shortest_s(limits, d, speed[d], push[d])
            # The last tick of a stop only repeats its last command; the difference quotients of the first
            # ones still hold what was before.
            assert (stop.ticks[d] - 1) / rate <= least + 2.01 / rate
            if least > 20 / rate:
                assert stop.ticks[d] / rate <= 1.2 * least


def test_at_rest_there_is_nothing_to_stop() -> None:
    tick = TickLimits.of(load("fr3").limits, 0.01)
    stop, _ = plan_stop(np.zeros(8), np.zeros(8), tick)
    assert not stop.ticks.any() and stop.path(np.ones(8), np.zeros(8), tick).shape == (0, 8)
