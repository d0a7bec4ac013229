"""Goals: later instants of the same episode in training, from outside at inference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power import UnsyncedFiles
from reference.windows import window
from synthetic import make_episode, make_specs, make_windows

from robopolicy.core.errors import ConfigError, ShapeError, SpecError, StoreError
from robopolicy.core.goals import goal_keys, select, without
from robopolicy.core.horizons import Horizons
from robopolicy.core.plant import Stamped
from robopolicy.core.policy import NO_CONTEXT
from robopolicy.core.specs import PolicySpecs, Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.goals import GoalConfig
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows, align
from robopolicy.evaluation.goals import GoalPlant, GoalPolicy, load_goals
from robopolicy.evaluation.observations import sample_windows

SPECS = make_specs(image=True)
LENGTHS = (1, 6, 3, 9)
KEYS = ("joints", "goal.joints", "goal.scene", "scene", "goal.points")
HORIZONS = Horizons(3, 5, 2)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[EpisodeStore, list[Episode]]:
    episodes = [make_episode(SPECS, length, seed) for seed, length in enumerate(LENGTHS)]
    path = tmp_path_factory.mktemp("goals") / "demos.zarr"
    store = EpisodeStore.create(path, SPECS, files=UnsyncedFiles())
    for episode in episodes:
        store.append(episode)
    return store, episodes


@pytest.fixture(scope="module")
def store(recorded) -> EpisodeStore:
    return recorded[0]


@settings(max_examples=30)
@given(data=st.data(), memory=st.sampled_from([0, 1 << 30]), final=st.booleans())
def test_every_goal_is_that_of_the_reference(recorded, data, memory, final):
    store, episodes = recorded
    windows = Windows(store, HORIZONS, KEYS, goal=GoalConfig("future"), memory_bytes=memory)
    places = [(episode, t) for episode in episodes for t in range(len(episode))]
    rows = data.draw(st.lists(st.integers(0, len(places) - 1), min_size=1, max_size=5))
    shares = st.lists(st.floats(0, 1, exclude_max=True), min_size=len(rows), max_size=len(rows))
    ahead = None if final else data.draw(shares)
    batch = windows.batch(np.array(rows), None if ahead is None else np.array(ahead))
    for row, chosen in enumerate(rows):
        episode, t = places[chosen]
        observation, action = align(episode, SPECS)
        whole = {"action": action, "observation": observation}
        share = None if ahead is None else ahead[row]
        frames, _, _ = window(whole, [("joint_position", 3)], t, 3, 5, share)
        for key in KEYS:
            np.testing.assert_array_equal(batch.observation[key][row], np.stack(frames[key]))


def test_the_goals_of_an_epoch_lie_ahead_all_alike(store):
    """And are a pure function of (seed, epoch), wherever the epoch is resumed."""
    windows = Windows(store, Horizons(1, 1, 1), ("joints", "goal.joints"), goal=GoalConfig("future"))
    steps = windows.observation["joints"]
    drawn = Counter()
    for epoch in range(400):
        order = windows.order(seed=2, epoch=epoch)
        (batch,) = windows.epoch(len(windows), seed=2, epoch=epoch)
        distance = np.abs(batch.observation["goal.joints"][:, 0, None] - steps[None]).sum(-1)
        goals = distance.argmin(axis=1)
        for current, goal in zip(order.tolist(), goals.tolist()):
            drawn[current, goal] += 1
    first = np.cumsum([0, *LENGTHS])
    for number, length in enumerate(LENGTHS):
        for t in range(length):
            later = range(t + 1, length) if t + 1 < length else [t]
            counts = [drawn.pop((first[number] + t, first[number] + k)) for k in later]
            expected = 400 / len(later)
            assert np.abs(np.array(counts) - expected).max() < 5 * np.sqrt(expected) + 1e-9, (t, counts)
    assert not drawn  # nothing else, no other episode

    def goals_of(epoch, skip=0):
        batches = windows.epoch(4, seed=2, epoch=epoch, skip=skip)
        return [batch.observation["goal.joints"].tobytes() for batch in batches]

    assert goals_of(0) == goals_of(0) and goals_of(0, skip=2) == goals_of(0)[2:]
    assert goals_of(0) != goals_of(1)


def test_the_final_goal_is_drawn_by_nothing(store):
    for goal in (None, GoalConfig("final")):
        windows = Windows(store, HORIZONS, KEYS, goal=goal)
        for batch in windows.epoch(4, seed=0, epoch=0):
            last = batch.observation["goal.joints"][:, 0]
            assert all((episode_end == windows.observation["joints"]).all(-1).any() for episode_end in last)
        ends = windows.observation["joints"][np.cumsum(LENGTHS) - 1]
        (batch,) = windows.epoch(len(windows), seed=1, epoch=3)
        found = {row.tobytes() for row in batch.observation["goal.joints"][:, 1]}
        assert found == {row.tobytes() for row in ends}


def test_goals_cost_no_memory_beside_their_source_and_normalise_like_it(store):
    plain = Windows(store, HORIZONS, ("joints", "scene"))
    both = Windows(store, HORIZONS, ("joints", "scene", "goal.joints", "goal.scene"))
    assert both.memory_bytes == plain.memory_bytes
    assert both.specs.observation["goal.scene"] == SPECS.observation["scene"]
    assert both.observation["goal.joints"] is both.observation["joints"]
    alone = Windows(store, HORIZONS, ("joints", "goal.points"))
    assert list(alone.specs.observation) == ["joints", "goal.points"]
    assert sorted(alone.batch(np.arange(3)).observation) == ["goal.points", "joints"]
    assert Windows(store, HORIZONS, ("joints", "goal.scene"), memory_bytes=0).on_demand == ["scene"]


def test_a_goal_that_was_recorded_is_taken_as_it_is(tmp_path):
    specs = select(make_specs(), ("joints", "goal.joints"))
    store = EpisodeStore.create(tmp_path / "s.zarr", specs, files=UnsyncedFiles())
    episode = make_episode(specs, 5)
    store.append(episode)
    batch = Windows(store, Horizons(1, 1, 1), ("goal.joints",)).batch(np.arange(5))
    np.testing.assert_array_equal(
        batch.observation["goal.joints"][:, 0], episode.observation["goal.joints"].value
    )


def test_bad_goals_are_refused(store):
    with pytest.raises(SpecError, match=r"to make \['goal.nose'\] of; there are \['goal', 'joints'"):
        Windows(store, HORIZONS, ("joints", "goal.nose"))
    with pytest.raises(SpecError, match=r"goal\.nose"):
        select(SPECS, ("goal.nose",))
    with pytest.raises(ConfigError, match=r"'last' is not one of \('final', 'future'\)"):
        GoalConfig("last")
    assert goal_keys(["goal", "goal.a", "a.goal", "goals.a"]) == ["goal.a"]


# -- from outside ------------------------------------------------------------------------------------------


class Remembering:
    """A policy that keeps what it was given."""

    def __init__(self, specs: PolicySpecs, digest: str = "") -> None:
        self.policy_specs, self.digest = specs, digest

    def sample(self, observation, noise, context=NO_CONTEXT):
        self.given, self.context = observation, context
        return np.zeros((*noise.shape[:2], *self.policy_specs.chunk_shape), np.float32)


def policy_specs(*keys: str) -> PolicySpecs:
    return PolicySpecs(select(SPECS, keys), HORIZONS)


def test_the_goal_of_an_episode_is_what_training_takes(recorded):
    store, episodes = recorded
    specs = policy_specs("joints", "goal.points", "goal.scene")
    for text, episode in (("#1", episodes[1]), ("#000003", episodes[3])):
        goals = load_goals(f"{store.where}{text}", specs)
        observation, _ = align(episode, SPECS)
        assert sorted(goals) == ["goal.points", "goal.scene"]
        np.testing.assert_array_equal(goals["goal.points"], observation["points"][-1])
        np.testing.assert_array_equal(goals["goal.scene"], observation["scene"][-1])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{store}", ConfigError, "STORE#EPISODE"),
        ("#3", ConfigError, "STORE#EPISODE"),
        ("{store}#", ConfigError, "STORE#EPISODE"),
        ("{store}#last", ConfigError, "STORE#EPISODE"),
        ("{store}#7", StoreError, "no episode '000007'"),
        ("/nowhere.zarr#0", StoreError, "/nowhere.zarr"),
    ],
)
def test_what_is_no_goal_is_said(store, text, error, message):
    with pytest.raises(error, match=message):
        load_goals(text.format(store=store.where), policy_specs("joints", "goal.points"))


def test_a_policy_without_goals_takes_none(store):
    with pytest.raises(SpecError, match=r"takes no goals; it sees \['joints'\]"):
        load_goals(f"{store.where}#0", policy_specs("joints"))
    smaller = make_specs(image=True)
    pixels = {**smaller.observation, "goal.joints": smaller.observation["points"]}
    specs = PolicySpecs(Specs(pixels, smaller.action, 10.0), HORIZONS)
    with pytest.raises(ShapeError, match=r"goal\.joints"):  # the store has another shape
        load_goals(f"{store.where}#0", specs)


def test_a_policy_under_a_goal_sees_it_throughout(store):
    specs = policy_specs("joints", "goal.points", "goal.scene")
    inner = Remembering(specs, digest="ab")
    goals = load_goals(f"{store.where}#1", specs)
    policy = GoalPolicy(inner, goals)
    assert list(policy.policy_specs.specs.observation) == ["joints"]
    sensed = make_windows(policy.policy_specs, 4)
    policy.sample(sensed, np.zeros((4, 2), np.float32))
    specs.specs.check_observation(inner.given)
    assert inner.given["joints"] is sensed["joints"] and inner.given["goal.scene"].dtype == np.uint8
    for key, goal in goals.items():
        assert inner.given[key].shape == (4, 3, *goal.shape)
        assert (inner.given[key] == goal).all() and inner.given[key].flags.writeable
    others = [GoalPolicy(inner, load_goals(f"{store.where}#{n}", specs)).digest for n in (1, 2)]
    assert others[0] == policy.digest != others[1]  # another goal is another policy to a journal
    assert GoalPolicy(Remembering(specs), goals).digest == ""


def test_goals_that_do_not_fit_are_refused():
    specs = policy_specs("joints", "goal.points", "goal.scene")
    with pytest.raises(SpecError, match=r"no \['goal.joints'\]; its goals are"):
        GoalPolicy(Remembering(specs), {"goal.joints": np.zeros(2)})
    with pytest.raises(ShapeError, match=r"goal.points"):
        GoalPolicy(Remembering(specs), {"goal.points": np.zeros((2, 2))})
    with pytest.raises(SpecError, match="must be uint8"):
        GoalPolicy(Remembering(specs), {"goal.scene": np.zeros((16, 16, 3))})
    assert list(without(specs, ["goal.points"]).specs.observation) == ["joints", "goal.scene"]
    with pytest.raises(SpecError, match="at least one observation"):
        without(policy_specs("goal.points"), ["goal.points"])


def test_a_plant_shows_its_goals_as_fresh_as_what_it_senses():
    class Arm:
        specs, control_rate = make_specs().select(("joints", "goal")), 500.0

        def observe(self):
            return {"joints": Stamped(np.zeros(2), 7), "goal": Stamped(np.ones(2), 9)}

    specs = policy_specs("joints", "goal", "goal.points")
    plant = GoalPlant(Arm(), {"goal.points": np.ones((3, 2))}, specs)
    assert plant.control_rate == 500.0
    assert plant.specs.observation == specs.specs.observation
    seen = plant.observe()
    assert seen["goal.points"].time_ns == 9 and seen["joints"].time_ns == 7
    np.testing.assert_array_equal(seen["goal.points"].value, np.ones((3, 2)))


def test_a_sample_of_a_store_shows_goals_too(store):
    sample = sample_windows(store, policy_specs("joints", "goal.scene"), 6)
    assert sample.observation["goal.scene"].shape == (6, 3, 16, 16, 3)
    assert sample.episode.tolist() == sorted(sample.episode.tolist())


def test_an_evaluation_under_a_goal(tmp_path):
    """From a store to eval.json, by the command's own function."""
    pytest.importorskip("mujoco", reason="the simulator is not installed")
    import torch

    from robopolicy.cli import eval as command
    from robopolicy.core.normalise import Normalisers
    from robopolicy.datasets.recorder import record
    from robopolicy.evaluation.stored import read_evaluation
    from robopolicy.models.noise_schedule import ScheduleConfig
    from robopolicy.policies._saved import save_policy
    from robopolicy.policies.diffusion_unet import Config, build
    from robopolicy_sim.experts.two_goal_reach import TwoGoalReachExpert
    from robopolicy_sim.tasks.two_goal_reach import TwoGoalReachEnv

    env = TwoGoalReachEnv()
    store = EpisodeStore.create(tmp_path / "demos.zarr", env.specs, files=UnsyncedFiles())
    record(env, TwoGoalReachExpert(), store, range(2))
    env.close()
    windows = Windows(store, Horizons(1, 4, 4), ("joint_position", "goal.ee_pose"))
    specs = PolicySpecs(windows.specs, windows.horizons)
    torch.manual_seed(0)
    config = Config(channels=(8,), schedule=ScheduleConfig(denoising_steps=2))
    module = build(config, specs)
    save_policy(
        tmp_path / "policy",
        family="diffusion_unet",
        config=config,
        specs=module.policy_specs,
        normalisers=Normalisers.fit(specs.specs, windows.observation, windows.action, "min_max"),
        weights=module.state_dict(),
    )
    hashes = []
    for goal in ("", f"{store.where}#0", f"{store.where}#1"):
        output = tmp_path / f"eval{len(hashes)}"
        args = command.Args(
            tmp_path / "policy", output, "two_goal_reach", episodes=1, executor="inline", report=False,
            goal=goal,
        )  # fmt: skip
        if not goal:
            with pytest.raises(SpecError, match=r"goals can come from --goal STORE#EPISODE"):
                command.run(args)
            continue
        assert command.run(args) == 0
        hashes.append(read_evaluation(output / "eval.json").episodes[0].action_hash)
    assert hashes[0] != hashes[1]  # the arm was sent elsewhere
    assert Path(tmp_path / "eval0" / "eval.json").is_file()
