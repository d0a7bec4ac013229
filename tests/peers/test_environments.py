"""Meta-World, robosuite and gym-aloha through our adapters. Runs under the Python of .venv-peers, or skips.

``python3 make.py install-peers && .venv-peers/bin/python -m pytest tests/peers``; in the core's environment
``tests/unit/test_adapters.py`` runs it that way, and hands over bundles in ROBOPOLICY_PEERS_BUNDLES.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robopolicy.cli.main import main
from robopolicy.core.errors import ConfigError, MissingDependencyError, NonFiniteValueError, UnknownNameError
from robopolicy.core.policy import keyed_rng
from robopolicy.datasets.recorder import record_episode
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import EXPERTS, load_entry, make_env

IDS = [
    "metaworld/push-v3",
    "metaworld/reach-v3",
    "metaworld/drawer-open-v3",
    "robosuite/Lift",
    "gym_aloha/AlohaTransferCube-v0",
    "gym_aloha/AlohaInsertion-v0",
]
EXPERT_TASKS = ["push-v3", "reach-v3", "drawer-open-v3", "door-close-v3", "button-press-v3"]
BUNDLES = os.environ.get("ROBOPOLICY_PEERS_BUNDLES", "")
needs_bundles = pytest.mark.skipif(
    not BUNDLES, reason="ROBOPOLICY_PEERS_BUNDLES names no folder; tests/unit/test_adapters.py makes one"
)
pytestmark = pytest.mark.timeout(300)  # numba compiles robosuite's controllers at the first step


def need(name: str) -> None:
    package = name.partition("/")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed here; python3 make.py install-peers makes .venv-peers")


@pytest.fixture(params=IDS)
def name(request) -> str:
    need(request.param)
    return request.param


@pytest.fixture
def make():
    """Makes environments and closes them, twice."""
    made = []

    def build(name, **options):
        need(name)
        made.append(make_env(name, **options))
        return made[-1]

    yield build
    for env in [*made, *made]:
        env.close()


def play(env, seed, steps):
    """Observations of random actions that depend on the seed alone."""
    rng = keyed_rng(seed, 7)
    seen = [env.reset(seed=seed)[0]]
    bounds = env.action_space
    for _ in range(steps):
        observation, reward, *_ = env.step(rng.uniform(bounds.low, bounds.high))
        seen.append({**observation, "reward": np.float64(reward)})
    return seen


def equal(first, second):
    def same(a, b):
        return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)

    return all(map(same, first, second))


@pytest.mark.parametrize("name", [*IDS, "robosuite/NutAssemblySquare", "robosuite/Wipe"])
def test_the_seed_alone_decides_the_episode(name, make):
    fresh, used = make(name), make(name)
    play(used, 3, 12)
    assert equal(play(fresh, 5, 8), play(used, 5, 8))
    starts = [fresh.reset(seed=seed)[0] for seed in range(4)]
    for i, start in enumerate(starts):
        assert not any(equal([start], [other]) for other in starts[:i]), "two seeds gave one start"


@pytest.mark.filterwarnings("ignore")  # the checker remarks on unbounded observations
def test_gymnasium_checker_is_content(name, make):
    env = make(name)
    env.spec = gym.envs.registration.EnvSpec(id="checked-v0", entry_point=lambda: make(name))
    check_env(env, skip_render_check=True)


def test_what_is_observed_and_taken_is_as_the_specs_say(name, make):
    env = make(name)
    observation, info = env.reset(seed=0)
    env.specs.check_observation(observation)
    assert {k: (v.shape, str(v.dtype)) for k, v in observation.items()} == {
        k: (s.shape, s.dtype) for k, s in env.specs.observation.items()
    }
    assert info == {"is_success": False, "unstable": False, "time": 0.0}
    action = env.action_space.sample()
    assert action.shape == (env.specs.action.dim,)
    _, _, terminated, truncated, info = env.step(action)
    assert info["time"] == pytest.approx(1 / env.specs.policy_rate) and not (terminated or truncated)
    assert env.instruction and env.success_predicate
    with pytest.raises(NonFiniteValueError):
        env.step(np.full_like(action, np.nan))


def test_the_step_limit_ends_an_episode_without_success(name, make):
    env = make(name, max_steps=3)
    env.reset(seed=0)
    flags = [env.step(np.zeros(env.specs.action.dim))[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_success_is_the_librarys_own_and_ends_the_episode(make):
    env = make("robosuite/Lift")
    env.reset(seed=0)
    cube = env._env.cube.joints[0]
    env._env.sim.data.set_joint_qpos(cube, [0.0, 0.0, 1.2, 1.0, 0.0, 0.0, 0.0])  # lifted, and soon falling
    _, reward, terminated, truncated, info = env.step(np.zeros(env.specs.action.dim))
    assert terminated and not truncated and info["is_success"] and reward == 1.0
    env = make("gym_aloha/AlohaInsertion-v0")
    env.reset(seed=0)
    env._task.get_reward = lambda physics: 4
    _, reward, terminated, _, info = env.step(np.zeros(env.specs.action.dim))
    assert terminated and info["is_success"] and reward == 4.0


def test_broken_physics_is_said(name, make):
    env = make(name)
    env.reset(seed=0)
    data = {
        "metaworld": lambda: env._env.data,
        "robosuite": lambda: env._env.sim.data._data,
        "gym_aloha": lambda: env._physics.data,
    }[name.partition("/")[0]]()
    data.qvel[:] = np.nan
    _, _, terminated, truncated, info = env.step(np.zeros(env.specs.action.dim))
    assert info["unstable"] and truncated and not terminated and not info["is_success"]
    env.specs.check_observation(env.reset(seed=0)[0])
    assert not env.step(np.zeros(env.specs.action.dim))[4]["unstable"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("metaworld/push-v3", {"cameras": ["corner2"]}),
        ("robosuite/Lift", {"cameras": ["agentview"]}),
        ("gym_aloha/AlohaInsertion-v0", {"cameras": ["top"]}),
    ],
)
def test_pictures_show_the_scene(name, options, make):
    try:
        env = make(name, observation_mode="image", image_size=[24, 32], render_mode="rgb_array", **options)
        observation, _ = env.reset(seed=0)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    env.specs.check_observation(observation)
    (picture,) = [v for v in observation.values() if v.ndim == 3]
    assert picture.shape == (24, 32, 3) and picture.dtype == np.uint8 and np.ptp(picture) > 50
    assert "env_state" not in observation and "object" not in observation, "the answer is in a picture's mode"
    film = env.render()
    assert film.dtype == np.uint8 and film.shape[0] % 2 == 0 and film.shape[1] % 2 == 0 and np.ptp(film) > 50


def test_bad_options_are_named(name, make):
    for options, message in (
        ({"action_space": "torque"}, "takes action_space"),
        ({"policy_rate": 3.0}, "got .* at 3 Hz"),
        ({"observation_mode": "smell"}, "observation_mode 'smell' is not one of"),
        ({"max_steps": 0}, "max_steps must be >= 1, got 0"),
        ({"render_mode": "human"}, "render_mode 'human' is not"),
        ({"colour": 1}, r"no option colour here; known: .*max_steps"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(name, **options)
    with pytest.raises(UnknownNameError, match="unknown camera 'nose'; known: "):
        make(name, observation_mode="image", cameras=["nose"])


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("metaworld/nope-v3", "push-v3"),
        ("robosuite/Nope", "Lift"),
        ("gym_aloha/Nope-v0", "gym_aloha/AlohaInsertion-v0"),
    ],
)
def test_an_unknown_task_lists_the_known_ones(name, listed, make):
    with pytest.raises(UnknownNameError, match=rf"unknown .*[nN]ope.*; known: .*{listed}"):
        make(name)


# Meta-World's experts.


@pytest.mark.parametrize("task", EXPERT_TASKS)
def test_the_scripted_expert_solves(task, make):
    env = make(f"metaworld/{task}")
    expert = load_entry(EXPERTS, "expert", f"metaworld/{task}")()
    episodes = [record_episode(env, expert, seed) for seed in range(3)]
    assert [e.success for e in episodes] == [True] * 3
    for episode in episodes:
        rewards = episode.extra["reward"].value
        assert len(rewards) < env.max_steps, "success must end the episode"
        assert np.abs(episode.action.value).max() <= 1.0


def test_every_task_has_an_expert():
    need("metaworld/push-v3")
    from metaworld.policies import ENV_POLICY_MAP

    from robopolicy.evaluation.adapters import metaworld

    assert len(metaworld.tasks()) == 50 and set(metaworld.tasks()) == set(ENV_POLICY_MAP)


def test_noise_is_executed_and_the_clean_action_recorded(make):
    env = make("metaworld/reach-v3")
    with pytest.raises(ConfigError, match="-1"):
        load_entry(EXPERTS, "expert", "metaworld/reach-v3")(noise=-1)
    expert = load_entry(EXPERTS, "expert", "metaworld/reach-v3")(noise=0.3)
    first, again = record_episode(env, expert, 0), record_episode(env, expert, 0)
    executed = first.extra["executed_action"].value
    assert np.array_equal(executed, again.extra["executed_action"].value)
    assert 0.1 < np.abs(executed - first.action.value).mean() < 0.5 and np.abs(executed).max() <= 1.0


def test_the_goal_is_in_the_state(make):
    env = make("metaworld/push-v3")
    goals = [env.reset(seed=seed)[0]["state"][-3:] for seed in range(2)]
    assert np.allclose(goals[1], env._env._target_pos) and not np.allclose(*goals)


def test_experts_are_listed_where_there_are_none():
    need("robosuite/Lift")
    with pytest.raises(UnknownNameError, match="unknown expert 'robosuite/Lift'; known: metaworld/TASK"):
        load_entry(EXPERTS, "expert", "robosuite/Lift")


def test_demonstrations_are_recorded_by_command(tmp_path, make, capsys):
    env = make("metaworld/reach-v3")
    store = tmp_path / "reach.zarr"
    given = ["record", "--task", "metaworld/reach-v3", "--episodes", "2", "--output", str(store)]
    assert main(given) == 0, capsys.readouterr()
    opened = EpisodeStore.open(store)
    assert opened.specs == env.specs and len(opened) == 2
    episode = opened.read(opened.names[0])
    assert episode.success and episode.instruction == "reach" and episode.seed == 0
    assert len(episode.observation["state"].value) == len(episode.action.value) + 1


# Bundles, trained elsewhere: no torch here.


def bundles() -> list[Path]:
    return sorted(Path(BUNDLES).glob("[!.]*")) if BUNDLES else []


def evaluate(capsys, bundle, name, output, *options):
    given = ["eval", "--policy", bundle, "--env", name, "--output", output, "--no-report", *options]
    status = main([str(word) for word in given])
    done = capsys.readouterr()
    return status, done.out, done.err


@needs_bundles
@pytest.mark.parametrize("bundle", bundles(), ids=lambda path: path.name)
def test_a_bundle_is_evaluated_without_torch(bundle, tmp_path, capsys):
    name = bundle.name.replace("--", "/")
    need(name)
    records = []
    for count in (1, 2):
        output = tmp_path / str(count)
        options = ["--episodes", 2, "--executor", "inline", "--num-envs", count, "--option", "max_steps=12"]
        status, out, error = evaluate(capsys, bundle, name, output, *options)
        assert status == 0 and "success 0/2" in out, error
        records.append(json.loads((output / "eval.json").read_text())["episodes"])
    for alone, together in zip(*records):
        assert alone["steps"] == 12 and alone["action_hash"] == together["action_hash"]
    assert "torch" not in sys.modules and "robopolicy_sim" not in sys.modules


@needs_bundles
def test_a_policy_of_another_environment_shows_both_sides(tmp_path, capsys):
    need("gym_aloha/AlohaInsertion-v0")
    bundle = Path(BUNDLES) / "metaworld--push-v3"
    status, _, error = evaluate(capsys, bundle, "gym_aloha/AlohaInsertion-v0", tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()
    assert "the actions differ" in error and "the rates differ" in error
    assert "agent_pos state (14,)" in error and "at 50 Hz" in error
    assert "the policy wants state state (39,)" in error and "at 80 Hz" in error
