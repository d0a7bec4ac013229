"""Environments from elsewhere: what needs no package of theirs, gym-pusht, and the peers' own tests."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from synthetic import make_normalisers

from robopolicy.core.errors import (
    ConfigError,
    MissingDependencyError,
    NonFiniteValueError,
    ShapeError,
    SpecError,
    UnknownNameError,
)
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.datasets.importers.mapping import load_mapping
from robopolicy.evaluation import adapters
from robopolicy.evaluation.adapters import _libraries, gym_aloha, gym_pusht, metaworld
from robopolicy.evaluation.adapters._base import AdaptedEnv, Outcome, camera_options
from robopolicy.evaluation.adapters._fit import check_fit
from robopolicy.evaluation.environments import EXPERTS, load_entry, make_env, make_env_for
from robopolicy.export.bundle import export_bundle
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.policies._saved import save_policy
from robopolicy.policies.diffusion_unet import Config, build

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ArraySpec((8, 6, 3), "uint8", kind="image")
SPECS = Specs(
    {"place": ArraySpec((2,), units=("m", "m")), "scene": IMAGE},
    ActionSpec((ActionPart("normalised", ("x", "y")),)),
    5.0,
)


class Walk(AdaptedEnv):
    """A point; success beyond 1, broken at a negative y."""

    def __init__(self, max_steps=4, render_mode=None):
        super().__init__(
            SPECS,
            instruction="go",
            success_predicate="gone",
            max_steps=max_steps,
            bounds=np.array([[-1, 0], [1, 1]]),
            render_mode=render_mode,
        )

    def begin(self, seed):
        self.place = np.random.default_rng(seed).uniform(0.1, 0.2, 2)

    def advance(self, action):
        self.place = self.place + action
        broken = np.nan if self.place[1] < 0 else 1.0
        self.place = self.place * broken
        return Outcome(1.5, bool(self.place[0] > 1 or np.isnan(broken)), facts={"far": 2.0})

    def observe(self):
        return {"place": self.place, "scene": np.full((8, 6, 3), 7), "unused": 0}

    def picture(self):
        return np.full((4, 4, 3), 9, np.uint8)


def test_an_adapter_is_found_by_its_file_name():
    folder = Path(adapters.__file__).parent
    assert adapters.names() == sorted(p.stem for p in folder.glob("[!_]*.py"))
    assert adapters.find("metaworld/push-v3") is metaworld
    for name in ("lift", "metaworld", "_base/x", "nope/Nope-v0", "", "/", "../x/y"):
        assert adapters.find(name) is None


@pytest.mark.parametrize("name", ["metaworld/push-v3", "robosuite/Lift", "gym_aloha/AlohaInsertion-v0"])
def test_a_missing_library_says_the_one_command(name):
    try:
        make_env(name).close()
    except MissingDependencyError as error:
        assert name in str(error) and "'python3 make.py install-peers'" in str(error)
    else:
        pytest.skip(f"{name} is installed here")


def test_an_absent_package_and_a_newer_mujoco_are_told_apart(monkeypatch):
    monkeypatch.setattr(_libraries, "version", lambda package: "3.3.0")
    with pytest.raises(MissingDependencyError, match=r"needs the package 'no_such_library': .*install-peers"):
        _libraries.require("no_such_library", "no_such/Task")
    assert _libraries.require("json", "json/x").__name__ == "json"
    monkeypatch.setattr(_libraries, "version", lambda package: "4.1.0")
    with pytest.raises(MissingDependencyError, match=r"'json/x' does not run on MuJoCo 4\.1\.0"):
        _libraries.require("json", "json/x")


def test_pictures_need_opengl_and_say_so():
    with pytest.raises(MissingDependencyError, match=r"no EGL.*libegl1"), _libraries.drawing():
        raise AttributeError("no EGL")


def test_broken_physics_is_noticed():
    mujoco = pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data)
    assert not _libraries.is_unstable(data)
    data.qpos[0] = np.nan
    mujoco.mj_step(model, data)
    assert _libraries.is_unstable(data)


def test_an_adapted_environment_is_one_of_ours():
    env = Walk(render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2))
    observation, info = env.reset(seed=1)
    assert sorted(observation) == ["place", "scene"] and info == {
        "is_success": False,
        "unstable": False,
        "time": 0.0,
    }
    env.specs.check_observation(observation)
    observation, reward, terminated, truncated, info = env.step(np.array([0.5, 0.0]))
    assert (reward, terminated, truncated) == (1.5, False, False)
    assert info == {"far": 2.0, "is_success": False, "unstable": False, "time": 0.2}
    _, _, terminated, truncated, info = env.step(np.array([0.5, 0.0]))
    assert terminated and not truncated and info["is_success"]
    assert env.render().max() == 9 and Walk().render() is None
    assert env.timings["physics"] > 0 and env.timings["render"] > 0


def test_an_adapted_environment_satisfies_gymnasium():
    env = Walk()
    env.spec = gym.envs.registration.EnvSpec(id="checked-v0", entry_point=Walk)
    with pytest.warns(UserWarning, match="Box"):
        check_env(env, skip_render_check=True)


def test_the_seed_alone_decides_and_none_draws_a_new_one():
    first, second = Walk(), Walk()
    second.reset(seed=9)
    assert np.array_equal(first.reset(seed=3)[0]["place"], second.reset(seed=3)[0]["place"])
    assert not np.array_equal(first.reset()[0]["place"], first.reset()[0]["place"])


def test_numbers_that_are_none_end_the_episode_as_unstable():
    env = Walk()
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(np.array([0.9, -1.0]))
    assert truncated and not terminated and info["unstable"] and not info["is_success"]


def test_the_step_limit_truncates():
    env = Walk(max_steps=2)
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_bad_input_to_an_adapted_environment_is_named():
    env = Walk()
    env.reset(seed=0)
    before = env.place.copy()
    with pytest.raises(ShapeError, match=r"an action has shape \(2,\), got \(3,\)"):
        env.step(np.zeros(3))
    with pytest.raises(NonFiniteValueError):
        env.step(np.array([0.0, np.inf]))
    assert np.array_equal(env.place, before), "a refused action moved something"
    with pytest.raises(ConfigError, match="reset knows no options"):
        env.reset(options={"a": 1})
    with pytest.raises(ConfigError, match="render_mode 'human'"):
        Walk(render_mode="human")
    with pytest.raises(ConfigError, match="max_steps must be >= 1, got 0"):
        Walk(max_steps=0)


# Whether a policy fits.


def changed(**fields):
    return dataclasses.replace(SPECS, **fields)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (changed(observation={"elsewhere": ArraySpec((2,))}), "observation 'elsewhere' is absent"),
        (changed(observation={"place": ArraySpec((3,))}), "observation 'place' is another"),
        (
            changed(observation={"place": ArraySpec((2,), units=("px", "px"))}),
            "observation 'place' is another",
        ),
        (changed(action=ActionSpec((ActionPart("normalised", ("x",)),))), "the actions differ"),
        (changed(action=ActionSpec((ActionPart("planar_position", ("x", "y")),))), "the actions differ"),
        (changed(policy_rate=10.0), "the rates differ"),
    ],
)
def test_what_does_not_fit_shows_both_sides(wanted, reason):
    with pytest.raises(SpecError) as caught:
        check_fit("a/B", SPECS, wanted)
    text = str(caught.value)
    assert reason in text
    assert "the environment a/B gives place state (2,), scene image (8, 6, 3); actions normalised" in text
    assert re.search(r"the policy wants \w+ state .*; actions \w+ absolute \(.*\) at \d+ Hz", text)


def test_a_policy_may_want_less_and_know_less():
    check_fit("a/B", SPECS, SPECS)
    named = ActionSpec((ActionPart("normalised", ("forward", "left")),))
    check_fit("a/B", SPECS, changed(observation={"place": ArraySpec((2,))}, action=named))


def test_cameras_follow_from_the_policy():
    def asked(**observation):
        return camera_options(PolicySpecs(changed(observation=observation)), ("front", "side"))

    assert asked(place=ArraySpec((2,))) == {"observation_mode": "state"}
    assert asked(place=ArraySpec((2,)), side=IMAGE, nose=IMAGE) == {
        "observation_mode": "all",
        "cameras": ("side",),
        "image_size": (8, 6),
    }
    with pytest.raises(SpecError, match="one size"):
        asked(side=IMAGE, front=ArraySpec((4, 4, 3), "uint8", kind="image"))


# gym-pusht, which lives beside the core.


@pytest.fixture
def pusht():
    """Makes the environment and closes it, twice."""
    if importlib.util.find_spec("gym_pusht") is None:
        pytest.skip("gym-pusht is not installed: pip install 'robopolicy[pusht]'")
    made = []

    def build(**options):
        made.append(make_env("gym_pusht/PushT-v0", **options))
        return made[-1]

    yield build
    for env in [*made, *made]:
        env.close()


def test_pusht_is_what_its_package_makes(pusht):
    ours, states = pusht(observation_mode="all"), pusht()
    theirs = gym.make("gym_pusht/PushT-v0", obs_type="pixels_agent_pos", disable_env_checker=True)
    (seen, _), (expected, _) = ours.reset(seed=4), theirs.reset(seed=4)
    assert np.array_equal(states.reset(seed=4)[0]["state"], seen["state"])
    rng = np.random.default_rng(0)
    for _ in range(6):
        assert np.array_equal(seen["pixels"], expected["pixels"])
        assert np.array_equal(seen["agent_pos"], expected["agent_pos"].astype(np.float32))
        assert np.array_equal(seen["state"][:2], seen["agent_pos"])
        action = rng.uniform(0, 512, 2).astype(np.float32)
        seen, reward, terminated, _, info = ours.step(action)
        expected, their_reward, their_terminated, _, their_info = theirs.step(action)
        assert (reward, terminated) == (float(their_reward), bool(their_terminated))
        assert info["coverage"] == float(their_info["coverage"])
    theirs.close()


def test_pusht_ends_where_its_package_ends(pusht):
    env = pusht()
    env.reset(seed=0)
    flags = [env.step(np.array([256.0, 256.0]))[2:4] for _ in range(300)]
    assert flags == [(False, False)] * 299 + [(False, True)]


def test_pusht_speaks_as_its_demonstrations_do(pusht):
    mapping = load_mapping("pusht")
    env = pusht(observation_mode="all")
    assert env.specs.policy_rate == mapping.rate and env.instruction == mapping.instruction
    for key in ("state", "agent_pos"):
        spec, told = env.specs.observation[key], mapping.observation[key]
        assert (spec.units, spec.names, spec.angles) == (told.units, told.names, told.angles)
    assert env.specs.action == ActionSpec(mapping.action.parts, mapping.action.reached)


@pytest.mark.parametrize("observation", [{"state": gym_pusht.STATE}, {"pixels": gym_pusht.PIXELS}])
def test_pusht_is_made_for_the_policy(pusht, observation):
    specs = PolicySpecs(Specs(observation, gym_pusht.ACTION, 10.0))
    env = make_env_for("gym_pusht/PushT-v0", specs)
    assert set(observation) <= set(env.reset(seed=0)[0])
    env.close()
    slow = PolicySpecs(Specs(observation, gym_pusht.ACTION, 5.0))
    with pytest.raises(SpecError, match=r"the rates differ\n.*at 10 Hz\n.*at 5 Hz"):
        make_env_for("gym_pusht/PushT-v0", slow)


def test_unknown_ids_and_options_list_the_known_ones(pusht):
    with pytest.raises(UnknownNameError, match="known: gym_pusht/PushT-v0"):
        make_env("gym_pusht/PushT-v9")
    with pytest.raises(UnknownNameError, match="known: gym_aloha/AlohaInsertion-v0, gym_aloha/AlohaTransfer"):
        make_env("gym_aloha/Aloha-v0")
    with pytest.raises(UnknownNameError, match="unknown expert 'gym_pusht/PushT-v0'; known: metaworld/TASK"):
        load_entry(EXPERTS, "expert", "gym_pusht/PushT-v0")
    with pytest.raises(ConfigError, match="takes action_space 'planar_position' at policy_rate 10 Hz"):
        pusht(action_space="ee_pose")
    with pytest.raises(ConfigError, match="no option colour, size here; known: action_space, max_steps, obs"):
        pusht(colour=1, size=2)


# The peers' environment.


def test_it_is_refused_on_a_python_that_is_too_new(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("make_under_test", ROOT / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "install_packages", lambda *given: pytest.fail("it went on"))
    monkeypatch.setattr(module, "PEERS_NEWEST", (3, 10))
    assert module.install_peers() == 1
    assert "error: Meta-World needs Python 3.10 or older" in capsys.readouterr().err


def peers_python() -> str:
    """Of ROBOPOLICY_PEERS_PYTHON, else of .venv-peers, else empty."""
    here = ROOT / ".venv-peers" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return os.environ.get("ROBOPOLICY_PEERS_PYTHON", "") or (str(here) if here.is_file() else "")


def make_bundle(folder: Path, specs: Specs) -> None:
    """An untrained policy, exported."""
    torch.manual_seed(0)
    config = Config(
        channels=(8, 16), step_embedding=8, schedule=ScheduleConfig(training_steps=20, denoising_steps=2)
    )
    module = build(config, PolicySpecs(specs, Horizons(2, 8, 4)))
    run = folder.with_name(f".{folder.name}")
    save_policy(
        run / "policy",
        family="diffusion_unet",
        config=config,
        specs=module.policy_specs,
        normalisers=make_normalisers(module.policy_specs),
        weights=module.state_dict(),
    )
    export_bundle(run, folder, tolerance=0.1)  # how well is tested elsewhere


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_peers_own_tests_pass_under_their_python(tmp_path, one_thread):
    python = peers_python()
    if not python:
        pytest.skip("no .venv-peers (python3 make.py install-peers), nor ROBOPOLICY_PEERS_PYTHON")
    osc = ActionSpec((ActionPart("normalised", ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")),))
    sees = {"object": ArraySpec((10,)), "robot0_eef_pos": ArraySpec((3,), units=("m",) * 3)}
    arms = {"agent_pos": gym_aloha.observation_specs("image", (), (), (1, 1))["agent_pos"]}
    (tmp_path / "bundles").mkdir()
    for name, specs in {
        "metaworld--push-v3": Specs({"state": metaworld.STATE}, metaworld.ACTION, metaworld.RATE),
        "robosuite--Lift": Specs(sees, osc, 20.0),
        "gym_aloha--AlohaTransferCube-v0": Specs(arms, gym_aloha.ACTION, gym_aloha.RATE),
        "gym_aloha--AlohaInsertion-v0": Specs(arms, gym_aloha.ACTION, gym_aloha.RATE),
    }.items():
        make_bundle(tmp_path / "bundles" / name, specs)
    given = {"ROBOPOLICY_PEERS_BUNDLES": str(tmp_path / "bundles"), "OMP_NUM_THREADS": "1"}
    script = "tests/peers/test_environments.py"
    command = [python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", script]
    environment = {**os.environ, **given}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1400)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is not installed here" not in done.stdout and "names no folder" not in done.stdout, done.stdout
