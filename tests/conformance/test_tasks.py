"""Every task passes the same suite: Gymnasium's checker, determinism, expert, action spaces, noisy expert.

All of it runs on the FR3; what a six-joint arm could break runs on the UR5e too.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulator is not installed")
pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

import gymnasium as gym
from gymnasium.utils.env_checker import check_env

from robopolicy.core.errors import (
    ConfigError,
    MissingDependencyError,
    NonFiniteValueError,
    ShapeError,
    UnknownNameError,
)
from robopolicy.evaluation.environments import ENVIRONMENTS, EXPERTS, known
from robopolicy_sim import experts, tasks
from robopolicy_sim.control import ARM_SPACES
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.expert import Expert
from robopolicy_sim.noisy import Mistakes
from robopolicy_sim.rendering import create_context

TASKS = tasks.names()
ROBOTS = ("fr3", "ur5e")
EPISODES = [("fr3", seed) for seed in range(5)] + [("ur5e", seed) for seed in range(2)]


def only_subclass(module_name, base):
    """The one subclass of ``base`` a module defines."""
    module = importlib.import_module(module_name)
    classes = inspect.getmembers(module, inspect.isclass)
    found = [c for _, c in classes if issubclass(c, base) and c.__module__ == module_name]
    assert len(found) == 1, f"{module_name} must define one {base.__name__}, has {found}"
    return found[0]


def make_expert(name, **arguments):
    return only_subclass(f"robopolicy_sim.experts.{name}", Expert)(**arguments)


def equal(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


def play(env, actions):
    """Observations, rewards and flags of some actions."""
    return [env.step(action) for action in actions]


def random_actions(env, number, seed=0):
    """Smooth joint actions around the current command, in the environment's action space."""
    rng = np.random.default_rng(seed)
    size = env.specs.action.dim - 1
    base = env.simulation.last_command.copy()
    return [base + np.append(rng.uniform(-0.05, 0.05, size), -0.01) for _ in range(number)]


@pytest.fixture(scope="module")
def opengl():
    """Skips, with the reason, where nothing can be rendered."""
    try:
        create_context(8, 8).free()
    except MissingDependencyError as error:
        pytest.skip(f"no OpenGL: {error}")


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


@pytest.fixture
def task(name):
    return only_subclass(f"robopolicy_sim.tasks.{name}", TaskEnv)


@pytest.fixture
def env(task):
    made = task()
    yield made
    made.close()


def test_every_task_has_an_expert_and_its_mjcf(task, name):
    assert name in experts.names()
    assert task.mjcf.exists() and task.mjcf.stem == name
    assert task.instruction


def test_every_task_asks_for_something_else():
    asked = {n: only_subclass(f"robopolicy_sim.tasks.{n}", TaskEnv).instruction for n in TASKS}
    assert len(set(asked.values())) == len(TASKS), asked


def test_every_task_and_expert_is_found_by_name():
    assert set(TASKS) <= set(known(ENVIRONMENTS)) and set(TASKS) <= set(known(EXPERTS))


# Gymnasium recommends actions in -1..1; ours are in physical units, and normalising is the policy's part.
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")
@pytest.mark.parametrize("space", ARM_SPACES)
def test_gymnasium_checker_is_content(task, space):
    env = task(action_space=space)
    env.spec = gym.envs.registration.EnvSpec(id="checked-v0", entry_point=task)
    check_env(env, skip_render_check=True)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")
def test_gymnasium_checker_is_content_with_pictures(task, opengl):
    env = task(observation_mode="all", render_mode="rgb_array")
    env.spec = gym.envs.registration.EnvSpec(id="checked-v0", entry_point=task)
    check_env(env)
    env.close()


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_seed_alone_decides_the_start(task, robot):
    first, second = task(robot=robot), task(robot=robot)
    one, info = first.reset(seed=7)
    assert all(isinstance(value, float | int | str) for value in info["conditions"].values())
    second.reset(seed=3)
    play(second, random_actions(second, 3))
    assert equal(one, second.reset(seed=7)[0])
    assert not equal(one, second.reset(seed=8)[0])


def test_the_same_actions_give_bit_equal_trajectories(task):
    runs = []
    for _ in range(2):
        env = task()
        env.reset(seed=1)
        runs.append(play(env, random_actions(env, 12)))
    for one, two in zip(*runs, strict=True):
        assert equal(one[0], two[0])
        assert one[1:] == two[1:]


