"""Export a trained policy to an ONNX bundle, checked against torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from robopolicy.evaluation.environments import parse_options
from robopolicy.export.bundle import export_bundle
from robopolicy.export.closed_loop import ClosedLoop
from robopolicy.export.options import ExportOptions
from robopolicy.export.report import describe
from robopolicy.runtime.bundle.directory import load_bundle


@dataclass(frozen=True)
class Args:
    """What to export.

    Args:
        policy: training run or saved policy.
        critic: run of ``robopolicy train-value``, or a saved critic: goes into the bundle, to judge the
            policy's candidates with --candidates and --select critic.
        output: the bundle's folder; must not exist.
        store: demonstrations to compare on, besides random observations.
        form: of the denoising loop: unrolled in one graph, one step that the runtime repeats, or auto for
            the faster of the two on this machine.
        precision: fp32, fp16 (for GPUs) or int8 (weights alone: a quarter of the size).
        denoising_steps: inference iterations, fewer or more than trained; 0 is as trained.
        opset: version of ONNX's operator set.
        threads: of the CPU, for measuring.
        candidates: how many at once, for comparing and measuring.
        tolerance: largest difference allowed, in normalised action units; by default 1e-4 in fp32, 1e-2 in
            fp16, 1e-1 in int8.
        env: a task to compare closed-loop success in; empty compares nowhere.
        option: of that environment, as NAME=VALUE.
        episodes: of each policy there.
        seed: first seed there.
    """

    policy: Path
    output: Path
    critic: Path | None = None
    store: Path | None = None
    form: Literal["auto", "unrolled", "step"] = "auto"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    denoising_steps: int = 0
    opset: int = ExportOptions.opset
    threads: int = 1
    candidates: tuple[int, ...] = (1, 16)
    tolerance: float | None = None
    env: str = ""
    option: tuple[str, ...] = ()
    episodes: int = 50
    seed: int = 1_000_000


def run(args: Args) -> int:
    console = Console()
    options = ExportOptions(
        form=args.form,
        precision=args.precision,
        denoising_steps=args.denoising_steps,
        opset=args.opset,
        threads=args.threads,
        candidates=args.candidates,
        tolerance=args.tolerance,
    )
    where = ClosedLoop(args.env, args.episodes, args.seed, parse_options(args.option))
    parity = export_bundle(
        args.policy,
        args.output,
        store=args.store,
        options=options,
        critic=args.critic,
        closed_loop=where,
        console=console,
    )
    bundle = load_bundle(args.output)
    console.print(describe(bundle.manifest))
    console.print(
        f"{args.output}: {parity.chunks} chunks differ from torch by at most {parity.max_abs:.1e} "
        f"(normalised), {parity.max_abs_physical:.1e} (physical); digest {bundle.digest}",
        soft_wrap=True,
    )
    return 0
