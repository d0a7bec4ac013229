"""The twin differs from the simulation in every way it claims, and in the same way every time."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from synthetic import make_policy_specs

pytest.importorskip("mujoco", reason="the simulator is not installed")
pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.geometry import transform_from_pose_9d
from robopolicy_sim import robots
from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.randomisation.kinds import KINDS, parse_key
from robopolicy_sim.sysid.servos import read
from robopolicy_sim.tasks.lift import LiftEnv
from robopolicy_sim.twins.effects import HiddenEffects
from robopolicy_sim.twins.twin import TwinRecipe, WrongZeros, make_twin

ARM = robots.load("fr3")
EFFECTS = HiddenEffects()
NOTHING_SEEN = dataclasses.replace(EFFECTS, joint_offset=(0.0,) * 7, camera_offset=(0.0, 0.0, 0.0))


@pytest.fixture
def twin():
    env = make_twin("lift")
    yield env
    env.close()


def test_the_first_group_of_effects_reaches_the_model(twin):
    _, info = twin.reset(seed=0)
    model, nominal = twin.simulation.model, read(ARM.spec().compile(), ARM)
    found, wanted = read(model, ARM), EFFECTS.identifiable(ARM, nominal)
    for name, values in wanted.joints.items():
        for kind, value in values.items():
            assert found.joints[name][kind] == pytest.approx(value), (name, kind)
            assert value != nominal.joints[name][kind], (name, kind)
    assert info["conditions"] == EFFECTS.conditions(ARM)


def test_some_effects_are_outside_of_what_is_identified(twin):
    kinds = {parse_key(key)[0] for key in EFFECTS.conditions(ARM)}
    assert kinds <= set(KINDS)
    identified = {"kp", "kv", "armature", "frictionloss", "delay_actuation"}
    assert kinds - identified >= {"backlash", "jitter_command", "mass", "friction", "gravity_compensation"}
    before = LiftEnv().simulation.model
    twin.reset(seed=0)
    after = twin.simulation.model
    hand = after.body("fr3_hand").id
    carried_before = before.body_mass[hand] * before.body_gravcomp[hand]
    carried_after = after.body_mass[hand] * after.body_gravcomp[hand]
    assert after.body_mass[hand] == pytest.approx(1.23 * before.body_mass[hand])
    assert carried_after == pytest.approx(0.97 * carried_before)
    pad = after.geom("fr3_pad_left").id
    assert after.geom_friction[pad, 0] == pytest.approx(0.7 * 0.85 * before.geom_friction[pad, 0])


def test_sensors_are_consistent_with_one_another_and_wrong(twin):
    observation, _ = twin.reset(seed=3)
    true = twin.observation()
    joints = true["joint_position"] + np.float32(EFFECTS.joint_offset)
    np.testing.assert_allclose(observation["joint_position"], joints, atol=1e-6)
    tool = ARM.robot.transform_tcp_to_base(joints.astype(np.float64))
    seen = transform_from_pose_9d(observation["ee_pose"].astype(np.float64))
    np.testing.assert_allclose(seen, tool, atol=1e-5)
    error = np.linalg.norm(observation["ee_pose"][:3] - true["ee_pose"][:3])
    assert 1e-3 < error < 1e-2
    np.testing.assert_allclose(
        observation["cube_pose"][:3] - true["cube_pose"][:3], EFFECTS.camera_offset, atol=1e-6
    )
    cube = transform_from_pose_9d(observation["cube_pose"].astype(np.float64))
    in_tool = transform_from_pose_9d(observation["cube_pose_in_tool"].astype(np.float64))
    np.testing.assert_allclose(seen @ in_tool, cube, atol=1e-5)
    np.testing.assert_allclose(twin.plant().measured()[:-1], joints, atol=1e-6)


def test_without_sensor_errors_the_twin_sees_the_truth():
    env = make_twin("lift", NOTHING_SEEN)
    observation, _ = env.reset(seed=3)
    true = env.observation()
    for name, value in true.items():
        np.testing.assert_allclose(observation[name], value, atol=2e-6)


def test_encoders_reach_the_command_that_joints_do_not(twin):
    twin.reset(seed=0)
    command = np.append(ARM.robot.home, 0.08)
    for _ in range(300):
        twin.command(command)
    read_off = twin.plant().measured()[:-1] - command[:-1]
    true = twin.simulation.measured()[:-1] - command[:-1]
    assert np.abs(read_off).mean() < np.abs(true).mean()  # what is left is friction and gravity
    np.testing.assert_allclose(read_off - true, EFFECTS.joint_offset, atol=1e-9)


def play(env, seed: int) -> list[np.ndarray]:
    env.reset(seed=seed)
    rng = np.random.default_rng(0)
    home = env.simulation.last_command.copy()
    return [env.step(home + rng.uniform(-0.05, 0.05, home.shape))[0]["joint_position"] for _ in range(15)]


def test_an_episode_repeats_by_its_seed(twin):
    first, other, again = play(twin, 1), play(twin, 2), play(twin, 1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.array(first) - np.array(other)).max() > 1e-4
    fresh = make_twin("lift")
    np.testing.assert_array_equal(play(fresh, 1), first)


def test_a_restored_twin_goes_on_as_before(twin):
    play(twin, 1)
    snapshot, action = twin.snapshot(), twin.simulation.last_command + 0.02
    first = [twin.step(action)[0]["joint_position"] for _ in range(5)]
    twin.restore(snapshot)
    np.testing.assert_array_equal([twin.step(action)[0]["joint_position"] for _ in range(5)], first)


def test_the_twin_answers_differently_than_the_simulation(twin):
    gap = np.abs(np.array(play(twin, 1)) - np.array(play(LiftEnv(), 1))).max()
    assert gap > 0.01


def test_the_expert_still_solves_the_task(twin):
    won = 0
    expert = LiftExpert()
    for seed in range(4):
        twin.reset(seed=seed)
        expert.reset(twin, seed)
        done = False
        while not done:
            _, _, terminated, truncated, info = twin.step(expert.act())
            done = terminated or truncated
        won += info["is_success"]
    assert won >= 3


def test_wrong_zeros_pass_states_on():
    zeros = WrongZeros(None, np.array([0.1, 0.0]))
    zeros.reset(np.zeros(2))
    np.testing.assert_allclose(zeros.advance(np.array([1.0, 2.0])), [0.9, 2.0])
    zeros.restore(zeros.state())


def test_a_recipe_makes_the_twin_in_another_process():
    specs = make_policy_specs()
    make = pickle.loads(pickle.dumps(TwinRecipe("lift").bind(specs)))
    env = make()
    assert env.specs.policy_rate == specs.specs.policy_rate
    env.close()


def test_what_a_twin_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="randomisation"):
        make_twin("lift", randomisation="light")
    with pytest.raises(ConfigError, match="one fr3"):
        make_twin("lift", robot="ur5e")
    with pytest.raises(UnknownNameError, match=r"known: .*lift"):
        make_twin("juggle")
