"""The control loop executes what was chosen, and leaves behind what it was chosen from."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_runtime_runner import ACTION, MS, SPECS, Rig, SlowClient

from robopolicy.cli._run import RunFolder, arrays, choosing
from robopolicy.cli._run_reranking import describe
from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.runtime import ChunkScheduler, RerankConfig, Reranker, SchedulerConfig
from robopolicy.runtime.control.decisions import Decisions
from robopolicy.runtime.reranking.situation import Situation

PREFIXED = dataclasses.replace(SPECS, takes_prefix=True)


class Fan:
    """Candidates that part to both sides, each as its noise says, from where the arm is."""

    policy_specs = SPECS

    def __init__(self) -> None:
        self.contexts: list[Context] = []

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        self.contexts.append(context)
        steps = 0.01 * np.arange(16)[None, None, :, None] * np.array([1.0, 0.0, 0.0])
        return (observation["q"][:, None, -1:, :] + noise[..., None] * steps).astype(np.float32)


class Leftmost:
    """The candidate that ends lowest; NaN, or an error, when told to."""

    name, unit = "leftmost", "rad"

    def __init__(self) -> None:
        self.situations: list[Situation] = []
        self.broken = ""

    def __call__(self, candidates: Float32, situation: Situation) -> np.ndarray:
        self.situations.append(situation)
        if self.broken == "raises":
            raise NonFiniteValueError("no value")
        return candidates[:, :, -1, 0] * (np.nan if self.broken == "nan" else -1.0)


class RerankRig(Rig):
    def __init__(self, k: int = 6, mode: str = "replace", **changes) -> None:
        super().__init__()
        self.policy, self.score, self.k = Fan(), Leftmost(), k
        if mode == "real_time_chunking":
            self.policy.policy_specs = PREFIXED
        self.scheduler = ChunkScheduler(self.policy.policy_specs, SchedulerConfig(mode))
        self.client = SlowClient(self.policy, self.time)
        config = RerankConfig(k, **changes)
        self.client._reranker = Reranker(self.policy, [(self.score, 1.0)], config, clock=self.time.clock)

    def go(self):
        return self.run(3.0, num_candidates=self.k)


def test_the_best_candidate_is_executed_and_all_are_kept() -> None:
    rig = RerankRig()
    start = rig.plant.position[0]
    result = rig.go()
    assert result.reason == "duration" and rig.plant.position[0] < start - 0.1
    kept = result.decisions
    count = len(kept.time_ns)
    assert count == result.scheduler["accepted_chunks"] >= 3 and kept.reranked
    assert kept.candidates.shape == (count, 6, 16, 3) and kept.candidates.dtype == np.float32
    np.testing.assert_array_equal(kept.index, kept.candidates[:, :, -1, 0].argmin(axis=1))
    np.testing.assert_allclose(kept.values, -kept.candidates[:, :, -1, 0])
    assert (kept.asked == 6).all() and (kept.drawn == 6).all() and (kept.scored == 6).all()
    totals = kept.totals
    assert totals["decisions"] == count and totals["candidates_drawn"] == 6 * count
    assert totals["other_than_first"] == (kept.index > 0).sum() > 0 and totals["fall_backs"] == 0


def test_scores_see_what_is_committed_and_what_was_done_but_the_policy_is_left_free() -> None:
    rig = RerankRig()
    result = rig.go()
    first, later = rig.score.situations[0].context, rig.score.situations[2].context
    assert first.prefix is None and np.isnan(first.past).all()  # the run had just begun
    assert later.prefix is not None and later.prefix.weight.max() == 1 and later.prefix.weight.min() < 1
    assert all(context.prefix is None for context in rig.policy.contexts)
    request = rig.client.requests[2]
    assert not request.binds and request.past.shape == (1, 3)
    # "end": the action of the older instant is reached when the newest observation is taken, and the command
    # of a tick at its end.
    tick = np.searchsorted(result.time_ns + 10 * MS, request.observation_time_ns) - 1
    np.testing.assert_allclose(request.past[0], result.commands[tick], atol=1e-6)
    assert ACTION.reached == "end"


def test_in_real_time_chunking_the_policy_heeds_it_too() -> None:
    rig = RerankRig(mode="real_time_chunking")
    rig.go()
    assert rig.policy.contexts[2].prefix is rig.score.situations[2].context.prefix
    assert rig.client.requests[2].binds


def test_without_a_choice_nothing_is_prepared_for_one() -> None:
    rig = RerankRig(k=1)
    result = rig.go()
    assert rig.client.requests[-1].past is None and rig.client.requests[-1].prefix is None
    assert rig.score.situations == [] and result.decisions.totals["fall_backs"] == 0
    assert result.decisions.totals["decisions"] >= 3


@pytest.mark.parametrize("broken", ["nan", "raises"])
def test_without_any_value_the_first_sample_goes_out_and_is_counted(broken: str) -> None:
    rig = RerankRig()
    rig.score.broken = broken
    result = rig.go()
    totals = result.decisions.totals
    assert result.reason == "duration" and (result.decisions.index == 0).all()
    assert totals["nan_rows"] == totals["fall_backs"] == totals["decisions"] > 0
    assert set(result.decisions.notes) == {"no candidate has a value in 1 of 1 rows: the first"}


def test_a_deadline_that_is_too_short_is_said_and_counted() -> None:
    rig = RerankRig(k=8, deadline_s=0.030)
    usual = rig.policy.sample

    def slow(observation, noise, context=NO_CONTEXT):
        rig.time.now_ns += 5 * MS * noise.shape[1]  # 8 take 40 ms, 4 take 20
        return usual(observation, noise, context)

    rig.policy.sample = slow
    rig.client._reranker.rehearse({"q": np.zeros((1, 2, 3), np.float32)}, np.zeros((1, 8, 1), np.float32))
    rig.client._reranker.rehearse({"q": np.zeros((1, 2, 3), np.float32)}, np.zeros((1, 4, 1), np.float32))
    result = rig.go()
    kept, totals = result.decisions, result.decisions.totals
    assert (kept.drawn == 4).all() and totals["fewer_drawn"] == totals["fall_backs"] == totals["decisions"]
    assert kept.notes[0].startswith("4 of 8 candidates drawn: all would take 40.0 of 30 ms")
    assert kept.candidates.shape[1] == 4 and (kept.draw_ns == 20 * MS).all()


def test_what_is_kept_goes_into_plain_arrays_and_totals() -> None:
    result = RerankRig().go()
    saved = arrays(result)
    names = {name for name in saved if name.startswith("decision_")}
    assert names == {
        *("decision_time_ns", "decision_candidates", "decision_values", "decision_index", "decision_asked"),
        *("decision_drawn", "decision_scored", "decision_draw_ns", "decision_score_ns", "decision_notes"),
        "decision_deadline_ns",
    }
    assert all(saved[name].dtype != object for name in names)
    summary = choosing([result, result])
    count = len(result.decisions.time_ns)
    assert summary["decisions"]["decisions"] == 2 * count and summary["mean_drawn"] == 6
    assert summary["candidates_mb"] == pytest.approx(2 * count * 6 * 16 * 3 * 4e-6)
    assert choosing([])["mean_drawn"] == 0.0
    assert Decisions().arrays["decision_notes"].shape == (0,)


def test_a_client_that_chooses_among_another_number_is_refused() -> None:
    rig = RerankRig(k=6)
    with pytest.raises(ConfigError, match="chooses among 6 candidates, num_candidates is 1"):
        rig.run(1.0)
    assert not rig.client.requests


def test_a_deadline_that_was_missed_all_the_same_is_counted() -> None:
    rig = RerankRig(k=2, deadline_s=0.030)
    usual = rig.policy.sample

    def slow(observation, noise, context=NO_CONTEXT):
        rig.time.now_ns += 50 * MS
        return usual(observation, noise, context)

    rig.policy.sample = slow
    result = rig.go()
    totals, summary = result.decisions.totals, choosing([result])
    assert totals["late"] == totals["decisions"] == summary["decisions"]["late"] > 3
    assert (result.decisions.deadline_ns == 30 * MS).all()
    told = describe({**summary, "candidates_mb": 0.0})
    assert f"{totals['late']} late" in told
    assert RerankRig().go().decisions.totals["late"] == 0


def test_only_what_was_taken_up_is_a_decision_that_was_executed() -> None:
    rig = RerankRig()
    usual, refused = rig.scheduler.accept, []

    def accept(chunk, observation_time_ns, now_ns):
        if len(rig.client.requests) == 2 and not refused:
            refused.append(observation_time_ns)
            rig.scheduler.mark_failed()
            return False  # too late to be of use
        return usual(chunk, observation_time_ns, now_ns)

    rig.scheduler.accept = accept
    result = rig.go()
    assert refused and refused[0] not in result.decisions.time_ns
    assert len(result.decisions.time_ns) == len(result.joins_ns) >= 2


def test_candidates_are_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    result = RerankRig().go()
    folder = RunFolder(tmp_path, {}, SPECS, control_rate=100.0, episodes=1)
    folder.add(result, 1)
    assert folder._results[0].decisions.candidates.nbytes == 0 and result.decisions.candidates.nbytes > 0
    with np.load(tmp_path / "episode_000.npz") as file:
        np.testing.assert_array_equal(file["decision_candidates"], result.decisions.candidates)
    assert choosing(folder._results) == choosing([result])
