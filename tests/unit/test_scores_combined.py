"""Several scores by weight, through the reranker: who wins depends on the weights, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scoring import chunks, planar, situation, specs_of

from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import Prefix
from robopolicy.core.serial import from_tree
from robopolicy.runtime.reranking.build import build_reranker, build_scores
from robopolicy.runtime.reranking.config import RerankConfig, ScoreConfig, parse_selection
from robopolicy.runtime.reranking.scores import names, score_module

#: One action of the past, four that are executed, one a second.
SPECS = planar(horizons=Horizons(2, 5, 4), rate=1.0)
ZIGZAG, LINE, STEP = [0, 0, 0, 3, 0], [4, 4, 8, 12, 16], [0, 1, 1, 1, 1]
COMMITTED = Prefix(np.zeros((1, 5, 1), np.float32), np.array([[1, 1, 0, 0, 0]], np.float32))
#: Nothing was done, nothing is committed but to stay.
SEEN = situation(SPECS, 1, past=[[0.0]], prefix=COMMITTED)
BY_HAND = {
    "consistency": [0, -16, -1 / 2],
    "smoothness": [-(9 + 36) / 3, 0, -1 / 3],
    "past_tokens": [0, -16, 0],
    "temporal_logic": [3 - 10, 16 - 10, 1 - 10],
}
OPTIONS = {"smoothness": {"order": "acceleration"}, "temporal_logic": {"formula": "eventually x > 10"}}


class Three:
    """A policy that draws the same three chunks every time."""

    policy_specs = SPECS

    def sample(self, observation, noise, context):
        return np.array([[ZIGZAG, LINE, STEP]], np.float32)[..., None]


def choose(**weights: float):
    scores = tuple(ScoreConfig(name, weight, OPTIONS.get(name, {})) for name, weight in weights.items())
    reranker = build_reranker(Three(), RerankConfig(num_candidates=3, scores=scores))
    return reranker.choose(SEEN.observation, np.zeros((1, 3), np.float32), SEEN.context, SEEN.rng)


@pytest.mark.parametrize(
    "weights, winner",
    [
        ({"consistency": 1.0, "smoothness": 0.01}, ZIGZAG),  # -0.15, -16, -0.5
        ({"consistency": 1.0, "smoothness": 1.0}, STEP),  # -15, -16, -0.83
        ({"consistency": 0.01, "smoothness": 1.0}, LINE),  # -15, -0.16, -0.34
        ({"consistency": 1.0, "smoothness": 1.0, "temporal_logic": 1.0}, STEP),  # -22, -10, -9.83
        ({"consistency": 1.0, "smoothness": 1.0, "temporal_logic": 1.1}, LINE),  # -22.7, -9.4, -10.7
        ({"past_tokens": 1.0, "smoothness": 0.1, "temporal_logic": 1.0}, ZIGZAG),  # -8.5, -10, -9.03
        ({"smoothness": -1.0}, ZIGZAG),
    ],
)
def test_the_winner_changes_with_the_weights(weights: dict[str, float], winner: list[int]) -> None:
    choice = choose(**weights)
    for name in weights:
        np.testing.assert_allclose(choice.scores[name][0], BY_HAND[name], rtol=1e-12)
    total = sum(weight * np.array(BY_HAND[name]) for name, weight in weights.items())
    np.testing.assert_allclose(choice.total[0], total, rtol=1e-12)
    assert choice.chosen[0, :, 0].tolist() == winner


def test_every_score_but_the_critic_is_built_from_its_name_and_options() -> None:
    specs = specs_of()
    options = {"temporal_logic": {"formula": "always tool.z > 0.05"}}
    chosen = [name for name in names() if name != "critic"]
    config = RerankConfig(scores=parse_selection(chosen, options))
    made = build_scores(config, specs)
    assert [score.name for score, _ in made] == chosen
    for score, weight in made:
        values = score(chunks(specs), situation(specs, past=0.0))
        assert weight == 1 and score.unit and values.shape == (2, 5) and np.isfinite(values).all()
        assert values.dtype == np.float64 and values.flags.writeable


@pytest.mark.parametrize("name", [n for n in names() if n not in ("critic", "random_pick")])
def test_a_row_does_not_depend_on_its_neighbours_nor_a_candidate_on_its(name: str) -> None:
    specs, module = specs_of(), score_module(name)
    config = module.Config(**({"formula": "always tool.z > 0.4"} if name == "temporal_logic" else {}))
    score = module.build(config, specs, robot=None, critic=None)
    candidates = chunks(specs, 3, 4, spread=0.5)
    prefix = Prefix(candidates[:, 3], np.ones((3, 12), np.float32))
    whole = score(candidates, situation(specs, 3, past=0.0, prefix=prefix))
    one = Prefix(prefix.action[1:2], prefix.weight[1:2])
    alone = score(candidates[1:2, 2:3], situation(specs, 1, past=0.0, prefix=one))
    np.testing.assert_allclose(alone[0, 0], whole[1, 2], rtol=1e-12)
    assert len(np.unique(whole)) > 1


def test_options_from_a_file_are_checked() -> None:
    config = from_tree(RerankConfig, {"scores": [{"name": "workspace", "options": {"lower": [0, 0]}}]})
    with pytest.raises(ConfigError, match="a corner has finite x, y and z"):
        build_scores(config, specs_of())
