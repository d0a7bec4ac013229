"""Training run in, checked deployment bundle out."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console

from robopolicy.core.errors import RunExistsError
from robopolicy.core.policy import Arrays, Context
from robopolicy.core.provenance import git_revision, package_versions
from robopolicy.datasets.store import EpisodeStore
from robopolicy.export.choice import Choice, choose_form
from robopolicy.export.closed_loop import ClosedLoop, as_measured, compare_in_simulation
from robopolicy.export.critic import check_critic, critic_inputs, export_critic
from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.export.options import ExportOptions, with_denoising_steps
from robopolicy.export.parity import (
    Parity,
    asked,
    compare,
    compare_values,
    random_observations,
    recorded_observations,
)
from robopolicy.export.precision import with_precision
from robopolicy.export.unroll import unroll
from robopolicy.models.critic_module import TorchCritic
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.policies._saved import DESCRIPTION, load_policy
from robopolicy.runtime.bundle.contract import CHUNK, NOISE, STEP_CHUNK, STEP_OUTPUT, STEP_PARAMETERS
from robopolicy.runtime.bundle.directory import assemble, compose, write_bundle
from robopolicy.runtime.bundle.manifest import Producer
from robopolicy.runtime.bundle.policy import BundlePolicy
from robopolicy.steering._saved import load_critic

WINDOWS_COMPARED = 8


def export_bundle(
    run: Path,
    output: Path,
    *,
    store: Path | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    options: ExportOptions | None = None,
    critic: TorchCritic | Path | None = None,
    closed_loop: ClosedLoop | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
    console: Console | None = None,
) -> Parity:
    """Export a trained policy and hold it against torch; the bundle appears only when they agree.

    What was measured (differences, latencies, success) goes into the manifest's ``measured``.

    Args:
        run: training run, or a saved policy's folder.
        store: demonstrations to compare on; None compares on random observations alone.
        tolerance: short for ``options.tolerance``.
        critic: scores the policy's candidates, see ``BundlePolicy.values``; or the run that trained it.
        closed_loop: where to compare success; by default nowhere.
        clock: monotonic [ns], of the choice between forms.
    Raises:
        RunExistsError: output exists; ParityError: the graphs disagree; RobopolicyError: no policy or critic;
        SpecError: the critic judges other policies than this one, both printed.
    """
    if output.exists() or output.is_symlink():
        raise RunExistsError(f"{output} already exists; choose another path")
    options, closed_loop = options or ExportOptions(), closed_loop or ClosedLoop()
    if tolerance is not None:
        options = dataclasses.replace(options, tolerance=tolerance)
    loaded = load_policy(run, device="cpu")
    folder = run if (run / DESCRIPTION).is_file() else run / "policy"
    family = json.loads((folder / DESCRIPTION).read_text())["family"]
    policy = with_denoising_steps(loaded, family, options.denoising_steps)
    if isinstance(critic, Path):
        critic = load_critic(critic, device="cpu")
    if critic is not None:
        check_critic(policy, critic)
    windows = {"random": random_observations(policy.policy_specs, policy.normalisers, WINDOWS_COMPARED, seed)}
    if store is not None:  # opened before the slow part
        opened = EpisodeStore.open(store)
        windows["recorded"] = recorded_observations(opened, policy.policy_specs, WINDOWS_COMPARED)
    details = {"policy_digest": policy.digest, "form": options.form}
    if closed_loop.env:
        details["env"] = closed_loop.env
    if critic is not None:
        details["critic_digest"] = critic.digest
        details |= {f"critic_{name}": str(value) for name, value in critic.facts.items()}
    common: dict[str, Any] = {
        "policy_specs": policy.policy_specs,
        "normalisers": policy.normalisers,
        "policy": family,
        "denoising_steps": len(policy.module.steps),
        "producer": Producer(run.name, git_revision(), package_versions(), details),
        "text_encoder": policy.text_encoder,
    }
    if critic is not None:
        common["critic_inputs"] = critic_inputs(critic.critic_specs)
        common["critic_normalisers"] = critic.critic_normalisers
    drafts = _drafts(policy, options, critic, common)
    exported = {form: _load(draft, options.threads) for form, draft in drafts.items()}
    parity = {form: _parity(policy, found, windows, options, seed) for form, found in exported.items()}
    choice = Choice(next(iter(drafts)))
    if len(drafts) > 1:
        told = Context(asked(policy.policy_specs, 0))
        choice = choose_form(exported, windows["random"][0], options.candidates, context=told, clock=clock)
    measured = _measured(parity, choice)
    chosen = exported[choice.form]
    if critic is not None:
        measured["parity.critic"] = compare_values(
            critic,
            chosen,
            [*windows["random"], *windows.get("recorded", ())],
            seed=seed,
            tolerance=options.largest_difference,
            candidates=options.candidates,
        )
    if closed_loop.env:
        measured.update(as_measured(compare_in_simulation(policy, chosen, closed_loop, console)))
    write_bundle(output, **{**drafts[choice.form], "measured": measured})
    return parity[choice.form]


def _drafts(
    policy: TorchPolicy, options: ExportOptions, critic: TorchCritic | None, common: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Form to the arguments of ``compose``."""
    alone = "unrolled" if options.form == "auto" else options.form
    forms = ("step", "unrolled") if options.form == "auto" and policy.module.iterates else (alone,)
    scored = {} if critic is None else export_critic(critic.module, opset=options.opset)
    drafts: dict[str, dict[str, Any]] = {}
    for form, graphs in _forms(policy.module, forms, options.opset).items():
        converted, precision = with_precision({**graphs, **scored}, options.precision)
        steps = step_rows(policy.module).tolist() if form == "step" else []
        drafts[form] = {
            **common,
            "graphs": converted,
            "precision": precision,
            "steps": tuple(tuple(row) for row in steps),
        }
    return drafts


