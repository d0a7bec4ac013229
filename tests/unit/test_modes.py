"""Parts of benchmarks/mode_coverage.py: which side an episode ends on and where drawn chunks go."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import NO_CONTEXT
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import EXPERTS, load_entry

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from mode_coverage import as_table, summary
from modes.figure import draw_figure
from modes.sides import Drawn, Sided, draw, make_sided, outcomes

from robopolicy_sim.tasks.two_goal_reach import TwoGoalReachEnv

SEED = 2_000_000


class Still:
    """Commands the posture that it sees, the first joint shifted by its noise."""

    def __init__(self) -> None:
        env = TwoGoalReachEnv()
        self.policy_specs = PolicySpecs(env.specs, Horizons(2, 16, 8), noise_shape=(1,))

    def sample(self, observation, noise, context=NO_CONTEXT):
        joints = observation["joint_position"][:, -1]
        target = np.broadcast_to(joints[:, None, None], (*noise.shape[:2], 16, 7)).copy()
        target[..., 0] += 0.1 * noise
        return np.concatenate([target, np.full((*target.shape[:3], 1), 0.04)], -1).astype(np.float32)


def drawn_at(lateral: list[float]) -> Drawn:
    """Paths of one step that end at these places between the goals."""
    goals = {"left": np.array([0.5, 0.13, 0.03]), "right": np.array([0.5, -0.13, 0.03])}
    paths = np.array([[[0.4, 0.0, 0.2], [0.5, 0.13 * place, 0.03]] for place in lateral])
    return Drawn(paths, goals, np.zeros((4, 2)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_experts_side_is_told(side):
    env = Sided(TwoGoalReachEnv())
    expert = load_entry(EXPERTS, "expert", "two_goal_reach")()
    seed = next(s for s in range(20) if reset(env, expert, s) == side)
    reset(env, expert, seed)
    done, info = False, {}
    while not done:
        _, _, terminated, truncated, info = env.step(expert.act())
        done = terminated or truncated
    assert info[f"reached_{side}"] == 1.0
    assert info[f"reached_{'left' if side == 'right' else 'right'}"] == 0.0


def reset(env, expert, seed: int) -> str:
    env.reset(seed=seed)
    expert.reset(env.unwrapped, seed)
    return expert.side


def test_a_policy_that_stays_reaches_no_goal():
    counts = outcomes(Still(), range(SEED, SEED + 2), 2, Console(quiet=True))
    assert counts == [Counter(none=2)] * 2


def test_drawn_paths_begin_at_the_tool_and_spread_with_the_noise():
    policy = Still()
    found = draw(policy, SEED, 20)
    env = make_sided(policy.policy_specs)
    env.reset(seed=SEED)
    tool = env.unwrapped.simulation.transform_tcp_to_base()[:3, 3]
    assert found.paths.shape == (20, 15, 3)
    assert np.abs(found.paths[:, 0] - tool).max() < 0.3
    assert np.ptp(found.lateral) > 0.1
    radius = np.linalg.norm(found.paths[:, 0, :2], axis=-1)
    np.testing.assert_allclose(radius, np.linalg.norm(tool[:2]), atol=1e-3)  # joint 1 turns about the base


def test_ends_are_counted_by_side():
    drawn = drawn_at([1.0, 0.9, 0.2, -0.4, -0.8])
    np.testing.assert_allclose(drawn.lateral, [1.0, 0.9, 0.2, -0.4, -0.8])
    assert drawn.sides() == Counter(left=2, none=2, right=1)


def test_the_summary_counts_states_with_both_goals(tmp_path):
    counts = [Counter(left=2, right=1, none=1), Counter(left=4), Counter(none=3, right=1)]
    row = summary(counts, drawn_at([1.0, -1.0, 0.0]))
    assert row["episodes"] == 12 and row["states_with_both"] == 1
    assert [row[side]["count"] for side in ("left", "right", "none")] == [6, 2, 4]
    low, high = row["left"]["interval"]
    assert low < 0.5 < high
    assert as_table({"gmm": row}).row_count == 1
    draw_figure(tmp_path / "modes.png", {"gmm": drawn_at([1.0, -1.0])}, {"gmm": counts})
    assert (tmp_path / "modes.png").stat().st_size > 1000
