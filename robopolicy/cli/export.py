"""Export a trained policy to an ONNX bundle, checked against torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from robopolicy.export.bundle import export_bundle
from robopolicy.export.parity import TOLERANCE
from robopolicy.runtime.bundle import load_bundle


@dataclass(frozen=True)
class Args:
    """What to export.

    Args:
        policy: training run or saved policy.
        output: the bundle's folder; must not exist.
        store: demonstrations to compare on, besides random observations.
        tolerance: largest difference allowed, in normalised action units.
    """

    policy: Path
    output: Path
    store: Path | None = None
    tolerance: float = TOLERANCE


def run(args: Args) -> int:
    parity = export_bundle(args.policy, args.output, store=args.store, tolerance=args.tolerance)
    Console().print(
        f"{args.output}: {parity.chunks} chunks differ from torch by at most {parity.max_abs:.1e} "
        f"(normalised), {parity.max_abs_physical:.1e} (physical); digest {load_bundle(args.output).digest}"
    )
    return 0