def _forms(module: PolicyModule, forms: Sequence[str], opset: int) -> dict[str, dict[str, bytes]]:
    """Graphs of each form; the loop is unrolled from the step where both are asked for."""
    found = {form: export_graphs(module, form=form, opset=opset) for form in forms[:1]}
    if len(forms) > 1:
        loop = unroll(
            onnx.load_model_from_string(found["step"]["step"]),
            step_rows(module),
            carried=STEP_CHUNK,
            constant=STEP_PARAMETERS,
            output=STEP_OUTPUT,
            first=NOISE,
            last=CHUNK,
        )
        found["unrolled"] = {"encoder": found["step"]["encoder"], "sampler": loop.SerializeToString()}
    return found


def _load(draft: Mapping[str, Any], threads: int) -> BundlePolicy:
    return BundlePolicy(assemble(compose(**draft)), threads=threads, provider="cpu")


def _parity(
    policy: TorchPolicy,
    exported: BundlePolicy,
    windows: Mapping[str, Sequence[Arrays]],
    options: ExportOptions,
    seed: int,
) -> Parity:
    scale = np.asarray(policy.normalisers.action.scale)
    return Parity.worst(
        {
            source: compare(
                policy,
                exported,
                found,
                scale,
                seed=seed,
                tolerance=options.largest_difference,
                candidates=options.candidates,
            )
            for source, found in windows.items()
        }
    )


def _measured(parity: Mapping[str, Parity], choice: Choice) -> dict[str, float]:
    """Differences of the chosen form by case, of the others as a whole, and the latencies of all."""
    measured = {f"parity.{case}": value for case, value in parity[choice.form].cases.items()}
    for form, found in parity.items():
        measured[f"parity.{form}.max_abs"] = found.max_abs
    for name, timed in (("latency_ms", choice.latency_ms), ("fastest_ms", choice.fastest_ms)):
        for form, latencies in timed.items():
            measured.update({f"{name}.{form}.k{count}": value for count, value in latencies.items()})
    return measured
