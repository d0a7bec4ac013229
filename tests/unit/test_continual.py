"""benchmarks/continual.py and multi_task.py end to end in the small, by errors alone, and their figures."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from synthetic import make_episode, make_specs

from robopolicy.datasets.store import EpisodeStore
from robopolicy.policies._saved import load_policy

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import continual
import multi_task
from continual_tasks import measuring, methods
from continual_tasks.plan import Plan, add_arguments, plan_of
from continual_tasks.tables import print_stages, print_summary, summary
from continual_tasks.usage import draw_usage, usage_of
from kept import training

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = Console(quiet=True)
STAGES: list[tuple[str, ...]] = [("push", "pull"), ("press",), ("open",)]


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    folder = tmp_path_factory.mktemp("continual")
    specs = make_specs()
    for task in ("push", "pull", "press", "open"):
        store = EpisodeStore.create(folder / f"{task}.zarr", specs)
        for seed in range(4):
            store.append(make_episode(specs, 20, seed, instruction=task))
    parser = argparse.ArgumentParser()
    add_arguments(parser, str(folder / "runs"))
    plan = plan_of(parser.parse_args(["--quick", "--loss-only", "--stores", f"{folder}/{{task}}.zarr"]))
    return dataclasses.replace(plan, base_steps=3, steps=3, batch_size=8)


@pytest.fixture(scope="module")
def rows(plan) -> list[dict[str, Any]]:
    return [row for method in methods.METHODS for row in continual.learn(plan, 0, method, STAGES, QUIET)]


def test_every_task_so_far_is_measured_after_each_stage(rows):
    for method in methods.METHODS:
        found = [(r["stage"], r["task"]) for r in rows if r["method"] == method]
        assert found == [
            (0, "push"), (0, "pull"),
            (1, "push"), (1, "pull"), (1, "press"),
            (2, "push"), (2, "pull"), (2, "press"), (2, "open"),
        ]  # fmt: skip


def test_old_tasks_stay_the_same_with_experts_and_not_with_fine_tuning(rows):
    old = {m: [r for r in rows if r["method"] == m and r["stage"] > r["learnt_in"]] for m in methods.METHODS}
    assert all(row["same_actions"] for name in ("sdp", "lora_apart") for row in old[name])
    assert not any(row["same_actions"] for name in ("finetune", "lora") for row in old[name])


def test_what_is_trained_is_counted(plan, rows):
    trained = {row["method"]: row["parameters_trained"] for row in rows if row["stage"] == 2}
    inner, width, layers = 2 * plan.dim, plan.dim, plan.layers
    assert trained["sdp"] == layers * (2 * 2 * inner * width + 8 + 2 * 2)
    whole = methods.parameters_of_whole(methods.run_folder(plan, 0, "finetune", 0))
    assert trained["finetune"] == whole > trained["lora"] == trained["lora_apart"] > 0


def test_finished_runs_and_measurements_are_kept(plan, rows, monkeypatch):
    for name in ("train", "resume"):
        monkeypatch.setattr(training, name, None)
    monkeypatch.setattr(measuring, "held_out_error", None)
    assert list(continual.learn(plan, 0, "sdp", STAGES, QUIET)) == [r for r in rows if r["method"] == "sdp"]


def test_what_another_plan_has_trained_is_refused_by_what_differs(plan, rows):
    longer = dataclasses.replace(plan, base_steps=4)
    with pytest.raises(RuntimeError, match=r"begun by another plan: steps 3 is not 4; choose another"):
        list(continual.learn(longer, 0, "sdp", STAGES, QUIET))
    wider = dataclasses.replace(plan, dim=64)
    with pytest.raises(RuntimeError, match=r"another plan: policy \{.* is not \{"):
        list(continual.learn(wider, 0, "sdp", STAGES, QUIET))


def test_quick_runs_lie_apart(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser, "runs/x")
    given = (["--quick"], [], ["--quick", "--output", "y"])
    assert [str(plan_of(parser.parse_args(g)).output) for g in given] == ["runs/x_quick", "runs/x", "y"]


def test_success_is_measured_where_only_errors_were(plan, rows, tmp_path, monkeypatch):
    run = methods.run_folder(plan, 0, "sdp", 0)
    monkeypatch.setattr(measuring, "success", lambda *_: {"successes": 1, "episodes": plan.episodes})
    kept = run / "measured" / "push.json"
    before = kept.read_text()
    found = measuring.measure(dataclasses.replace(plan, env="e/{task}"), run, 0, "push", QUIET)
    assert found == {**json.loads(before), "successes": 1, "episodes": plan.episodes}
    kept.write_text(before)


def test_a_method_that_breaks_its_promise_stops_the_benchmark(plan, rows):
    kept = methods.run_folder(plan, 0, "sdp", 1) / "measured" / "push.json"
    original = kept.read_text()
    kept.write_text(json.dumps({**json.loads(original), "chunks": "other"}))
    with pytest.raises(RuntimeError, match="push does other actions after stage 1 than after 0"):
        list(continual.learn(plan, 0, "sdp", STAGES, QUIET))
    kept.write_text(original)


def test_several_tasks_in_one_policy_and_maps_of_its_experts(plan, tmp_path):
    plan = dataclasses.replace(plan, output=tmp_path)
    found = [
        row for f in multi_task.FAMILIES for row in multi_task.learn(plan, 0, f, ["push", "open"], QUIET)
    ]
    assert [(row["family"], row["task"]) for row in found] == [
        (family, task) for family in multi_task.FAMILIES for task in ("push", "open")
    ]
    sizes = {row["family"]: row for row in found}
    dense = sizes["diffusion_transformer"]
    assert dense["active"] == dense["parameters"] < sizes["sdp"]["parameters"]
    for family in ("sdp", "mode"):
        assert sizes[family]["active"] == pytest.approx(dense["active"], rel=0.15)
        assert (plan.output / f"usage_{family}_seed0.png").read_bytes()[1:4] == b"PNG"
    assert not draw_usage(plan.output / "seed0" / "diffusion_transformer", tmp_path / "x.png")
    for family, count in (("sdp", 2), ("mode", 10)):
        usage = usage_of(load_policy(plan.output / "seed0" / family, "cpu").module)
        assert usage is not None and usage[0].shape[:2] == (plan.layers, count) and len(usage[1]) == count
        np.testing.assert_allclose(usage[0].sum(-1), 1, rtol=1e-5)
        torch.testing.assert_close(torch.from_numpy(usage[0] > 0).sum(-1), torch.full(usage[0].shape[:2], 2))


def row(method: str, stage: int, task: str, learnt_in: int, successes: int, error: float) -> dict[str, Any]:
    return {
        "seed": 0, "method": method, "stage": stage, "task": task, "learnt_in": learnt_in, "error": error,
        "successes": successes, "episodes": 10, "parameters_trained": 500_000, "same_actions": stage == 0,
    }  # fmt: skip


def test_drops_are_counted_from_when_a_task_had_just_been_learnt():
    rows = [
        row("m", 0, "a", 0, 9, 0.1), row("m", 1, "a", 0, 6, 0.2), row("m", 1, "b", 1, 8, 0.3),
        row("m", 2, "a", 0, 5, 0.4), row("m", 2, "b", 1, 7, 0.5), row("m", 2, "c", 2, 10, 0.2),
    ]  # fmt: skip
    (found,) = summary(rows)
    assert found["new_successes"] == 18 and found["new_episodes"] == 20
    assert found["old_drop"] == pytest.approx((0.4 + 0.1) / 2)
    assert found["old_error_rise"] == pytest.approx((0.3 + 0.2) / 2)
    assert found["final"] == pytest.approx((0.5 + 0.7 + 1.0) / 3)
    assert found["per_parameter"] == pytest.approx(0.9 / 0.5)
    assert not found["same_actions"]
    console = Console(width=200, record=True, quiet=True)
    print_stages(rows, console)
    print_summary([found], console)
