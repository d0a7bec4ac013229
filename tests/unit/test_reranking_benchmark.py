"""What the figures of benchmarks/reranking.py rest on: oracle, cheap control, interval of a gain."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from walking import Still, Walk

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from selection.cells import cells_of
from selection.gains import gain, two_way
from selection.oracle import SnapshotWorld, TwinWorld, evaluate_oracle
from selection.random_pick import LazyRandomPick
from selection.recipes import MIXED, PLAIN, SELECTORS

from robopolicy.evaluation.reranked import EvaluatedSelection
from robopolicy.evaluation.rollout import evaluate
from robopolicy.runtime.reranking.config import RerankConfig, ScoreConfig

SEEDS = [7, 3, 100, 4, 12, 5, 6, 20, 21, 22]


class Rewound(Walk):
    """A walk that goes back to a moment."""

    def snapshot(self):
        return self.place.copy(), self.steps

    def restore(self, moment):
        self.place, self.steps = moment[0].copy(), moment[1]


class Far(Rewound):
    """Rewards the distance, so that the best future is the farthest."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, -reward, *rest


@pytest.mark.parametrize("k", [1, 6])
def test_random_pick_for_the_price_of_one_is_random_pick(k):
    cheap = LazyRandomPick(Still(), k)
    chosen = EvaluatedSelection(Still(), RerankConfig(k, (ScoreConfig("random_pick"),)))
    assert evaluate(cheap, Walk, SEEDS) == evaluate(chosen, Walk, SEEDS)
    told = chosen.record()
    assert cheap.counts() == {"decisions": told.decisions, "other_than_first": told.other_than_first}


def test_the_oracle_takes_the_best_future_and_with_one_candidate_is_the_policy():
    alone, counts = evaluate_oracle(Still(), Far, SEEDS, 1)
    plain = evaluate(Still(), Far, SEEDS)
    assert counts["other_than_first"] == 0
    for mine, theirs in zip(alone, plain):
        assert (mine.seed, mine.steps, mine.success) == (theirs.seed, theirs.steps, theirs.success)
        assert mine.total_reward == pytest.approx(theirs.total_reward)
    best, counts = evaluate_oracle(Still(), Far, SEEDS, 12)
    assert counts["other_than_first"] > 0.7 * counts["decisions"]
    assert sum(r.success for r in best) > sum(r.success for r in plain)
    assert np.mean([r.max_reward for r in best]) > np.mean([r.max_reward for r in plain])


def test_looking_ahead_leaves_a_task_as_it_was():
    tasks = pytest.importorskip("robopolicy_sim.tasks.lift", reason="needs the simulator")
    env = tasks.LiftEnv()
    observation, _ = env.reset(seed=3)
    action = np.tile([*observation["joint_position"].tolist(), 0.04], (3, 1)).astype(np.float32)
    action[:, 0] += np.array([0.05, 0.1, 0.15], np.float32)
    world = SnapshotWorld(env)
    seen = world.foresee(action)
    before = env.observation()
    for name, value in before.items():
        np.testing.assert_array_equal(value, observation[name])
    assert world.foresee(action) == seen
    for row in action:
        _, reward, *_ = env.step(row)
    assert reward == pytest.approx(seen.reward) and not seen.success
    env.close()


def test_a_twin_of_push_t_foresees_what_happens():
    adapter = pytest.importorskip("robopolicy.evaluation.adapters.gym_pusht")
    pytest.importorskip("gym_pusht", reason="needs gym-pusht")
    env = adapter.PushTEnv()
    observation, _ = env.reset(seed=2)
    block = observation["state"][2:4]
    world = TwinWorld(env)
    for _ in range(3):
        actions = np.tile(block, (4, 1)).astype(np.float32)  # drives into the block
        seen = world.foresee(actions)
        for action in actions:
            _, reward, *_ = env.step(action)
        assert reward == pytest.approx(seen.reward, abs=0.03)
    env.close()


def test_human_actions_are_disturbed_alike_every_time():
    pytest.importorskip("pymunk", reason="needs gym-pusht")
    from selection.pusht import correlated

    noise = correlated(4000, 30.0, 10.0, np.random.default_rng(0))
    np.testing.assert_array_equal(noise, correlated(4000, 30.0, 10.0, np.random.default_rng(0)))
    assert noise.std() == pytest.approx(30.0, rel=0.15)
    neighbours = np.mean([np.corrcoef(noise[:-1, i], noise[1:, i])[0, 1] for i in range(2)])
    assert neighbours == pytest.approx(np.exp(-0.1), abs=0.03)


def test_the_interval_of_a_gain_covers_what_trainings_differ_by():
    rng = np.random.default_rng(0)
    steady = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=(3, 200))
    found = two_way(steady)
    assert found.value == pytest.approx(steady.mean()) and found.interval[0] > 0.1
    uneven = steady + np.array([[-0.4], [0.0], [0.4]])
    wider = two_way(uneven).interval
    assert wider[0] < 0 and wider[1] - wider[0] > 3 * (found.interval[1] - found.interval[0])
    alone = two_way(steady[:1])
    half = (alone.interval[1] - alone.interval[0]) / 2
    assert half == pytest.approx(1.96 * steady[0].std() / np.sqrt(200), rel=0.15)
    assert found.by_seed == tuple(steady.mean(axis=1))


def test_a_gain_pairs_the_same_training_and_the_same_start():
    base = [{"seed": s, "outcomes": {"1": False, "2": True}} for s in (0, 1)]
    other = [{"seed": 1, "outcomes": {"2": True, "1": True}}, {"seed": 2, "outcomes": {"1": True}}]
    found = gain(base, other, "outcomes")
    assert found is not None and found.by_seed == (0.5,)
    assert gain(base, other[1:], "outcomes") is None


def test_the_grid_has_one_cell_for_one_candidate_and_cheap_cells_first():
    cells = cells_of(MIXED[:2], range(3), SELECTORS, (1, 5, 100), (5,))
    assert len(set(cells)) == len(cells) == 2 * 3 * (2 + 4 * 2 + 1)
    assert [c for c in cells if c.count == 1 and c.selector not in (PLAIN, "bc_successes")] == []
    assert [c.seed for c in cells] == sorted(c.seed for c in cells)
    first = cells[: 2 + 4 * 2 + 1]
    assert first[0].selector == PLAIN and first[-1].selector == "oracle"
