"""Objectives of critics against small problems whose values are known in closed form."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.horizons import Horizons
from robopolicy.core.language import INSTRUCTION
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.datasets.transitions import ReturnRange, TransitionBatch
from robopolicy.models.critics import CriticConfig, EnsembleCritic
from robopolicy.steering import objectives
from robopolicy.steering.objectives import cal_ql, iql, monte_carlo
from robopolicy.steering.objectives._objective import Objective, next_inputs, smallest
from robopolicy.steering.objectives._unseen import UnseenConfig, draw_unseen

GAMMA = 0.9
START, FORK, END = 0, 1, 2
RETURNS = ReturnRange(mean=0.2, deviation=0.5, lowest=0.0, highest=1.0)
SPECS = PolicySpecs(
    Specs({"where": ArraySpec((3,))}, ActionSpec((ActionPart("joint_position", ("a",)),)), policy_rate=10.0),
    Horizons(1, 1, 1),
)
#: From START the action 0 leads to the FORK. There -1 was done three times and gave nothing, +1 once and gave
#: 1; either ends the episode. Rows of (state, action, reward, next state, next action, return).
CHAIN = [
    *[(START, 0.0, 0.0, FORK, -1.0, 0.0)] * 3,
    (START, 0.0, 0.0, FORK, 1.0, GAMMA),
    *[(FORK, -1.0, 0.0, END, 0.0, 0.0)] * 3,
    (FORK, 1.0, 1.0, END, 0.0, 1.0),
]


def seen(states: Tensor) -> dict[str, Tensor]:
    return {"where": torch.nn.functional.one_hot(states.long(), 3).float()[:, None]}


def batch_of(rows: list[tuple], **changes) -> TransitionBatch:
    state, action, reward, after, following, gained = (torch.tensor(c) for c in zip(*rows))
    batch = TransitionBatch(
        observation=seen(state),
        action=action[:, None, None],
        mask=torch.ones(len(rows), 1, dtype=torch.bool),
        instruction=torch.zeros(len(rows), dtype=torch.int64),
        next_observation=seen(after),
        next_action=following[:, None, None],
        reward=reward,
        discount=torch.where(after == END, 0.0, GAMMA),
        mc_return=gained.float(),
        success=gained > 0,
        index=torch.arange(len(rows)),
        next_index=torch.arange(len(rows)),
    )
    return dataclasses.replace(batch, **changes)


def make_critic(**options) -> EnsembleCritic:
    torch.manual_seed(0)
    return EnsembleCritic(CriticConfig(**{"members": 2, "hidden": (32, 32), **options}), SPECS)


def taught(objective: Objective, batch: TransitionBatch, steps: int = 500) -> Objective:
    optimiser = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        optimiser.zero_grad()
        objective.loss(batch, generator).backward()
        optimiser.step()
        objective.after_step()
    return objective


@torch.no_grad()
def value(critic: EnsembleCritic, state: int, action: float) -> float:
    conditioning = critic.encode(seen(torch.tensor([state])))
    values = critic.value(conditioning, torch.full((1, 1, 1), float(action)))
    assert values.shape == (1, critic.members)
    return float(values.mean())


def test_monte_carlo_learns_the_mean_return():
    critic = taught(monte_carlo.build(monte_carlo.Config(), make_critic(), RETURNS), batch_of(CHAIN)).critic
    assert value(critic, FORK, -1) == pytest.approx(0, abs=0.03)
    assert value(critic, FORK, 1) == pytest.approx(1, abs=0.03)
    assert value(critic, START, 0) == pytest.approx(GAMMA / 4, abs=0.03)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.99])
def test_iql_learns_the_expectile_of_what_was_done(expectile):
    """Of {0, 0, 0, 1}: 3 (1 - t) v = t (1 - v). t = 0.5 is the mean (SARSA), t towards 1 the maximum."""
    config = iql.Config(expectile=expectile, target_rate=0.1)
    objective = taught(iql.build(config, make_critic(), RETURNS), batch_of(CHAIN), 700)
    expected = expectile / (expectile + 3 * (1 - expectile))
    with torch.no_grad():
        assert float(objective.state_value(seen(torch.tensor([FORK])))) == pytest.approx(expected, abs=0.04)
    assert value(objective.critic, START, 0) == pytest.approx(GAMMA * expected, abs=0.04)
    assert value(objective.critic, FORK, 1) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("backup", "pool", "expected"),
    [
        ("data", None, GAMMA / 4),
        ("auto", None, GAMMA / 4),
        ("auto", (-1.0, 1.0), GAMMA / 2),
        ("policy_mean", (-1.0, 1.0), GAMMA / 2),
        ("policy_max", (-1.0, 1.0), GAMMA),
    ],
)
def test_temporal_differences_follow_the_data_or_the_policy(backup, pool, expected):
    chunks = None if pool is None else torch.tensor(pool)[None, :, None, None].expand(len(CHAIN), -1, 1, 1)
    config = cal_ql.Config(alpha=0.0, backup=backup, target_rate=0.1)
    batch = batch_of(CHAIN, policy_chunks=chunks, next_policy_chunks=chunks)
    critic = taught(cal_ql.build(config, make_critic(), RETURNS), batch).critic
    assert value(critic, START, 0) == pytest.approx(expected, abs=0.04)


def one_likely_chunk(*, calibrated: bool, alpha: float) -> EnsembleCritic:
    """Taught in one state, where the data did +1 and got 0.3, and the policy does -1."""
    rows = [(FORK, 1.0, 0.3, END, 0.0, 0.3)] * 4
    likely = torch.full((4, 1, 1, 1), -1.0)
    config = cal_ql.Config(uniform=0, policy=1, alpha=alpha, calibrated=calibrated)
    objective = cal_ql.build(config, make_critic(), RETURNS)
    return taught(objective, batch_of(rows, policy_chunks=likely)).critic


def test_cql_lowers_what_was_not_done_and_cal_ql_stops_at_the_return():
    """Per member ((Q_data - r) / s)^2 + alpha (Q_other - Q_data) / s: Q_data = r + alpha s / 2, and nothing
    holds Q_other. Calibrated, max(Q_other, r) takes its place: below r nothing pushes it any more."""
    alpha, scale = 0.4, RETURNS.deviation
    for calibrated in (False, True):
        critic = one_likely_chunk(calibrated=calibrated, alpha=alpha)
        assert value(critic, FORK, 1) == pytest.approx(0.3 + alpha * scale / 2, abs=0.03)
        other = value(critic, FORK, -1)
        assert -1 < other < 0.35 if calibrated else other < -10


@pytest.mark.parametrize(("gained", "pushed"), [(100.0, False), (-100.0, True)])
def test_below_the_return_likely_chunks_are_left_alone_and_others_are_not(gained, pushed):
    config = cal_ql.Config(uniform=4, policy=1, temperature=1000.0)  # hot: all weigh alike
    objective = cal_ql.build(config, make_critic(), RETURNS)
    likely = torch.full((4, 1, 1, 1), -1.0)
    batch = batch_of([(FORK, 1.0, 0.3, END, 0.0, gained)] * 4, policy_chunks=likely)
    asked = torch.zeros(4, 5, 2, requires_grad=True)  # the likely one first
    objective.critic.values = lambda conditioning, chunks: asked + 0 * chunks.sum()
    objective.loss(batch, torch.Generator().manual_seed(1)).backward()
    assert bool((asked.grad[:, 0] > 0).all()) == bool((asked.grad[:, 0] != 0).any()) == pushed
    assert (asked.grad[:, 1:] > 0).all()


def test_the_soft_maximum_is_that_of_a_prior():
    """T log E[exp(Q / T)] of Q = c a, a uniform in -1..1, is T log(sinh(c / T) / (c / T))."""
    rate, temperature = 3.0, 0.7
    actions = torch.linspace(-1, 1, 20001, dtype=torch.float64)[None, :, None]
    found = float(cal_ql.soft_maximum(rate * actions, temperature))
    ratio = rate / temperature
    assert found == pytest.approx(temperature * math.log(math.sinh(ratio) / ratio), rel=1e-3)
    few = torch.tensor([1.0, 2.0, 6.0])[None, :, None]
    assert float(cal_ql.soft_maximum(few, 1e-3)) == pytest.approx(6.0, abs=0.01)
    assert float(cal_ql.soft_maximum(few, 1e3)) == pytest.approx(3.0, abs=0.01)


def test_unseen_chunks_come_from_the_policy_or_else_from_the_data():
    generator = torch.Generator().manual_seed(0)
    batch = batch_of(CHAIN)
    alone = draw_unseen(UnseenConfig(noise=0.05), batch, generator)
    assert alone.likely.shape == (8, 4, 1, 1) and alone.other.shape == (8, 8, 1, 1)
    assert (alone.likely - batch.action[:, None]).abs().max() < 0.5
    assert set(alone.other[:, 4:].flatten().tolist()) == {-1.0, 0.0, 1.0}
    pool = torch.arange(48.0).reshape(8, 6, 1, 1)
    batch = dataclasses.replace(batch, policy_chunks=pool, next_policy_chunks=pool + 100)
    drawn = draw_unseen(UnseenConfig(), batch, generator)
    assert drawn.likely.shape == (8, 8, 1, 1) and drawn.other.shape == (8, 4, 1, 1)
    assert drawn.other.abs().max() <= 1
    for row, (mine, after) in enumerate(zip(drawn.likely[:, :4], drawn.likely[:, 4:])):
        assert (
            set(mine.flatten().tolist()) <= set(pool[row].flatten().tolist()) and mine.unique().numel() == 4
        )
        assert (after > 99).all()


def test_noisy_copies_are_as_smooth_as_what_they_are_copies_of():
    long = torch.zeros(3, 16, 2)
    batch = dataclasses.replace(batch_of(CHAIN[:3]), action=long)
    copies = draw_unseen(UnseenConfig(noise=0.1), batch, torch.Generator().manual_seed(0)).likely
    bends = copies.diff(n=2, dim=2).abs().max()
    assert bends < 1e-6 and copies.std() > 0.05 and copies.diff(dim=2).abs().min() > 0
    assert len(copies[:, :, 8].unique()) == 24  # each its own


def test_held_out_batches_are_asked_about_anywhere_in_them():
    """They are in the order of time: the first rows would all be of one episode."""
    config = cal_ql.Config(unseen_rows=2, alpha=1.0)
    objective = cal_ql.build(config, make_critic(), RETURNS).eval()
    rows, inner = set(), objective.critic.values

    def values(conditioning, chunks):
        rows.update(conditioning[:, 0].tolist())
        return inner(conditioning, chunks)

    objective.critic.values = values
    objective.critic.encode = lambda seen: torch.arange(8.0)[:, None].expand(-1, 64)
    objective.encode = lambda observation, generator: torch.arange(8.0)[:, None].expand(-1, 64).clone()
    for seed in range(12):
        objective.loss(batch_of(CHAIN), torch.Generator().manual_seed(seed))
    assert len(rows) > 4


def test_targets_take_the_smallest_of_some_members():
    values = torch.tensor([[3.0, 1.0, 2.0]])
    generator = torch.Generator().manual_seed(0)
    assert smallest(values, 0, generator).item() == 1
    pairs = {smallest(values, 2, generator).item() for _ in range(40)}
    assert pairs == {1.0, 2.0}


def test_targets_take_two_members_unless_told_otherwise():
    assert iql.Config().target_members == cal_ql.Config().target_members == 2


def test_targets_follow_slowly_and_stay_within_what_can_be_reached():
    objective = iql.build(iql.Config(target_rate=0.25), make_critic(), RETURNS)
    before = objective.target.act.weight.clone()
    with torch.no_grad():
        objective.critic.act.weight += 1
    objective.after_step()
    torch.testing.assert_close(objective.target.act.weight, before + 0.25)
    assert not any(p.requires_grad for p in objective.target.parameters())
    target = objective.bootstrapped(batch_of(CHAIN), torch.full((8,), 9.0))
    assert target.max() == RETURNS.highest and target[4] == 0


@pytest.mark.parametrize("name", objectives.names())
def test_every_objective_is_a_pure_function_of_weights_batch_and_generator(name):
    module = objectives.objective(name)
    objective = module.build(module.Config(), make_critic(), RETURNS)
    before = {key: weight.clone() for key, weight in objective.state_dict().items()}
    losses = [objective(batch_of(CHAIN), torch.Generator().manual_seed(5)).item() for _ in range(2)]
    assert losses[0] == losses[1] and math.isfinite(losses[0])
    assert all(torch.equal(before[key], weight) for key, weight in objective.state_dict().items())
    assert objective.metrics()["value"] == pytest.approx(RETURNS.mean, abs=0.5)
    own = set(objective.critic.state_dict())
    assert {key.removeprefix("critic.") for key in before if key.startswith("critic.")} == own


@pytest.mark.parametrize("name", objectives.names())
def test_rewards_in_other_units_make_no_other_loss(name):
    module, losses = objectives.objective(name), []
    for unit in (1.0, 100.0):
        returns = ReturnRange(*(unit * field for field in dataclasses.astuple(RETURNS)))
        objective = module.build(module.Config(), make_critic(), returns)
        batch = batch_of(CHAIN)
        batch = dataclasses.replace(batch, reward=unit * batch.reward, mc_return=unit * batch.mc_return)
        losses.append(objective.loss(batch, torch.Generator().manual_seed(5)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_next_window_keeps_the_instruction():
    batch = batch_of(CHAIN)
    told = dataclasses.replace(batch, observation={**batch.observation, INSTRUCTION: torch.ones(8, 4)})
    assert next_inputs(told)[INSTRUCTION] is told.observation[INSTRUCTION]
    assert set(next_inputs(batch)) == {"where"}


def test_an_unknown_objective_lists_the_known():
    with pytest.raises(UnknownNameError, match="'sac'; known: cal_ql, iql, monte_carlo"):
        objectives.objective("sac")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: iql.Config(expectile=1.0), r"expectile 1.0 not in \(0, 1\)"),
        (lambda: iql.Config(target_rate=0.0), "target_rate 0.0"),
        (lambda: cal_ql.Config(alpha=-1.0), "alpha must be >= 0"),
        (lambda: cal_ql.Config(temperature=0.0), "temperature must be positive"),
        (lambda: cal_ql.Config(backup="best"), "backup 'best' is not one of"),
        (lambda: cal_ql.Config(uniform=0, policy=0), "nothing would be asked about"),
        (lambda: monte_carlo.Config(regression="l1"), "regression 'l1' is not one of"),
    ],
)
def test_options_out_of_range_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_backup_by_the_policy_needs_one():
    objective = cal_ql.build(cal_ql.Config(backup="policy_max"), make_critic(), RETURNS)
    with pytest.raises(ConfigError, match="'policy_max' needs a policy"):
        objective.loss(batch_of(CHAIN), torch.Generator())