def test_observing_changes_nothing(task):
    plain, watched = task(), task()
    for env in (plain, watched):
        env.reset(seed=1)
    actions = random_actions(plain, 6)
    for action in actions:
        watched.observation("state")
        assert equal(plain.step(action)[0], watched.step(action)[0])
        watched.plant().observe()


def test_snapshots_bring_a_moment_back(env):
    env.reset(seed=2)
    actions = random_actions(env, 10)
    play(env, actions[:4])
    moment = env.snapshot()
    first = play(env, actions[4:])
    env.restore(moment)
    second = play(env, actions[4:])
    for one, two in zip(first, second, strict=True):
        assert equal(one[0], two[0])
        assert one[1:] == two[1:]


def test_success_is_false_at_the_start_and_when_nothing_moves(env):
    _, info = env.reset(seed=0)
    assert info["is_success"] is False
    action = env.action_from_command(env.simulation.last_command)
    steps = round(env.episode_seconds * env.specs.policy_rate)
    for k in range(steps):
        _, _, terminated, truncated, info = env.step(action)
        assert not terminated and not info["is_success"]
        assert truncated == (k == steps - 1)


@pytest.mark.parametrize(("robot", "seed"), EPISODES)
def test_the_expert_succeeds_within_the_robots_limits(task, name, robot, seed):
    env, expert = task(robot=robot), make_expert(name)
    env.reset(seed=seed)
    expert.reset(env, seed)
    commands, rewards, done = [env.simulation.last_command], [], False
    while not done:
        commands.append(expert.act())
        observation, reward, terminated, truncated, info = env.step(commands[-1])
        env.specs.check_observation(observation)
        assert env.observation_space.contains(observation)
        assert all(np.isfinite(value).all() for value in observation.values())
        rewards.append(reward)
        done = terminated or truncated
    assert info["is_success"] and terminated and not info["unstable"], f"the expert of {name} fails"
    check_limits(np.array(commands), env)
    check_rewards(np.array(rewards))


def check_limits(commands, env):
    """Joint velocities with room to spare, joint accelerations and the gripper's velocity."""
    limits, rate = env.robot.limits, env.specs.policy_rate
    velocity = np.diff(commands, axis=0) * rate
    assert np.all(np.abs(velocity)[:, :-1] <= 0.6 * limits.velocity[:-1])
    assert np.all(np.abs(velocity)[:, -1] <= limits.velocity[-1] + 1e-9)
    acceleration = np.diff(velocity, axis=0)[:, :-1] * rate
    assert np.all(np.abs(acceleration) <= limits.acceleration[:-1])


def check_rewards(rewards):
    """In 0..1, rising from quarter to quarter of the episode, and best at the end."""
    assert np.all((rewards >= 0.0) & (rewards <= 1.0))
    quarters = [part.mean() for part in np.array_split(rewards, 4)]
    assert np.all(np.diff(quarters) > 0.0), quarters
    assert rewards[-1] >= 0.8 and rewards[-1] >= rewards.max() - 0.1


@pytest.mark.parametrize("space", ARM_SPACES)
def test_the_expert_succeeds_in_every_action_space(task, name, space):
    env = task(action_space=space)
    env.reset(seed=0)
    expert = make_expert(name)
    expert.reset(env)
    terminated = truncated = False
    while not (terminated or truncated):
        action = expert.act()
        assert action.shape == (env.specs.action.dim,)
        _, _, terminated, truncated, _ = env.step(action.astype(np.float32))
    assert terminated


def test_the_expert_succeeds_under_noise_and_is_seeded(task, name):
    ends = []
    for _ in range(2):
        env, expert = task(), make_expert(name, noise=0.005)
        env.reset(seed=0)
        expert.reset(env)
        terminated = truncated = False
        while not (terminated or truncated):
            observation, _, terminated, truncated, _ = env.step(expert.perturb(expert.act()))
        assert terminated
        ends.append(observation)
    assert equal(*ends)


