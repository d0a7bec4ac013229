"""The form of the loop is chosen by what a clock says, and options are checked before anything slow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_runtime_support import tiny_specs, tiny_window

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import NO_CONTEXT
from robopolicy.export.choice import MARGIN, choose_form
from robopolicy.export.closed_loop import ClosedLoop, as_measured
from robopolicy.export.options import TOLERANCES, ExportOptions

MS = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Timed:
    """A policy that takes so many milliseconds for so many candidates."""

    def __init__(self, clock: Clock, cost_ms: dict[int, list[float]]) -> None:
        self.clock, self.cost_ms, self.policy_specs = clock, cost_ms, tiny_specs()
        self.calls = 0

    def sample(self, observation: Any, noise: Any, context: Any = NO_CONTEXT) -> Any:
        costs = self.cost_ms[noise.shape[1]]
        self.clock.now += int(costs[self.calls % len(costs)] * MS)
        self.calls += 1
        return noise


def choose(step: dict[int, Any], unrolled: dict[int, Any], **more: Any) -> Any:
    clock = Clock()
    costs = [{k: v if isinstance(v, list) else [v] for k, v in c.items()} for c in (step, unrolled)]
    policies = {"step": Timed(clock, costs[0]), "unrolled": Timed(clock, costs[1])}
    window = tiny_window(tiny_specs(), np.random.default_rng(0))
    return choose_form(policies, window, list(step), clock=clock, **more), policies


def test_the_faster_form_is_chosen_over_all_candidate_counts() -> None:
    choice, _ = choose({1: 10, 16: 100}, {1: 5, 16: 99})
    assert choice.form == "unrolled"
    assert choice.latency_ms == {"step": {1: 10, 16: 100}, "unrolled": {1: 5, 16: 99}}
    assert choose({1: 10, 16: 100}, {1: 8, 16: 200})[0].form == "step"  # faster at one, far slower at sixteen


def test_a_tie_goes_to_the_form_that_starts_faster() -> None:
    assert choose({1: 10}, {1: 10 * (1 - MARGIN / 2)})[0].form == "step"
    assert choose({1: 10}, {1: 10 * (1 - MARGIN * 2)})[0].form == "unrolled"


def test_one_disturbed_call_decides_nothing() -> None:
    spiky = [5.0] * 16 + [500.0]
    assert choose({1: 10}, {1: spiky})[0].latency_ms["unrolled"][1] == 5


def test_a_busy_machine_only_adds() -> None:
    """Most calls of the faster form were disturbed; its medians say otherwise."""
    choice, _ = choose({1: 10}, {1: [25.0, 8.0, 30.0, 25.0]})
    assert choice.latency_ms["unrolled"][1] == 25 and choice.fastest_ms["unrolled"][1] == 8
    assert choice.form == "unrolled"


def test_a_slow_network_is_measured_in_few_rounds() -> None:
    _, policies = choose({1: 20_000}, {1: 20_000})
    assert policies["step"].calls == 2 + 3  # warm-up and the fewest rounds


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(ConfigError):
        choose_form({}, {}, [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "loop"}, "'loop' is not one of"),
        ({"precision": "bf16"}, "'bf16' is not one of"),
        ({"denoising_steps": -1}, "denoising_steps"),
        ({"threads": 0}, "threads"),
        ({"candidates": ()}, "candidates"),
        ({"candidates": (1, 0)}, "candidates"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportOptions(**options)


def test_the_tolerance_follows_the_precision_unless_given() -> None:
    assert [ExportOptions(precision=p).largest_difference for p in TOLERANCES] == [1e-4, 1e-2, 1e-1]
    assert ExportOptions(precision="int8", tolerance=0.5).largest_difference == 0.5


def test_a_comparison_becomes_plain_numbers() -> None:
    from robopolicy.evaluation.comparison import compare
    from robopolicy.evaluation.results import EpisodeResult

    def results(wins: str) -> list[EpisodeResult]:
        return [
            EpisodeResult(seed=i, success=w == "1", total_reward=1.0, max_reward=1.0, steps=3, seconds=0.3)
            for i, w in enumerate(wins)
        ]

    measured = as_measured(compare({"torch": results("1110"), "bundle": results("1101")}))
    assert measured["success.torch"] == measured["success.bundle"] == 0.75
    assert (measured["success.gains"], measured["success.losses"], measured["success.p_value"]) == (1, 1, 1.0)
    assert measured["success.difference_low"] < 0 < measured["success.difference_high"]
    with pytest.raises(ConfigError, match="episodes"):
        ClosedLoop("lift", 0)


def test_both_policies_walk_the_same_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    from walking import Still, Walk

    from robopolicy.export import closed_loop

    monkeypatch.setattr(closed_loop, "EnvRecipe", lambda name, options: Walk)
    report = closed_loop.compare_in_simulation(
        Still(), Still(), ClosedLoop("walk", 6, seed=3, executor="inline")
    )
    comparison = report.comparisons[0]
    assert (comparison.baseline, comparison.other, comparison.pairs) == ("torch", "bundle", 6)
    assert comparison.means["total_reward"].difference == 0
