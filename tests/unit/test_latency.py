"""The latency model: what is late, by how much, in what order; and that moments of it can be restored."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulator is not installed")
pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from robopolicy_sim.randomisation import Latency
from robopolicy_sim.randomisation.actuation import ImperfectPath
from robopolicy_sim.randomisation.delays import Delay
from robopolicy_sim.rendering import create_context
from robopolicy_sim.tasks.lift import LiftEnv


def fixed(delay=0.0, jitter=0.0, seed=0, length=1000):
    return Delay(delay, jitter, ticks_per_step=10, length=length, rng=np.random.default_rng(seed))


def path(delay=0.0, *, jitter=0.0, width=0.0, noise=None):
    made = ImperfectPath(
        fixed(delay, jitter), np.zeros((1, 1)) if noise is None else noise, np.array([width])
    )
    made.reset(np.zeros(1))
    return made


def run(made, commands):
    return np.array([made.advance(np.array([c]))[0] for c in commands])


def ramp(env, steps, size=0.05):
    """Move joint 1 at a steady speed; the observations that step returns."""
    action, seen = env.simulation.last_command.copy(), []
    for _ in range(steps):
        action[0] += size
        seen.append(env.step(action)[0])
    return seen


# Delays by themselves.


def test_commands_arrive_whole_ticks_later():
    sent = np.sin(np.arange(50))
    for ticks in (0, 1, 3, 15):
        arrived = run(path(ticks / 100), sent)
        np.testing.assert_array_equal(arrived[:ticks], 0.0)  # the robot stands still as at the reset
        np.testing.assert_array_equal(arrived[ticks:], sent[: len(sent) - ticks])


def test_fractions_of_a_tick_are_interpolated():
    sent = np.arange(1.0, 31.0)
    arrived = run(path(0.0235), sent)
    np.testing.assert_allclose(arrived[5:], sent[5:] - 2.35)


def test_jitter_changes_the_delay_each_step_and_never_the_order():
    sent = np.arange(1.0, 501.0)
    arrived = run(path(0.05, jitter=0.02), sent)
    ages = sent - arrived
    assert np.all(np.diff(arrived) >= 0)
    assert np.std(ages[50:]) > 0.5 and 3 < ages[50:].mean() < 9
    starts = ages[10::10]
    assert len(np.unique(np.round(starts, 6))) > 10
    np.testing.assert_array_equal(arrived, run(path(0.05, jitter=0.02), sent))


def test_a_dead_band_trails_by_half_its_width_and_remembers():
    there = np.concatenate([np.linspace(0, 1, 101), np.linspace(1, 0, 101)])
    servo = run(path(width=0.2), there)
    np.testing.assert_allclose(servo[:10], 0.0)  # nothing until half the width is taken up
    np.testing.assert_allclose(servo[20:101], there[20:101] - 0.1)
    np.testing.assert_allclose(servo[101:120], servo[100])  # and the whole width on the way back
    np.testing.assert_allclose(servo[122:], there[122:] + 0.1)


def test_noise_is_added_after_the_delay_and_begins_anew():
    noise = np.array([[0.5], [-0.25]])
    np.testing.assert_allclose(run(path(0.01, noise=noise), [1.0, 2.0, 3.0]), [0.5, 0.75, 2.5])


def test_a_path_can_be_taken_back():
    made = path(0.043, jitter=0.01, width=0.05)
    run(made, np.arange(30.0))
    moment = made.state()
    first = run(made, np.cos(np.arange(40.0)))
    made.restore(moment)
    np.testing.assert_array_equal(first, run(made, np.cos(np.arange(40.0))))


def test_negative_delays_are_refused():
    with pytest.raises(ConfigError, match=r"-0\.1"):
        fixed(-0.1)


# In an environment.


@pytest.fixture
def lift():
    made = []

    def make(**options):
        made.append(LiftEnv(**options))
        made[-1].reset(seed=0)
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.mark.parametrize("kind", ["inference", "actuation"])
def test_delayed_commands_give_the_same_motion_later(lift, kind):
    prompt, late = lift(), lift(latency={kind: 0.05})
    target = prompt.simulation.last_command.copy()
    moved = {0: [], 1: []}
    for tick in range(60):
        target[0] += 0.004 * (tick < 40)
        for which, env in enumerate((prompt, late)):
            env.command(target)
            moved[which].append(env.simulation.measured()[0])
    np.testing.assert_allclose(moved[1][5:], moved[0][:-5], atol=2e-5)
    np.testing.assert_array_equal(late.simulation.last_command, prompt.simulation.last_command)


def test_delayed_observations_show_the_past(lift):
    now, late = lift(), lift(latency={"observation": 0.1})
    first = now.observation()
    seen, delayed = ramp(now, 8), ramp(late, 8)
    for name in first:
        np.testing.assert_allclose(delayed[0][name], first[name], atol=1e-7)
        for k in range(1, 8):
            np.testing.assert_allclose(delayed[k][name], seen[k - 1][name], atol=1e-7)
    assert late.observation_age == pytest.approx(0.1)
    # Experts and the task look at the present.
    np.testing.assert_array_equal(late.observation()["joint_position"], seen[-1]["joint_position"])


def test_observations_between_two_ticks_are_interpolated(lift):
    prompt = lift()
    measured = [prompt.simulation.measured()[0]]
    target = prompt.simulation.last_command.copy()
    for _ in range(50):
        target[0] += 0.005
        prompt.command(target)
        measured.append(prompt.simulation.measured()[0])
    late = lift(latency={"observation": 0.0275})
    seen = ramp(late, 5)
    for k in range(1, 6):
        expected = np.interp(10 * k - 2.75, range(51), measured)
        assert seen[k - 1]["joint_position"][0] == pytest.approx(expected, abs=2e-4)
        assert abs(expected - measured[10 * k]) > 5e-3


def test_observing_late_changes_nothing(lift):
    plain, late = lift(), lift(latency={"observation": 0.0333, "jitter_observation": 0.01})
    ramp(plain, 10), ramp(late, 10)
    np.testing.assert_array_equal(plain.snapshot().physics.physics, late.snapshot().physics.physics)
    np.testing.assert_array_equal(plain.observation()["cube_pose"], late.observation()["cube_pose"])
    assert plain.reward() == late.reward()


def test_pictures_are_of_the_same_past_as_the_state():
    try:
        create_context(8, 8).free()
    except MissingDependencyError as error:
        pytest.skip(f"no OpenGL: {error}")
    shots = []
    for latency in (None, {"observation": 0.1}):
        env = LiftEnv(observation_mode="image", image_size=(32, 32), latency=latency)
        first = env.reset(seed=0)[0]
        shots.append([first, *ramp(env, 3, size=0.2)])
        env.close()
    for k in range(3):
        np.testing.assert_array_equal(shots[1][k + 1]["scene_camera"], shots[0][k]["scene_camera"])
    assert not np.array_equal(shots[0][0]["scene_camera"], shots[0][3]["scene_camera"])


def test_delays_are_drawn_per_episode_and_recorded(lift):
    gaussian = {"normal": {"mean": 0.04, "std": 0.01, "low": 0.0, "high": 0.1}}
    env = lift(latency={"observation": gaussian, "inference": 0.02, "actuation": [0.0, 0.05]})
    drawn = [env.reset(seed=s)[1]["conditions"] for s in range(200)]
    assert {tuple(d) for d in drawn} == {("delay_observation", "delay_inference", "delay_actuation")}
    observed = np.array([d["delay_observation"] for d in drawn])
    assert observed.mean() == pytest.approx(0.04, abs=0.003) and observed.std() == pytest.approx(
        0.01, abs=0.002
    )
    assert {d["delay_inference"] for d in drawn} == {0.02}
    assert env.reset(seed=7)[1]["conditions"] == drawn[7]


def test_moments_of_a_delayed_episode_can_be_restored(lift):
    env = lift(latency={"observation": 0.035, "actuation": 0.025, "jitter_command": 0.005})
    ramp(env, 4)
    moment = env.snapshot()
    first = ramp(env, 5)
    ramp(env, 3)
    env.restore(moment)
    for one, two in zip(first, ramp(env, 5), strict=True):
        assert all(np.array_equal(one[k], two[k]) for k in one)


def test_a_refused_tick_leaves_the_delayed_commands_as_they_were(lift):
    env = lift(latency={"actuation": 0.03})
    ramp(env, 2)
    sound = env.snapshot()
    env.simulation.data.qvel[0] = 1e12
    assert env.step(env.simulation.last_command.copy())[4]["unstable"]
    env.restore(sound)
    first = ramp(env, 3)
    env.restore(sound)
    assert all(np.array_equal(a["ee_pose"], b["ee_pose"]) for a, b in zip(first, ramp(env, 3), strict=True))


def test_the_plant_stamps_observations_with_the_instant_they_show(lift):
    env = lift(latency={"observation": 0.04, "actuation": 0.02})
    plant = env.plant()
    target = env.simulation.last_command.copy()
    shown = []
    for _ in range(30):
        target[0] += 0.004
        plant.command(target)
        shown.append(env.simulation.measured()[0])
    observed = plant.observe()
    assert {stamped.time_ns for stamped in observed.values()} == {260_000_000}
    assert observed["joint_position"].value[0] == pytest.approx(shown[25], abs=1e-6)
    env.reset(seed=0)
    assert {stamped.time_ns for stamped in plant.observe().values()} == {0}


@pytest.mark.parametrize(
    ("latency", "message"),
    [
        ({"camera": 0.1}, "known: actuation, inference"),
        ({"observation": -0.1}, "0 to 1 s"),
        ({"observation": {"normal": {"mean": 0.1, "std": 0.1}}}, "low and high"),
        (0.1, "mapping"),
    ],
)
def test_latencies_that_make_no_sense_are_refused(latency, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        LiftEnv(latency=latency)


def test_a_delay_is_given_once():
    with pytest.raises(ConfigError, match="both by randomisation and by latency"):
        LiftEnv(latency={"observation": 0.1}, randomisation={"delay_observation": 0.1})
    assert Latency.load(None).parameters() == {}
