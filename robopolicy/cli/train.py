"""Train a policy on a store of demonstrations."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy import policies
from robopolicy.training.train import TrainConfig, train


@dataclass(frozen=True)
class Args:
    """What to train on what.

    Args:
        store: demonstrations, by path or URL.
        store_version: a version of the store, by number or tag; the newest unless given. The run records it.
        output: a new run folder; the policy is saved in its ``policy/``.
        policy: family, a file name in robopolicy/policies; ``--model`` holds its own options.
    """

    store: str
    output: Path
    store_version: str | None = None
    policy: str = "diffusion_unet"
    train: TrainConfig = field(default_factory=TrainConfig)


def arguments(given: list[str]) -> type:
    """Args with the chosen family's ``Config`` as ``model``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--policy", default="diffusion_unet")
    family = policies.family(parser.parse_known_args(given)[0].policy)
    extra = [("model", family.Config, field(default_factory=family.Config))]
    made = dataclasses.make_dataclass("Args", extra, bases=(Args,), frozen=True)
    made.__doc__ = Args.__doc__
    return made


def run(args: Any) -> int:
    console = Console()
    result = train(
        args.store,
        args.output,
        version=args.store_version,
        family=args.policy,
        policy_config=args.model,
        config=args.train,
        console=console,
    )
    console.print(
        f"{result['parameters'] / 1e6:.2f} M parameters, {result['train_seconds']:.0f} s, "
        f"{result['samples_per_s']:.0f} samples/s, loss {result['final_loss']:.5f}; "
        f"next: robopolicy eval --policy {args.output}"
    )
    return 0
