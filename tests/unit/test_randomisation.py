"""Randomisation: what is drawn, what it does to the physics, and that nothing of it stays behind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulator is not installed")
pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from scipy import stats

from robopolicy.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from robopolicy_sim.randomisation import Randomisation
from robopolicy_sim.randomisation.config import presets
from robopolicy_sim.randomisation.distributions import parse_distribution
from robopolicy_sim.randomisation.kinds import KINDS
from robopolicy_sim.rendering import create_context
from robopolicy_sim.tasks.lift import LiftEnv


@pytest.fixture
def lift():
    """Makes environments, and closes them."""
    made = []

    def make(**options):
        made.append(LiftEnv(**options))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture
def opengl():
    try:
        create_context(8, 8).free()
    except MissingDependencyError as error:
        pytest.skip(f"no OpenGL: {error}")


def conditions(env, seed, **fixed):
    return env.reset(seed=seed, options={"conditions": fixed})[1]["conditions"]


def model_arrays(env):
    model = env.simulation.model
    names = [n for n in dir(model) if not n.startswith("_")]
    arrays = {n: getattr(model, n) for n in names if isinstance(getattr(model, n), np.ndarray)}
    arrays |= {"ambient": model.vis.headlight.ambient, "inertia": np.array(model.stat.meaninertia)}
    return {name: array.copy() for name, array in arrays.items()}


def differing(before, after):
    return sorted(n for n in before if not np.array_equal(before[n], after[n]))


def play(env, steps=10, seed=0):
    rng, size = np.random.default_rng(seed), env.specs.action.dim - 1
    base = env.simulation.last_command.copy()
    actions = [base + np.append(rng.uniform(-0.05, 0.05, size), -0.01) for _ in range(steps)]
    return [env.step(action)[0] for action in actions]


def equal(first, second):
    return all(np.array_equal(a[k], b[k]) for a, b in zip(first, second, strict=True) for k in a)


# What is drawn.


def test_every_distribution_draws_what_it_says():
    draws = 4000

    def sample(tree):
        rng = np.random.default_rng(0)
        distribution = parse_distribution(tree)
        return np.array([distribution.draw(rng) for _ in range(draws)])

    cases = {
        "uniform": ([2, 6], stats.uniform(2, 4)),
        "loguniform": ({"loguniform": [0.5, 8]}, stats.loguniform(0.5, 8)),
        "normal": (
            {"normal": {"mean": 1, "std": 2, "low": 0, "high": 2.5}},
            stats.truncnorm(-0.5, 0.75, 1, 2),
        ),
        "beta": ({"beta": {"a": 2, "b": 5, "low": -1, "high": 1}}, stats.beta(2, 5, -1, 2)),
    }
    for name, (tree, reference) in cases.items():
        assert stats.kstest(sample(tree), reference.cdf).pvalue > 0.01, name
    assert set(sample({"choice": ["a", "b", "c"]})) == {"a", "b", "c"}
    assert set(sample(0.5)) == {0.5} and set(sample({"constant": "x"})) == {"x"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"mas": 1}, "known: .*mass"),
        ({"mass": -1}, "0.01 to 100"),
        ({"mass": [0.5, -2]}, "low to high"),
        ({"mass:": 1}, "names no body"),
        ({"friction": {"gamma": [1, 2]}}, "known: .*loguniform"),
        ({"friction": [1, 2, 3]}, "choice"),
        ({"friction": {"loguniform": [0, 1]}}, "positive"),
        ({"friction": {"normal": {"mean": 1}}}, "mean, std"),
        ({"friction": {"normal": {"mean": 1, "std": 0.1}}}, "needs low and high"),
        ({"friction": {"normal": {"mean": 1, "std": 0.1, "low": 8, "high": 9}}}, "hardly"),
        ({"friction": True}, "expected"),
        ({"friction": "sticky"}, "0.01 to 10"),
        ({"friction": {"uniform": [1, 2], "each": 1}}, "each is true or false"),
        ({"gripper_force": {"uniform": [1, 2], "each": True}}, "only one"),
        ({"delay_actuation:x": 0}, "only one"),
        ({"delay_actuation": -0.01}, "0 to 1 s"),
        ({"texture": {"choice": ["checker", "stripes"]}}, "known: checker, gradient, noise, own"),
        ({"noise_joint": float("nan")}, "noise_joint"),
        ([1], "mapping"),
        ("no_such_preset", "known: .*heavy, light"),
        ("/nowhere/file.yaml", "cannot read"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tree, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        Randomisation.load(tree)


@pytest.mark.parametrize(
    ("key", "message"),
    [("mass:cup", "known: .*cube"), ("camera_x:top", "known: .*scene_camera"), ("kp:elbow", "fr3_joint1")],
)
def test_targets_that_the_scene_lacks_are_refused_with_those_it_has(lift, key, message):
    with pytest.raises(UnknownNameError, match=message):
        lift(randomisation={key: 0.0 if key.startswith("camera") else 1.0})
    env = lift()
    with pytest.raises(UnknownNameError, match=message):
        env.reset(seed=0, options={"conditions": {key: 0.0 if key.startswith("camera") else 1.0}})


def test_presets_and_files_load_and_run(lift, tmp_path):
    assert presets() == ["heavy", "light", "visual"]
    for name in presets():
        env = lift(randomisation=name)
        assert len(conditions(env, 0)) >= 10
        play(env, 2)
    light = conditions(lift(randomisation="light"), 0)
    assert conditions(lift(randomisation={"preset": "light", "mass": 2.0}), 0) == {**light, "mass": 2.0}
    path = tmp_path / "mine.yaml"
    path.write_text("mass:cube: [0.5, 2]\nfriction: {loguniform: [0.5, 2]}\n")
    assert set(conditions(lift(randomisation=path), 3)) == {"mass:cube", "friction"}
    assert conditions(lift(randomisation=str(path)), 3) == conditions(lift(randomisation=path), 3)


def test_conditions_are_a_function_of_the_seed_and_of_nothing_else(lift):
    first, second = lift(randomisation="heavy"), lift(randomisation="heavy")
    drawn = conditions(first, 5)
    conditions(second, 1)
    play(second, 3)
    assert conditions(second, 5) == drawn
    assert conditions(second, 6) != drawn
    # Another parameter more or less changes none of the others.
    fewer = Randomisation.load("heavy").parameters
    fewer = Randomisation({key: fewer[key] for key in ("friction", "kp")})
    alone = conditions(lift(randomisation=fewer), 5)
    assert alone == {key: drawn[key] for key in alone} and len(alone) == 8


def test_without_a_seed_every_episode_draws_anew_and_repeatably(lift):
    def three(env):
        env.reset(seed=4)
        return [env.reset()[1]["conditions"]["mass"] for _ in range(3)]

    drawn = three(lift(randomisation={"mass": [0.5, 2]}))
    assert len(set(drawn)) == 3
    assert drawn == three(lift(randomisation={"mass": [0.5, 2]}))


def test_the_initial_state_of_a_seed_is_the_same_with_and_without(lift):
    plain = lift()
    for options in (
        {"randomisation": {"mass": [0.5, 2], "kp": [0.5, 1.5]}},
        {"latency": {"actuation": 0.05}},
    ):
        varied = lift(**options)
        for seed in range(3):
            assert equal([plain.reset(seed=seed)[0]], [varied.reset(seed=seed)[0]])


def test_each_draws_one_value_per_target(lift):
    env = lift(randomisation={"kp": {"uniform": [0.5, 1.5], "each": True}, "light_brightness": [0.5, 1]})
    drawn = conditions(env, 0)
    servos = [f"kp:fr3_joint{i}" for i in range(1, 8)]
    assert set(drawn) == {*servos, "light_brightness"}
    assert len({drawn[name] for name in servos}) == 7
    with pytest.raises(ConfigError, match="more than once: kp:fr3_joint2"):
        lift(randomisation={"kp": {"uniform": [1, 2], "each": True}, "kp:fr3_joint2": 1.0})


@pytest.mark.parametrize("preset", ["light", "heavy"])
def test_conditions_given_back_repeat_an_episode_exactly(lift, preset):
    env = lift(randomisation=preset)
    first, info = env.reset(seed=11)
    run = play(env)
    other = lift()
    again, given = other.reset(seed=11, options={"conditions": info["conditions"]})
    assert given["conditions"] == info["conditions"]
    assert equal([first, *run], [again, *play(other)])
    assert other.reset(seed=11)[1]["conditions"] == {}


def test_fixed_conditions_leave_the_others_to_be_drawn(lift):
    env = lift(randomisation={"mass": [0.5, 2], "friction": [0.5, 2]})
    drawn = conditions(env, 3)
    assert conditions(env, 3, mass=1.25) == {**drawn, "mass": 1.25}
    with pytest.raises(ConfigError, match=r"0\.01 to 100"):
        env.reset(seed=0, options={"conditions": {"mass": -1.0}})
    with pytest.raises(ConfigError, match="options"):
        env.reset(seed=0, options={"mass": 1.0})


# That nothing stays behind.


def test_the_model_is_restored_bit_for_bit_after_a_thousand_resets(lift):
    every = {k: v for name in presets() for k, v in Randomisation.load(name).parameters.items()}
    env = lift(randomisation=Randomisation(every))
    pristine = model_arrays(lift(randomisation={"texture": "own"}))
    assert not differing(pristine, model_arrays(env))
    env.reset(seed=0)
    changed = differing(pristine, model_arrays(env))
    assert {"body_mass", "geom_friction", "actuator_gainprm", "light_dir", "cam_quat"} <= set(changed)
    for seed in range(1000):
        env.reset(seed=seed)
    env._randomiser.begin((0,), {})
    assert differing(pristine, model_arrays(env)) == ["tex_data"]  # what no material shows any more


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"texture", "texture_seed"}))
def test_every_kind_changes_something_and_leaves_no_trace(lift, kind):
    env = lift()
    env.reset(seed=2)
    before, run = model_arrays(env), play(env)
    spec = KINDS[kind]
    value = 1.5 if spec.unit == "x" else min(0.05, spec.high / 2)
    env.reset(seed=2, options={"conditions": {kind: value}})
    seen = differing(before, model_arrays(env)) or not equal(run, play(env))
    assert seen or kind in ("jitter_command", "noise_image", "noise_gripper") or env.simulation.path
    env.reset(seed=2)
    assert not differing(before, model_arrays(env))
    assert equal(run, play(env))


def test_nominal_values_change_nothing(lift):
    env = lift()
    first, _ = env.reset(seed=2)
    before, run = model_arrays(env), play(env)
    nominal = {name: kind.nominal for name, kind in KINDS.items()}
    again, info = env.reset(seed=2, options={"conditions": nominal})
    assert info["conditions"] == nominal
    for name, array in model_arrays(env).items():
        if name not in ("cam_mode", "cam_quat", "cam_mat0", "geom_sameframe"):  # other ways to say the same
            np.testing.assert_allclose(array, before[name], rtol=1e-6, atol=1e-12, err_msg=name)
    assert env.simulation.path is None and env.observation_age == 0
    assert equal([first, *run], [again, *play(env)])


def test_snapshots_come_back_to_an_episode_of_other_conditions(lift):
    env = lift(randomisation="heavy")
    env.reset(seed=1)
    play(env, 4)
    moment = env.snapshot()
    first = play(env, 6, seed=5)
    env.reset(seed=2)
    play(env, 3)
    env.restore(moment)
    assert equal(first, play(env, 6, seed=5))


# What it does to the physics.


def settle(env, ticks=150):
    for _ in range(ticks):
        env.command(env.simulation.last_command)


def test_masses_and_inertias_scale_together(lift):
    env = lift()
    model = env.simulation.model
    mass, inertia = model.body("cube").mass[0], model.body("cube").inertia.copy()
    conditions(env, 0, **{"mass:cube": 2.5})
    assert model.body("cube").mass[0] == pytest.approx(2.5 * mass)
    np.testing.assert_allclose(model.body("cube").inertia, 2.5 * inertia)
    assert model.body_subtreemass[model.body("cube").id] == pytest.approx(2.5 * mass)
    assert model.body_invweight0[model.body("cube").id, 0] == pytest.approx(1 / (2.5 * mass))
    conditions(env, 0, mass=2.0, **{"mass:cube": 1.5})  # factors multiply
    assert model.body("cube").mass[0] == pytest.approx(3.0 * mass)


def test_a_cube_slides_further_on_less_friction(lift):
    env, slid = lift(), []
    for friction in (0.3, 1.0):
        env.reset(seed=0, options={"conditions": {"friction:table": friction, "friction:cube": friction}})
        start = env.simulation.data.joint("cube").qpos[:2].copy()
        env.simulation.data.joint("cube").qvel[1] = 1.0
        settle(env, 100)
        slid.append(float(np.linalg.norm(env.simulation.data.joint("cube").qpos[:2] - start)))
    # v^2 / (2 mu g): mu 0.8 stops after 64 mm
    assert slid[1] == pytest.approx(1 / (2 * 0.8 * 9.81), rel=0.25)
    assert slid[0] == pytest.approx(slid[1] / 0.3, rel=0.25)


def test_softer_servos_sag_under_uncompensated_weight(lift):
    env, sag = lift(), []
    for stiffness in (1.0, 0.25):
        fixed = {"kp": stiffness, "gravity_compensation": 0.5}
        env.reset(seed=0, options={"conditions": fixed})
        settle(env)
        sag.append(env.simulation.last_command[3] - env.simulation.measured()[3])
    assert sag[0] > 5e-4
    assert sag[1] == pytest.approx(4 * sag[0], rel=0.1)


def test_damping_and_dry_friction_slow_the_arm(lift):
    lag = {}
    env = lift()
    for kind, value in (("none", 0), ("damping", 100.0), ("frictionloss", 20.0)):
        env.reset(seed=0, options={"conditions": {kind: value} if value else {}})
        target = env.simulation.last_command.copy()
        for _ in range(20):
            target[0] += 0.01
            env.command(target)
        lag[kind] = target[0] - env.simulation.measured()[0]
    assert lag["damping"] > lag["none"] + 1e-3 and lag["frictionloss"] > lag["none"] + 5e-4


def test_a_weak_gripper_closes_more_slowly(lift):
    env, moved = lift(), []
    for factor in (1.0, 0.2):
        env.reset(seed=0, options={"conditions": {"gripper_force": factor}})
        command = env.simulation.last_command.copy()
        opening, command[-1] = command[-1], 0.0
        env.command(command)
        moved.append(opening - env.simulation.measured()[-1])
    assert 0 < moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("fixed", [{"table_height": 0.03}, {"table_height": -0.03}, {"table_roll": 0.05}])
def test_a_table_that_moved_carries_the_cube(lift, fixed):
    env = lift()
    env.reset(seed=0, options={"conditions": fixed})
    start = env.simulation.data.joint("cube").qpos.copy()
    settle(env, 60)
    moved = env.simulation.data.joint("cube").qpos
    np.testing.assert_allclose(moved[:3], start[:3], atol=2e-3)  # it neither falls through nor jumps
    height = fixed.get("table_height", 0.05 * start[1])
    assert start[2] == pytest.approx(0.02 + height, abs=2e-3)
    tilt = 2 * np.arccos(min(abs(float(np.dot(moved[3:], start[3:]))), 1.0))
    assert tilt < 0.02
    assert env.simulation.model.body("fr3_link0").pos[2] == 0.0


# Sensors and commands.


def test_sensors_are_as_noisy_as_asked(lift):
    fixed = {"noise_joint": 0.01, "noise_gripper": 0.002, "noise_position": 0.005, "noise_rotation": 0.02}
    env, errors = lift(randomisation=fixed), {}
    for seed in range(150):
        seen, _ = env.reset(seed=seed)
        true = env.observation()
        for name in seen:
            errors.setdefault(name, []).append(seen[name].astype(float) - true[name])
    spread = {name: np.std(error, axis=0) for name, error in errors.items()}
    np.testing.assert_allclose(spread["joint_position"], 0.01, rtol=0.3)
    np.testing.assert_allclose(spread["gripper_opening"], 0.002, rtol=0.3)
    np.testing.assert_allclose(spread["cube_pose"][:3], 0.005, rtol=0.3)
    assert 0.3 * 0.02 < spread["cube_pose"][3:].mean() < 0.02
    # The tool's pose is that of the noisy joints, not noise of its own.
    joints = seen["joint_position"].astype(float)
    pose = env.robot.transform_tcp_to_base(joints)
    np.testing.assert_allclose(seen["ee_pose"][:3], pose[:3, 3], atol=1e-6)
    assert np.abs(np.mean(errors["joint_position"])) < 0.002
    np.testing.assert_array_equal(env.reset(seed=5)[0]["cube_pose"], env.reset(seed=5)[0]["cube_pose"])
    assert not np.array_equal(env.step(env.simulation.last_command)[0]["cube_pose"], seen["cube_pose"])


def test_command_noise_reaches_the_servos_but_not_what_was_commanded(lift):
    env = lift(randomisation={"noise_command:fr3_joint1": 0.01})
    env.reset(seed=0)
    sent, applied = env.simulation.last_command.copy(), []
    for _ in range(300):
        env.command(sent)
        applied.append(env.simulation.data.ctrl[env.simulation.actuators] - sent)
    spread = np.std(applied, axis=0)
    assert spread[0] == pytest.approx(0.01, rel=0.2) and np.all(spread[1:] == 0)
    np.testing.assert_array_equal(env.simulation.last_command, sent)


# Looks.


def test_pictures_show_every_change_and_the_state_none(lift, opengl):
    env = lift(observation_mode="all", image_size=(64, 64), randomisation={"texture:table": "own"})
    plain, _ = env.reset(seed=0)
    pictures = [plain["scene_camera"]]
    changes = [
        {"light_brightness": 0.4}, {"light_warmth": 0.4}, {"light_azimuth": 1.5}, {"ambient": 0.5},
        {"hue:cube": 0.4}, {"brightness:table": 0.6}, {"texture:table": "checker"},
        {"texture:table": "noise"},
        {"camera_x:scene_camera": 0.05}, {"camera_yaw:scene_camera": 0.05}, {"camera_roll:scene_camera": 0.1},
        {"camera_fovy:scene_camera": 0.1}, {"noise_image": 10.0},
    ]  # fmt: skip
    for change in changes:
        seen, _ = env.reset(seed=0, options={"conditions": change})
        assert equal([{"cube_pose": plain["cube_pose"]}], [{"cube_pose": seen["cube_pose"]}])
        pictures.append(seen["scene_camera"])
    for (i, one), (j, two) in itertools.combinations(enumerate(pictures), 2):
        assert np.abs(one.astype(int) - two).mean() > 0.2, (i, j)
    np.testing.assert_array_equal(env.reset(seed=0)[0]["scene_camera"], plain["scene_camera"])


def test_textures_are_repainted_in_a_living_renderer(lift, opengl):
    env = lift(observation_mode="image", image_size=(48, 48), randomisation={"texture:table": "gradient"})
    pictures = [env.reset(seed=s)[0]["scene_camera"] for s in (0, 1, 0)]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 2
    np.testing.assert_array_equal(pictures[0], pictures[2])
    with pytest.raises(ConfigError, match="no texture left"):
        lift().reset(seed=0, options={"conditions": {"texture:table": "noise"}})


def test_render_quality_is_fast_unless_asked(lift, opengl):
    shots = {}
    for quality in ("fast", "full"):
        env = lift(observation_mode="image", render_quality=quality)
        shots[quality] = env.reset(seed=0)[0]["scene_camera"]
    assert not np.array_equal(shots["fast"], shots["full"])
    assert np.array_equal(shots["fast"], lift(observation_mode="image").reset(seed=0)[0]["scene_camera"])
    with pytest.raises(ConfigError, match="'fast', 'full'"):
        lift(render_quality="best")


def test_timings_grow_with_physics_and_pictures(lift, opengl):
    env = lift(observation_mode="image", image_size=(32, 32))
    assert env.timings == {"physics": 0.0, "render": 0.0}
    env.reset(seed=0)
    rendered = env.timings["render"]
    assert rendered > 0 and env.timings["physics"] == 0
    play(env, 1)
    assert env.timings["physics"] > 0 and env.timings["render"] > rendered
