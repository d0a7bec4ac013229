"""Milliseconds of drawing and of judging K candidates, and the largest K that a 10 Hz policy can afford.

python benchmarks/rerank_latency.py [--quick] [--json FILE] [--bundle BUNDLE] [--threads 1 2] [--counts 1 16]

The policy is the one that ``robopolicy train`` gives for states (10 denoising steps), the critic the one that
``robopolicy train-value`` gives, both untrained: weights do not change the time. They are exported into one
bundle and asked as on a robot: one observation, K candidates in one call, one call of the critic for all of
them. The numbers of candidates take turns, so that a busy moment of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from selection.latency import BUDGET_MS, Row, affordable, export_pair, measure, share
from throughput.memory import machine

from robopolicy.core.provenance import write_json
from robopolicy.runtime import BundlePolicy, load_bundle

COUNTS = (1, 5, 10, 16, 30, 50, 100, 200)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="few calls of few numbers of candidates")
    parser.add_argument("--bundle", type=Path, help="with a critic; by default one is made")
    parser.add_argument("--threads", nargs="+", type=int, help="of the engine; 1 and 2, or 1 with --quick")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="candidates")
    parser.add_argument("--calls", type=int, help="of each number of candidates; 200, or 8 with --quick")
    given = parser.parse_args()
    threads_tried = given.threads or ([1] if given.quick else [1, 2])
    counts = sorted({1, 4, 16} if given.quick else {16, *given.counts})
    calls = given.calls or (8 if given.quick else 200)
    console, facts = Console(width=120), machine()
    console.print(facts)
    rows, figures = [], dict[str, Any]()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = load_bundle(given.bundle or export_pair(Path(scratch) / "bundle"))
        for provider, threads in ways(threads_tried):
            policy = BundlePolicy(bundle, threads=threads, provider=provider, max_rows=max(counts))
            rows += (found := measure(policy, counts, calls, threads=threads))
            key = f"{policy.provider}, {threads} threads" if provider == "cpu" else policy.provider
            figures[key] = {
                "score_share_k16": share(found, 16),
                "largest_k_at_10_hz": affordable(policy, found, calls=0 if given.quick else calls),
            }
    facts["load_1min_after"] = os.getloadavg()[0]
    show(rows, figures, console)
    if given.json:
        main_key = next((k for k in figures if k.endswith(", 2 threads")), next(iter(figures)))
        tree = {**figures[main_key], "of": main_key, "all": figures}
        tree |= {"rows": [dataclasses.asdict(row) for row in rows], "machine": facts, "quick": given.quick}
        write_json(given.json, tree)


def ways(threads: list[int]) -> list[tuple[str, int]]:
    """(provider, threads): the CPU, and ONNX Runtime's CUDA where this build has it."""
    import onnxruntime

    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return [*(("cpu", count) for count in threads), *((("cuda", 1),) if cuda else ())]


def show(rows: list[Row], figures: dict[str, Any], console: Console) -> None:
    table = Table("where", "threads", "K", "draw p50 ms", "score p50 ms", "score / draw", "total p99 ms")
    for row in rows:
        times = (
            f"{row.draw_ms_p50:.2f}",
            f"{row.score_ms_p50:.2f}",
            f"{row.score_ms_p50 / row.draw_ms_p50:.0%}",
        )
        table.add_row(row.provider, str(row.threads), str(row.k), *times, f"{row.total_ms_p99:.2f}")
    console.print(table)
    for key, found in figures.items():
        console.print(
            f"{key}: judging 16 candidates takes {found['score_share_k16']:.0%} of drawing them; the "
            f"largest K whose p99 fits {BUDGET_MS:g} ms is {found['largest_k_at_10_hz']}",
            highlight=False,
        )


if __name__ == "__main__":
    main()
