"""What is trained on what, and where its results lie."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from robopolicy.core.horizons import Horizons
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.policies import diffusion_transformer, sdp
from robopolicy.training.config import HeldOutConfig, TrainConfig

HELD_OUT = 0.1  # of each store's episodes
SEED = 1_000_000  # first of the evaluation


@dataclass(frozen=True)
class Plan:
    """Sizes of one benchmark.

    Args:
        output: holds every run; what is finished there is not done again.
        stores: path of a task's demonstrations, with {task} in it.
        base_steps: optimiser steps of what learns several tasks from nothing; steps: for each task added.
        env: id of a task's environment, with {task} in it; empty measures no success.
        python: interpreter that has those environments; it evaluates bundles.
    """

    output: Path
    stores: str
    base_steps: int
    steps: int
    episodes: int
    dim: int
    layers: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    env: str = "metaworld/{task}"
    python: Path = Path(".venv-peers/bin/python")
    observation: int = 2
    prediction: int = 16
    executed: int = 8
    quick: bool = False

    def store(self, task: str) -> str:
        return self.stores.format(task=task)

    def dense(self) -> diffusion_transformer.Config:
        """Feed-forward parts of 4 * dim units: what is active of ``sparse`` too."""
        return diffusion_transformer.Config(dim=self.dim, layers=self.layers, schedule=self.schedule())

    def sparse(self) -> sdp.Config:
        return sdp.Config(
            dim=self.dim, layers=self.layers, expert_hidden=2 * self.dim, schedule=self.schedule()
        )

    def schedule(self) -> ScheduleConfig:
        return ScheduleConfig()

    def training(self, seed: int, steps: int) -> TrainConfig:
        return TrainConfig(
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=min(200, steps // 10),
            horizons=Horizons(self.observation, self.prediction, self.executed),
            instruction="words",
            seed=seed,
            threads=1,
            trackers=(),
            held_out=HeldOutConfig(fraction=HELD_OUT, every=max(steps // 5, 1), windows=1024),
        )


def add_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tiny network, a few steps and episodes")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"runs; finished ones are kept; {output} by default, {output}_quick if quick",
    )
    parser.set_defaults(default_output=output)
    parser.add_argument("--stores", default="runs/stores/mw_{task}.zarr")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--base-steps", type=int, default=8_000)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument(
        "--loss-only", action="store_true", help="no success, only errors on held-out episodes"
    )
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-peers/bin/python"))


def plan_of(given: argparse.Namespace) -> Plan:
    quick = given.quick
    return Plan(
        given.output or Path(given.default_output + "_quick" * quick),
        given.stores,
        base_steps=40 if quick else given.base_steps,
        steps=20 if quick else given.steps,
        episodes=2 if quick else given.episodes,
        dim=32 if quick else given.dim,
        layers=2 if quick else given.layers,
        batch_size=32 if quick else 128,
        env="" if given.loss_only else "metaworld/{task}",
        python=given.peers_python,
        quick=quick,
    )


def make_console() -> Console:
    """Wide enough for the tables where nobody's screen says otherwise."""
    return Console(width=None if sys.stdout.isatty() else 160)
