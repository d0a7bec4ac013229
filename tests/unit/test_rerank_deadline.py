"""The deadline: nothing is begun that is predicted to end too late; what is possible again is done again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from reranked import FakeClock, FakeCritic, FakePolicy, rerank_noise, rerank_window

from robopolicy.core.errors import ConfigError
from robopolicy.runtime import RerankConfig, Reranker, build_reranker
from robopolicy.runtime.reranking.deadline import CallCost, Deadline, rungs

MS = 1_000_000
K = 16


class Machine:
    """A policy whose call takes a + b n, a critic whose call takes c + d n, times how slow the machine is."""

    def __init__(self, a=10.0, b=2.0, c=1.0, d=0.5, *, deadline_ms=60.0, jitter=0.0, rehearse=True) -> None:
        self.clock, self.slow, self.rng = FakeClock(), 1.0, np.random.default_rng(0)

        def cost(fixed: float, each: float):
            return lambda n: round(self.slow * (fixed + each * n) * MS * (1 + jitter * self.rng.random()))

        self.policy = FakePolicy(self.clock, cost(a, b))
        self.critic = FakeCritic(clock=self.clock, cost_ns=cost(c, d))
        config = RerankConfig(K, deadline_s=deadline_ms * 1e-3)
        self.reranker: Reranker = build_reranker(self.policy, config, critic=self.critic, clock=self.clock)
        for repeat in range(4 if rehearse else 0):
            for count in rungs(K):
                self.reranker.rehearse(rerank_window(), rerank_noise(1, count), measure=repeat > 0)

    def choose(self, times: int = 1):
        for _ in range(times):
            began_ns = self.clock.now_ns
            choice = self.reranker.choose(rerank_window(), rerank_noise(1, K))
        return choice, (self.clock.now_ns - began_ns) / MS


def test_the_ladder_halves() -> None:
    assert rungs(100) == (100, 50, 25, 12, 6, 3, 1) and rungs(1) == (1,)


def test_all_are_drawn_where_they_fit() -> None:
    machine = Machine()  # 10 + 32 + 1 + 8 = 51 ms
    choice, taken_ms = machine.choose()
    assert (choice.drawn, choice.scored, choice.notes) == (16, 16, ()) and taken_ms == 51
    assert (choice.draw_ns, choice.score_ns) == (42 * MS, 9 * MS)


def test_fewer_are_drawn_where_not_and_it_is_said() -> None:
    machine = Machine(deadline_ms=40)  # 8 take 10 + 16 + 1 + 4 = 31 ms
    choice, taken_ms = machine.choose()
    assert (choice.asked, choice.drawn, choice.scored) == (16, 8, 8) and taken_ms <= 40
    assert choice.notes == ("8 of 16 candidates drawn: all would take 51.0 of 40 ms",)
    assert machine.reranker.counters.fewer_drawn == 1 and machine.reranker.counters.fall_backs == 1


def test_the_first_sample_goes_out_when_nothing_else_can() -> None:
    choice, _ = Machine(deadline_ms=5).choose()
    assert (choice.drawn, choice.scored, choice.index.tolist()) == (1, 1, [0])
    assert choice.notes[1].startswith("late: 12.0 of 5 ms")


def test_without_a_deadline_everything_is_done_however_long_it_takes() -> None:
    machine = Machine(deadline_ms=0)
    machine.slow = 1000
    choice, _ = machine.choose(3)
    assert choice.drawn == choice.scored == 16 and machine.reranker.counters.late == 0


def test_a_draw_that_took_too_long_leaves_fewer_to_judge() -> None:
    machine = Machine(c=10.0, d=2.0, deadline_ms=100)  # judging 16: 42 ms, 8: 26, 4: 18, 2: 14
    usual = machine.policy.cost_ns
    for late_ms, scored in ((30, 8), (38, 4), (43, 2), (70, 1)):
        machine.policy.cost_ns = lambda n, late_ms=late_ms: usual(n) + late_ms * MS
        machine.reranker._deadline.draw = Machine().reranker._deadline.draw  # it came without a warning
        choice, taken_ms = machine.choose()
        assert (choice.drawn, choice.scored) == (16, scored)
        assert taken_ms <= 100 or scored == 1
        assert choice.index[0] < scored and np.isnan(choice.total[0, scored:]).all()
        judged = f"{scored} of 16 candidates judged" if scored > 1 else "no candidate judged"
        assert choice.notes[0].startswith(f"{judged}: drawing took {42 + late_ms}.0 of 100 ms")
    assert machine.reranker.counters.fewer_scored == 4
    assert choice.index.tolist() == [0]


def test_it_falls_back_when_slow_and_recovers_when_fast() -> None:
    machine = Machine()
    assert machine.choose(60)[0].drawn == 16
    machine.slow = 3.0
    slow = [machine.choose() for _ in range(60)]
    late = sum(taken > 60 for _, taken in slow)
    assert slow[-1][0].drawn == 2 and late <= 5  # 3 * (10 + 4 + 1 + 1) = 48 ms, 4 would take 63
    machine.slow = 1.0
    drawn = [machine.choose()[0].drawn for _ in range(60)]
    assert drawn[-1] == 16 and drawn == sorted(drawn)


def test_one_spike_is_forgotten() -> None:
    machine = Machine()
    machine.choose(60)
    machine.slow = 20.0
    machine.choose()
    machine.slow = 1.0
    assert machine.choose(3)[0].drawn == 16


def test_two_slow_calls_of_the_critic_are_not_believed_for_ever() -> None:
    machine = Machine()
    assert machine.choose(60)[0].drawn == 16
    machine.critic.cost_ns, usual = (lambda n: 500 * MS), machine.critic.cost_ns
    assert machine.choose(3)[0].drawn == 1  # two were enough
    machine.critic.cost_ns = usual
    assert machine.choose(60)[0].drawn == 16


@pytest.mark.parametrize("slow", [1, 12])  # of the measured calls, all but the first of each count
def test_a_warm_up_that_was_held_up_is_not_believed_for_ever(slow: int) -> None:
    machine = Machine(rehearse=False)
    usual = machine.critic.cost_ns
    for call in range(12):
        machine.critic.cost_ns = usual if call < 12 - slow else lambda n: 500 * MS
        machine.reranker.rehearse(rerank_window(), rerank_noise(1, rungs(K)[call // 3]))
    machine.critic.cost_ns = usual
    assert (machine.choose()[0].drawn == 16) == (slow == 1)  # one is a fluke from the first
    assert machine.choose(60)[0].drawn == 16


def test_what_stays_too_slow_is_tried_ever_less_often_and_with_few() -> None:
    machine = Machine(c=500.0)
    tried = []
    for step in range(700):
        choice, _ = machine.choose()
        if choice.drawn > 1:
            tried.append((step, choice.drawn))
    assert tried == [(10, 2), (31, 2), (72, 2), (153, 2), (314, 2), (635, 2)]


def test_without_a_warm_up_it_finds_its_rung_and_comes_back() -> None:
    """The first call takes ten times as long, as first calls do: it must not count for ever."""
    machine = Machine(rehearse=False)
    machine.slow = 10.0
    machine.choose()
    machine.slow = 1.0
    assert machine.choose(200)[0].drawn == 16
    machine = Machine(rehearse=False, deadline_ms=40)
    assert machine.choose(200)[0].drawn == 8


costs = st.floats(0.1, 30.0)


@settings(max_examples=60, deadline=None)
@given(
    a=costs, b=costs, c=costs, d=costs, deadline_ms=st.floats(1, 300), jitter=st.sampled_from([0, 0.1, 0.5])
)
def test_nothing_is_begun_that_is_predicted_to_end_too_late(a, b, c, d, deadline_ms, jitter) -> None:
    machine = Machine(a, b, c, d, deadline_ms=deadline_ms, jitter=jitter)
    deadline, late = machine.reranker._deadline, 0
    for step in range(80):
        trying = not deadline.score.known  # for long there was no time to judge any
        predicted = {n: deadline.predicted_ns(n) for n in ((2, 1) if trying else rungs(K))}
        choice, taken_ms = machine.choose()
        fits = [n for n in predicted if predicted[n] <= deadline_ms * MS]
        assert choice.drawn == max(fits, default=1)
        late += step >= 30 and choice.drawn > 1 and taken_ms > deadline_ms and not trying
    # The prediction is the 95th percentile of drawing plus that of judging; without jitter it is exact.
    assert late <= (8 if jitter else 0)


@settings(max_examples=60, deadline=None)
@given(
    a=st.floats(0.1, 50),
    b=st.floats(0.1, 5),
    known=st.sets(st.integers(1, 100), min_size=2),
    asked=st.integers(1, 100),
)
def test_counts_never_measured_are_predicted_from_a_line(a, b, known, asked) -> None:
    cost = CallCost()
    assert cost.predict_ns(asked) == 0
    for count in known:
        cost.add(count, round((a + b * count) * MS))
    assert cost.predict_ns(asked) == pytest.approx((a + b * asked) * MS, rel=1e-4)


def test_a_single_measured_count_is_taken_at_its_worst() -> None:
    cost = CallCost()
    cost.add(8, 80)
    assert [cost.predict_ns(n) for n in (1, 8, 16)] == [80, 80, 160]
    with pytest.raises(ConfigError, match="window"):
        CallCost(window=0)


def test_a_deadline_of_0_is_none() -> None:
    assert Deadline(0.0).to_draw(9) == 9 and Deadline(0.0).to_score(9, 10**12) == 9
