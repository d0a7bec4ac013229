"""Milliseconds per action chunk: the exported bundle beside LeRobot's eager U-Net of the same sizes.

python benchmarks/inference_latency.py [--quick] [--json FILE] [--peer-python PATH] [--threads N]

Both denoise as often (10 DDIM steps); ours goes the whole way from physical observations to physical actions
through the runtime. Also: torch eager, what a plain ``torch.onnx.export`` of the same network gives, and the
bound set by matrix products (the network's FLOPs over the rate of products in the same engine, with as many
threads, in the same run). All ways take turns; the figures are those of the number of threads that suits each
best. LeRobot runs under the Python of its own environment, see ``peers/lerobot_denoiser.py``. --quick leaves
out its network of 252 M parameters, whose export takes a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference import gpu, networks
from inference.bound import ProductRate
from inference.networks import DEFAULT, LARGE, Network
from inference.peer import Peer
from inference.rounds import Way, best, measure, of_peer, of_policy
from rich.console import Console
from rich.table import Table
from throughput.memory import machine

from robopolicy.policies.diffusion_unet import DiffusionUNet
from robopolicy.runtime import BundlePolicy

OURS, PLAIN, EAGER, PEER = "bundle", "plain export", "torch eager", "LeRobot eager"
CANDIDATES = (1, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and the default policy alone")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--peer-python", type=Path, help="the Python of LeRobot's own environment")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="the most to try (from 1)")
    given = parser.parse_args()
    console, facts = Console(), machine()
    console.width = max(console.width, 120)
    console.print(facts)
    sizes = [DEFAULT] if given.quick else [DEFAULT, LARGE]
    figures: dict[str, Any] = {}
    ways: list[Way] = []
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        peer = None
        if given.peer_python:
            peer = stack.enter_context(Peer(given.peer_python, sizes, Path(scratch)))
            console.print(f"LeRobot: {peer.facts}")
        else:
            figures["lerobot_skipped"] = "no --peer-python"
        for network in sizes:
            found, more = compare(network, Path(scratch), given, peer)
            ways += found
            figures.update(more)
    facts["load_1min_after"] = os.getloadavg()[0]
    console.print(as_table(ways))
    for name, value in figures.items():
        console.print(f"{name:24} {value if not isinstance(value, float) else round(value, 3)}")
    if given.json:
        rows = [{key: value for key, value in vars(way).items() if key != "take"} for way in ways]
        details = {"rows": rows, "machine": facts, "lerobot": peer and peer.facts, "quick": given.quick}
        given.json.write_text(json.dumps({**figures, "details": details}, indent=2) + "\n")


def compare(
    network: Network, scratch: Path, given: argparse.Namespace, peer: Peer | None
) -> tuple[list[Way], dict[str, Any]]:
    """Every way to get this network's chunks, timed in turns, and the published figures of it."""
    policy = network.build()
    assert isinstance(policy.module, DiffusionUNet)
    ours = networks.bundle_of(policy, policy.module, scratch / f"{network.name} ours")
    plain = None
    if network is DEFAULT:
        plain = networks.bundle_of(
            policy, networks.PlainForm(policy.module), scratch / f"{network.name} plain"
        )
    bundles = {OURS: ours, **({PLAIN: plain} if plain else {})}
    rates = {n: ProductRate(n) for n in range(1, given.threads + 1)}
    ways: list[Way] = []
    for threads in rates:
        exported = {name: BundlePolicy(b, threads=threads, provider="cpu") for name, b in bundles.items()}
        for count in CANDIDATES:
            ways += [of_policy(network, name, each, count, threads) for name, each in exported.items()]
            if network is DEFAULT:
                ways.append(of_policy(network, EAGER, policy, count, threads, torch_threads=True))
            if peer:
                ways.append(of_peer(network, peer, count, threads))
    rounds, most = (4, 5) if given.quick else (30, 10) if network is DEFAULT else (3, 2)
    measure(ways, rounds, most, also=[rate.turn for rate in rates.values()])
    flops, steps = networks.step_flops(policy), len(policy.module.steps)
    bounds = {n: flops * steps * max(CANDIDATES) / rate.gflops / 1e6 for n, rate in rates.items()}
    figures = summary(ways, bounds)
    figures["parameters"], figures["mflop_per_step"] = networks.parameters(policy), flops / 1e6
    figures["product_gflops"] = {n: round(rate.gflops, 1) for n, rate in rates.items()}
    if network is not DEFAULT:
        return ways, {"large": figures}
    if reason := gpu.missing():
        return ways, {**figures, "gpu_skipped": reason}
    on_card, more = gpu.compare(network, ours, flops, CANDIDATES, rounds, most)
    return ways + on_card, {**figures, **more}


def summary(ways: Sequence[Way], bounds: dict[int, float]) -> dict[str, Any]:
    """Medians, every engine at the number of threads that suits it best; ratios above 1 favour ours.

    Args:
        bounds: threads to the least that 16 candidates can take by the rate of products [ms].
    """
    one, many = CANDIDATES
    ours, ours_many = best(ways, OURS, one), best(ways, OURS, many)
    assert ours and ours_many

    def median(engine: str, count: int) -> float | None:
        found = best(ways, engine, count)
        return found.percentile(50) if found else None

    def times(engine: str, mine: Way) -> float | None:
        theirs = median(engine, mine.candidates)
        return theirs / mine.percentile(50) if theirs else None

    return {
        "ours_ms_p50": ours.percentile(50),
        "ours_ms_p99": ours.percentile(99),
        "ours_threads": ours.threads,
        "lerobot_eager_ms": median(PEER, one),
        "ratio": times(PEER, ours),
        "vs_torch_eager": times(EAGER, ours),
        "k16_ms": ours_many.percentile(50),
        "k16_threads": ours_many.threads,
        "k16_lerobot_eager_ms": median(PEER, many),
        "k16_ratio": times(PEER, ours_many),
        "k16_vs_torch_eager": times(EAGER, ours_many),
        "k16_vs_plain_export": times(PLAIN, ours_many),
        "k16_vs_bound": ours_many.percentile(50) / bounds[ours_many.threads],
    }


def as_table(ways: Sequence[Way]) -> Table:
    table = Table("network", "how", "threads", title="milliseconds per chunk, 10 denoising steps")
    for count in CANDIDATES:
        for title in ("p50", "p99", "best"):
            table.add_column(f"K={count} {title}", justify="right")
    order = dict.fromkeys((way.network, way.engine, way.threads) for way in ways)
    for key in sorted(order, key=lambda key: (key[0], key[1])):
        members = {w.candidates: w for w in ways if (w.network, w.engine, w.threads) == key}
        cells = [f"{members[k].percentile(q):.1f}" for k in CANDIDATES for q in (50, 99, 0)]
        table.add_row(key[0], key[1], str(key[2]), *cells)
    return table


if __name__ == "__main__":
    main()
