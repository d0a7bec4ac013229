"""What routing by task costs on the robot: sdp beside a dense transformer of equal active size, in ONNX.

python benchmarks/task_routing.py [--json FILE] [--quick] [--dim 128] [--candidates 1 16 64]

Processor milliseconds of one core for all denoising steps. "same" rows are candidates of one task, "mixed"
rows are of four tasks in turn. The step graph gathers the experts in use each step, the unrolled one once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.models.policy_module import PolicyModule
from robopolicy.policies import diffusion_transformer, sdp

TASKS = ("one", "two", "three", "four")
ACTION = ActionSpec((ActionPart("joint_position", tuple("abcdefg")),))
DATA = Specs({"state": ArraySpec((20,))}, ACTION, policy_rate=10.0)
SPECS = PolicySpecs(DATA, Horizons(2, 16, 8), instruction_dim=len(TASKS))
Case = tuple[str, str, int, str]  # policy, form, candidates, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 16, 64])
    given = parser.parse_args()
    counts, repeats = ([1, 8], 3) if given.quick else (given.candidates, 25)
    cases = prepared(make_modules(32 if given.quick else given.dim), counts)
    took: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(repeats + 1):  # in turn, so that a busy moment hits all; the first warms up
        for case, run in cases.items():
            start = time.process_time()
            run()
            took[case].append(1e3 * (time.process_time() - start))
    rows: list[dict[str, Any]] = []
    table = Table("policy", "form", "candidates", "rows", "ms, fastest", "ms, median", "of dense")
    for case, times in took.items():
        dense = min(took["dense", case[1], case[2], "same"][1:])
        best, median = min(times[1:]), float(np.median(times[1:]))
        rows.append(dict(zip(("policy", "form", "candidates", "rows", "fastest_ms", "median_ms", "of_dense"),
                             (*case, best, median, best / dense))))  # fmt: skip
        table.add_row(
            case[0], case[1], str(case[2]), case[3], *(f"{x:.2f}" for x in (best, median, best / dense))
        )
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def make_modules(dim: int) -> dict[str, PolicyModule]:
    """Untrained, with experts that matter."""
    torch.manual_seed(0)
    sparse = sdp.build(sdp.Config(dim=dim, expert_hidden=2 * dim, tasks=TASKS), SPECS)
    sparse.set_instructions(list(torch.eye(len(TASKS))[:, None]))
    dense = diffusion_transformer.build(diffusion_transformer.Config(dim=dim), SPECS)
    return {"dense": dense, "sdp": sparse}


def prepared(modules: dict[str, PolicyModule], counts: list[int]) -> dict[Case, Callable[[], object]]:
    """A run of each case."""
    cases: dict[Case, Callable[[], object]] = {}
    for name, module in modules.items():
        for form in ("step", "unrolled"):
            sessions = [session(graph) for graph in export_graphs(module, form=form).values()]
            for count in counts:
                for rows in ("same", "mixed") if name == "sdp" and count > 1 else ("same",):
                    steps = step_rows(module) if form == "step" else None
                    cases[name, form, count, rows] = sampling(*sessions, steps, count, mixed=rows == "mixed")
    return cases


def session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def sampling(encoder: Any, sampler: Any, steps: Any, count: int, *, mixed: bool) -> Callable[[], object]:
    """All denoising steps for one observation, encoded beforehand, and that many candidates."""
    rng = np.random.default_rng(0)
    chosen = np.arange(count) % len(TASKS) if mixed else np.ones(count, int)
    state = rng.standard_normal((1, 2, 20), np.float32).repeat(count, 0)
    seen = encoder.run(None, {"state": state, "instruction": np.eye(len(TASKS), dtype=np.float32)[chosen]})[0]
    noise = rng.standard_normal((count, *SPECS.chunk_shape), np.float32)
    fed = {"conditioning": seen, "prefix": np.zeros_like(noise), "prefix_weight": noise[..., 0] * 0}

    def run() -> object:
        if steps is None:
            return sampler.run(None, {**fed, "noise": noise})
        chunk = noise
        for row in steps:
            chunk = sampler.run(None, {**fed, "step_chunk": chunk, "step_parameters": row})[0]
        return chunk

    return run


if __name__ == "__main__":
    main()