@pytest.mark.parametrize("mistakes", [Mistakes(level=0.0), Mistakes(level=0.5)], ids=["none", "some"])
def test_the_noisy_expert_without_mistakes_is_the_clean_one(task, name, mistakes):
    runs = []
    for expert in (make_expert(name), make_expert(name, mistakes=mistakes)):
        env = task()
        env.reset(seed=3)
        expert.reset(env, 3)
        runs.append([env.step(expert.act())[0]["joint_position"] for _ in range(20)])
    assert np.array_equal(*runs) == (mistakes.level == 0.0)
    facts = expert.facts()
    assert json.loads(json.dumps(facts))["expert"] == ("noisy" if mistakes.level else "scripted")


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("space", ARM_SPACES)
def test_actions_of_every_space_reach_the_same_tool_pose(task, space, robot):
    env = task(action_space=space, robot=robot)
    env.reset(seed=4)
    rng = np.random.default_rng(0)
    for _ in range(10):
        moved = rng.uniform(-0.06, 0.06, len(env.robot.joints))
        command = env.simulation.last_command + np.append(moved, 0.0)
        wanted = env.robot.transform_tcp_to_base(command[:-1])
        env.step(env.action_from_command(command).astype(np.float32))
        reached = env.robot.transform_tcp_to_base(env.simulation.last_command[:-1])
        np.testing.assert_allclose(reached, wanted, atol=1e-5)
        for _ in range(20):
            env.command(env.simulation.last_command)  # let the servo settle
        measured = env.robot.transform_tcp_to_base(env.simulation.measured()[:-1])
        assert np.linalg.norm(measured[:3, 3] - wanted[:3, 3]) < 1e-3


@pytest.mark.parametrize("mode", ["image", "all"])
def test_pictures_have_the_asked_size_and_show_something(task, mode, opengl):
    env = task(observation_mode=mode, image_size=(48, 64), render_mode="rgb_array", render_size=(120, 160))
    observation, _ = env.reset(seed=0)
    env.specs.check_observation(observation)
    for camera in env.cameras:
        assert observation[camera].shape == (48, 64, 3) and observation[camera].dtype == np.uint8
        assert observation[camera].std() > 10
    hidden = set(env.task_specs()) & set(observation)
    assert not hidden if mode == "image" else hidden
    picture = env.render()
    assert picture.shape == (120, 160, 3) and picture.std() > 10
    env.close()
    env.close()


def test_the_plant_moves_like_the_environment(task):
    stepped, driven = task(), task()
    for env in (stepped, driven):
        env.reset(seed=5)
    plant = driven.plant()
    for action in random_actions(stepped, 3):
        start = driven.simulation.last_command
        for k in range(1, 11):
            plant.command(start + (action - start) * (k / 10))
        stepped.step(action)
    observed = plant.observe()
    assert equal({k: v.value for k, v in observed.items()}, stepped.observation())
    assert {v.time_ns for v in observed.values()} == {300_000_000}
    assert plant.control_rate == 100.0 and plant.specs == driven.specs
    np.testing.assert_array_equal(plant.measured(), stepped.simulation.measured())
    assert driven.plant(clock=lambda: 42).observe()["joint_position"].time_ns == 42


def test_bad_arguments_are_refused_by_name(task):
    with pytest.raises(UnknownNameError, match="known: all, image, state"):
        task(observation_mode="pixels")
    with pytest.raises(UnknownNameError, match="known: ee_delta, ee_pose, joint_delta, joint_position"):
        task(action_space="torque")
    with pytest.raises(ConfigError, match="policy_rate must divide"):
        task(policy_rate=30.0)
    with pytest.raises(ConfigError, match="render_mode"):
        task(render_mode="human")
    with pytest.raises(ConfigError, match="joint_position"):
        task(action_space="ee_pose").plant()


def test_bad_actions_are_refused_and_move_nothing(env):
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(env.specs.action.dim))
    before, _ = env.reset(seed=0)
    action = env.simulation.last_command.copy()
    shape = re.escape(str((env.specs.action.dim,)))
    with pytest.raises(ShapeError, match=shape):
        env.step(action[:-1])
    with pytest.raises(ShapeError, match=shape):
        env.step(action[None])
    action[2] = np.nan
    with pytest.raises(NonFiniteValueError):
        env.step(action)
    with pytest.raises(ConfigError, match="options"):
        env.reset(options={"cube": 1})
    assert equal(before, env.observation())


def test_unstable_physics_is_flagged_and_truncated(env):
    env.reset(seed=0)
    action = env.simulation.last_command.copy()
    env.simulation.data.qvel[0] = 1e12
    observation, _, terminated, truncated, info = env.step(action)
    assert info["unstable"] and truncated and not terminated
    assert np.isfinite(observation["joint_position"]).all()
