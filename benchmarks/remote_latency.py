"""What it costs to ask for a chunk: in this process, of the inference worker, of a server on loopback.

python benchmarks/remote_latency.py [--json FILE] [--quick] [--bundle FOLDER]

The bundles do next to nothing, so the figures are the way there and back: copies, checks, shared memory or
a websocket, and waking the other process. The ways take turns, request by request. "server through worker"
is how a robot runs. A network adds its round trip and the size over its speed (2 cameras: 0.9 MB a request).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from remote.cheap_bundle import write_cheap_bundle
from rich.console import Console
from rich.table import Table

from robopolicy.core.policy import draw_noise, keyed_rng
from robopolicy.runtime import Bundle, BundlePolicy, Request, WorkerClient, WorkerConfig, load_bundle
from robopolicy.runtime.remote import RemotePolicy, WireLayout, connect

POLL_S, POLL_SHARE = 50e-6, 0.02  # between looks for an answer: at least, and of the time it took so far
WAYS = ("in process", "worker", "server", "server through worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bundle", type=Path, help="measure this one, too")
    given = parser.parse_args()
    repeats = 100 if given.quick else 1000
    found: dict[str, Any] = {"repeats": repeats}
    with tempfile.TemporaryDirectory() as scratch:
        bundles = {
            "states": write_cheap_bundle(Path(scratch) / "states", 0),
            "two cameras 240x320": write_cheap_bundle(Path(scratch) / "cameras", 2),
        }
        if given.bundle:
            bundles[str(given.bundle)] = load_bundle(given.bundle)
        for name, bundle in bundles.items():
            found[name] = measured = measure(bundle, repeats)
            table = Table("[ms]", "p50", "p99", "added, p50", "inference as told, p50")
            table.title = f"{name}, {measured['request_kb']:.0f} kB a request"
            for way in WAYS:
                keys = ("p50_ms", "p99_ms", "added_ms", "inference_ms")
                table.add_row(way, *(f"{measured[way][key]:.2f}" for key in keys))
            Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(bundle: Bundle, repeats: int) -> dict[str, Any]:
    """Milliseconds of each way, as percentiles of single requests."""
    specs = bundle.policy_specs
    rng = np.random.default_rng(0)
    window = {
        name: rng.integers(0, 256, (specs.horizons.observation, *spec.shape)).astype(spec.dtype)
        for name, spec in specs.specs.observation.items()
    }
    samples: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(server(bundle))
        patient = WorkerConfig(provider="cpu", warmup=2, stale_s=10, hang_s=10, request_timeout_s=10)
        local = BundlePolicy(bundle, provider="cpu")
        remote = stack.enter_context(RemotePolicy(url, expect_digest=bundle.digest, request_timeout_s=10))
        workers = [stack.enter_context(WorkerClient(where, patient)) for where in (bundle, connect(url))]
        asks: dict[str, Callable[[int], float]] = {
            "in process": lambda step: _sample(local, window, step),
            "worker": lambda step: _request(workers[0], window, step),
            "server": lambda step: _sample(remote, window, step) and remote.inference_ns * 1e-6,
            "server through worker": lambda step: _request(workers[1], window, step),
        }
        for step in range(-10, repeats):
            for way, ask in asks.items():
                started_ns = time.perf_counter_ns()
                inference_ms = ask(abs(step))
                elapsed_ms = (time.perf_counter_ns() - started_ns) * 1e-6
                if step >= 0:  # the first ones warm up
                    samples[way].append((elapsed_ms, inference_ms))
    figures: dict[str, Any] = {}
    for way, values in samples.items():
        elapsed, computing = np.array(values).T
        figures[way] = {
            "p50_ms": float(np.percentile(elapsed, 50)),
            "p99_ms": float(np.percentile(elapsed, 99)),
            "inference_ms": float(np.percentile(computing, 50)),
        }
    for way in WAYS:
        figures[way]["added_ms"] = figures[way]["p50_ms"] - figures["in process"]["p50_ms"]
    figures["request_kb"] = WireLayout(specs, 1, 1).max_request_bytes / 1e3
    return figures


def _sample(policy: Any, window: dict[str, Any], step: int) -> float:
    started_ns = time.perf_counter_ns()
    noise = draw_noise(policy.policy_specs, 1, keyed_rng(step))
    policy.sample({name: value[None] for name, value in window.items()}, noise[None])
    return (time.perf_counter_ns() - started_ns) * 1e-6


def _request(client: WorkerClient, window: dict[str, Any], step: int) -> float:
    started = time.monotonic()
    number = client.request(Request(window, time.monotonic_ns(), (0, 0, step)))
    while True:
        response = client.poll(time.monotonic_ns())
        if response is not None and response.request_id == number:
            assert not response.error, response.error
            return response.inference_ns * 1e-6
        time.sleep(max(POLL_S, POLL_SHARE * (time.monotonic() - started)))


@contextlib.contextmanager
def server(bundle: Bundle) -> Iterator[str]:
    """``robopolicy serve`` in a process of its own; its URL."""
    command = [sys.executable, "-m", "robopolicy.cli.main", "serve", "--bundle", str(bundle.directory)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--provider", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        while "ws://" not in said:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(said)
            said += line
        yield "ws://" + said.split("ws://")[1].split(",")[0].split()[0]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    main()
