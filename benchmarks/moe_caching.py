"""Milliseconds per action chunk of a mixture of denoising experts: routes known beforehand, or not.

python benchmarks/moe_caching.py [--quick] [--json FILE] [--threads 1 2] [--large] [--run RUN --map PNG]

At 1 and 64 rows, in torch and in ONNX Runtime. "uncached" routes at every step and computes the chosen
experts only; "cached" is the policy's form for inference, without routers; "dense_active" and "dense_total"
are the same transformer with dense layers of as many active, or as many total, parameters, in the same form.
The bars: cached within 1.1 of dense_active, and no slower than uncached. All ways take turns. ONNX Runtime is
timed in both forms of the loop and the better one counts, as in the exporter; "uncached" counts as a step: an
engine that loads the unrolled loop works the routes out by itself, which is caching. "uncached_best" counts
that form too. Cached weights hold every set of experts that some step takes as a layer of its own, so
they are larger: the megabytes stand beside the milliseconds.
--map draws which experts a trained RUN uses at which noise level.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experts.networks import DEFAULT, LARGE, Size, bank_megabytes, flops, megabytes
from experts.ways import ways
from inference.rounds import Way, measure
from rich.console import Console
from rich.table import Table
from throughput.memory import machine

KINDS = ("uncached", "cached", "dense_active", "dense_total")
ENGINES = ("torch", "onnxruntime step", "onnxruntime unrolled")
ROWS = (1, 64)
RATIOS = ("dense_active", "uncached", "uncached_best")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of ONNX Runtime")
    parser.add_argument("--large", action="store_true", help="also a network of 50 M parameters")
    parser.add_argument("--run", type=Path, help="a trained mode policy, for --map")
    parser.add_argument("--map", type=Path, help="draw its expert usage here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console, facts = Console(), machine()
    console.width = max(console.width, 160)
    console.print(facts)
    figures: dict[str, Any] = {"machine": facts}
    for size in [DEFAULT, LARGE] if given.large else [DEFAULT]:
        figures[size.name] = compare(size, tuple(given.threads), 6 if given.quick else 20, console)
    figures.update(figures["default"]["cases"][f"onnxruntime, 1 row, {given.threads[0]} thread"])
    figures["max_abs_diff"] = max(
        found["max_abs_diff"] for found in figures.values() if isinstance(found, dict) and "cases" in found
    )
    console.print(f"cached and uncached differ by {figures['max_abs_diff']:.1e} at most")
    if given.run and given.map:
        draw_map(given.run, given.map)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


def compare(size: Size, threads: tuple[int, ...], rounds: int, console: Console) -> dict[str, Any]:
    files: dict[str, dict[str, float]] = {}
    found = list(ways(size, ROWS, threads, files))
    difference = largest_difference(found)
    timed = [way for way, _ in found]
    measure(timed, rounds, 10)
    cases = {}
    for engine, rows in ((engine, rows) for rows in ROWS for engine in ("torch", "onnxruntime")):
        for used in threads if engine == "onnxruntime" else (1,):
            cases[f"{engine}, {rows} row{'s' * (rows > 1)}, {used} thread{'s' * (used > 1)}"] = case(
                timed, engine, rows, used
            )
    facts = sizes(size, files)
    loads = [f"{kind}, {facts['weights_mb'][kind]:.1f} MB" for kind in KINDS]
    ratios = [f"cached / {other}" for other in RATIOS]
    table = Table(f"{size.name}, ms median (min)", *loads, *ratios)
    for name, figures in cases.items():
        cells = [f"{figures[f'{kind}_ms']:.2f} ({figures[f'{kind}_min_ms']:.2f})" for kind in KINDS]
        table.add_row(name, *cells, *(f"{figures[f'vs_{other}']:.2f}" for other in RATIOS))
    console.print(table)
    for name, values in facts.items():
        console.print(name, {key: round(value, 2) for key, value in values.items()})
    every = {f"{w.network}, {w.engine}, {w.candidates}, {w.threads}": w.percentile(50) for w in timed}
    return {"cases": cases, "max_abs_diff": difference, "medians_ms": every, **facts}


def case(timed: list[Way], engine: str, rows: int, threads: int) -> dict[str, Any]:
    """Of each kind the better form; "uncached" as a step alone, see the module's docstring."""
    figures: dict[str, Any] = {}
    for kind in KINDS:
        here = [
            way
            for way in timed
            if alike(way, kind, engine, rows, threads)
            and (kind != "uncached" or way.engine != "onnxruntime unrolled")
        ]
        best = min(here, key=lambda way: way.percentile(50))
        if kind == "uncached":
            every = [way for way in timed if alike(way, kind, engine, rows, threads)]
            figures["uncached_best_ms"] = min(way.percentile(50) for way in every)
        figures[f"{kind}_ms"], figures[f"{kind}_min_ms"] = statistics.median(best.ms), min(best.ms)
        figures[f"{kind}_form"] = best.engine
    for other in RATIOS:
        figures[f"vs_{other}"] = figures["cached_ms"] / figures[f"{other}_ms"]
    return figures


def alike(way: Way, kind: str, engine: str, rows: int, threads: int) -> bool:
    named = (way.network, way.candidates, way.threads) == (kind, rows, threads)
    return named and way.engine.startswith(engine)


def largest_difference(found: list[tuple[Way, Any]]) -> float:
    """Between every cached way and uncached torch, on normalised chunks."""
    expected = {way.candidates: sample(way.candidates) for way, sample in found if is_reference(way)}
    return max(
        float(np.abs(sample(way.candidates) - expected[way.candidates]).max())
        for way, sample in found
        if way.network == "cached"
    )


def is_reference(way: Way) -> bool:
    return (way.network, way.engine) == ("uncached", "torch")


def sizes(size: Size, files: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """MFLOP of a chunk, and megabytes: of weights, of the experts among them, and of the graph files."""
    built, specs = size.build(), size.specs
    forms = {"uncached": built["mode"], "cached": built["mode"].inference_form()}
    forms.update({name: built[name].inference_form() for name in ("dense_active", "dense_total")})
    configs = {name: built.get(name, built["mode"]).config for name in KINDS}
    return {
        "mflop": {n: flops(configs[n], specs, cached=n != "uncached") / 1e6 for n in KINDS},
        "weights_mb": {n: megabytes(forms[n]) for n in KINDS},
        "bank_mb": {n: bank_megabytes(forms[n]) for n in KINDS},
        "step_file_mb": {n: files[n]["step"] for n in KINDS},
        "unrolled_file_mb": {n: files[n]["unrolled"] for n in KINDS},
    }


def draw_map(run: Path, path: Path) -> None:
    from experts.usage import draw

    from robopolicy.policies._saved import load_policy

    draw(load_policy(run, "cpu").module, path, f"expert usage, {run.name}")


if __name__ == "__main__":
    main()
