"""A bundle on this machine's GPU: parity with the CPU and latency, over every provider.

python benchmarks/gpu_check.py --bundle FOLDER [--json FILE] [--quick] [--cache FOLDER]

Needs the extra "gpu" (onnxruntime-gpu) for "cuda" and "tensorrt", and the extra "tensorrt" for
"tensorrt-native". A provider that cannot be used is listed with the reason; without a GPU that is all of them
but the CPU. Parity is the largest difference from the CPU's chunks in normalised action units.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robopolicy.core.errors import ConfigError, MissingDependencyError, RobopolicyError
from robopolicy.core.policy import draw_noise, keyed_rng
from robopolicy.export.parity import random_observations
from robopolicy.runtime import BundlePolicy, load_bundle
from robopolicy.runtime.backends.choose import NATIVE
from robopolicy.runtime.backends.gpu import describe_gpu

PROVIDERS = ("cpu", "cuda", "tensorrt", NATIVE)
CANDIDATES = (1, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cache", type=Path, help="of engines; a temporary one by default, built anew")
    given = parser.parse_args()
    console = Console()
    try:
        gpu = describe_gpu()
        where = f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}"
    except (ConfigError, MissingDependencyError) as error:
        where = f"no GPU: {error}"
    console.print(escape(where), soft_wrap=True)
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(given.bundle, given.cache or Path(scratch), 20 if given.quick else 200)
    table = Table("provider", "parity", "K=1 p50 ms", "K=16 p50 ms", "K=16 / K=1", "start s", "restart s")
    for row in rows:
        if "error" in row:
            console.print(f"{row['provider']}: {escape(row['error'])}", soft_wrap=True)
            continue
        cells = (f"{row['max_abs']:.1e}", f"{row['k1_ms']:.2f}", f"{row['k16_ms']:.2f}")
        more = (f"{row['k16_over_k1']:.2f}", f"{row['start_s']:.1f}", f"{row['restart_s']:.1f}")
        table.add_row(row["provider"], *cells, *more)
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps({"gpu": where, "providers": rows}, indent=2) + "\n")


def measure(path: Path, cache: Path, rounds: int) -> list[dict[str, Any]]:
    """One row per provider."""
    bundle = load_bundle(path)
    specs, scale = bundle.policy_specs, np.asarray(bundle.normalisers.action.scale)
    windows = random_observations(specs, bundle.normalisers, 4)
    calls = [
        ({name: value[None] for name, value in window.items()}, draw_noise(specs, k, keyed_rng(i, k))[None])
        for i, window in enumerate(windows)
        for k in CANDIDATES
    ]
    expected = [BundlePolicy(bundle, provider="cpu").sample(*call) for call in calls]
    rows = []
    for provider in PROVIDERS:
        try:
            starts = []
            for _ in range(2):  # the second finds the engines of the first
                begin = time.perf_counter()
                policy = BundlePolicy(bundle, provider=provider, cache=cache, max_rows=max(CANDIDATES))
                policy.sample(*calls[0])
                starts.append(time.perf_counter() - begin)
            differences = [np.abs(policy.sample(*c) - e) / scale for c, e in zip(calls, expected)]
        except RobopolicyError as error:
            rows.append({"provider": provider, "error": str(error)})
            continue
        row = {"provider": provider, "max_abs": float(max(d.max() for d in differences))}
        row |= {"start_s": starts[0], "restart_s": starts[1]}
        for k, call in zip(CANDIDATES, calls):
            row |= {f"k{k}_{name}": value for name, value in latency(policy, call, rounds).items()}
        rows.append({**row, "k16_over_k1": row["k16_ms"] / row["k1_ms"]})
    return rows


def latency(policy: BundlePolicy, call: tuple[Any, Any], rounds: int) -> dict[str, float]:
    """Median and 99th percentile of a whole call [ms], after a warm-up that captures CUDA graphs."""
    times = []
    for index in range(rounds + 5):
        begin = time.perf_counter()
        policy.sample(*call)
        if index >= 5:
            times.append((time.perf_counter() - begin) * 1e3)
    return {"ms": statistics.median(times), "p99_ms": float(np.percentile(times, 99))}


if __name__ == "__main__":
    main()
