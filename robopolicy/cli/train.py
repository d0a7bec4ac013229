"""Train a policy on stores of demonstrations.

An interrupted training goes on with ``--resume RUN`` and nothing else: all settings are in the run.
``--extend RUN --task STORE --output NEW`` adds a task to a policy of family sdp and leaves its others as they
are. Several processes train one policy when started by torchrun; see docs/training.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy import policies
from robopolicy.core.errors import ConfigError
from robopolicy.training.config import TrainConfig
from robopolicy.training.extend import ExtendConfig
from robopolicy.training.failures import InterruptedTrainingError
from robopolicy.training.source import as_trained, read_source
from robopolicy.training.train import resume, train

#: Options of ``--extend`` that are those of the policy it adds to.
OF_THE_RUN = ("keys", "horizons", "instruction", "goal", "finetune", "normaliser")


@dataclass(frozen=True)
class Args:
    """What to train on what.

    Args:
        store: demonstrations, by path or URL; several for one policy of several tasks.
        store_version: of each store, by number or tag; the newest unless given. The run records it.
        weights: of several stores in a batch; as many as stores, in any unit. By their windows unless given.
        output: a new run folder; the policy is saved in its ``policy/``.
        policy: family, a file name in robopolicy/policies; ``--model`` holds its own options.
    """

    store: tuple[str, ...]
    output: Path
    store_version: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    policy: str = "diffusion_unet"
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class ResumeArgs:
    """An interrupted training to go on with.

    Args:
        resume: its run folder.
    """

    resume: Path


@dataclass(frozen=True)
class ExtendArgs:
    """Tasks to add to a trained policy; what it can do already stays the same, bit for bit.

    Args:
        extend: run of the policy; its family must be able to grow ("sdp").
        task: demonstrations of a new task, by path or URL; several for several tasks.
        task_version: of each, by number or tag; the newest unless given.
        output: a new run folder.
        experts: that each task brings to every layer.
    """

    extend: Path
    task: tuple[str, ...]
    output: Path
    task_version: tuple[str, ...] = ()
    experts: int = ExtendConfig.experts
    train: TrainConfig = field(default_factory=TrainConfig)


def arguments(given: list[str]) -> type:
    """Args with the chosen family's ``Config`` as ``model``. Of a run to fine-tune its options, observations,
    horizons, text encoder and goals are the defaults."""
    flags = [word.split("=")[0].replace("_", "-") for word in given if word.startswith("--")]
    if "--resume" in flags:
        others = [flag for flag in flags if flag not in ("--resume", "--help")]
        if others:
            raise ConfigError(f"--resume takes every setting from the run; leave out {', '.join(others)}")
        return ResumeArgs
    if fixed := [flag for flag in flags if flag.startswith("--train.extend")]:
        raise ConfigError(f"leave out {', '.join(fixed)}: --extend RUN --task STORE --experts N adds a task")
    if "--extend" in flags:
        if fixed := [
            flag for flag in flags if flag.startswith(tuple(f"--train.{name}" for name in OF_THE_RUN))
        ]:
            raise ConfigError(f"--extend takes these from the run; leave out {', '.join(fixed)}")
        return _extend_args(given)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--policy")
    parser.add_argument("--train.finetune.run", dest="run", default="")
    parser.add_argument("--train.finetune.take", dest="take", nargs="*")
    asked = parser.parse_known_args(given)[0]
    name, model, options = asked.policy or "diffusion_unet", None, TrainConfig()
    if asked.run and not asked.take:
        source = read_source(asked.run)
        options = as_trained(source, options)
        if asked.policy in (None, source.family):
            name, model = source.family, source.config
    family = policies.family(name)
    default = field(default_factory=family.Config if model is None else lambda: model)
    extra = [
        ("policy", str, field(default=name)),
        ("model", family.Config, default),
        ("train", TrainConfig, field(default_factory=lambda: options)),
    ]
    made = dataclasses.make_dataclass("Args", extra, bases=(Args,), frozen=True)
    made.__doc__ = Args.__doc__
    return made


def _extend_args(given: list[str]) -> type:
    """ExtendArgs with the run's own options as defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--extend", nargs="?")
    run = parser.parse_known_args(given)[0].extend
    if not run or "--help" in given:
        return ExtendArgs
    options = as_trained(read_source(run), TrainConfig())
    extra = [("train", TrainConfig, field(default_factory=lambda: options))]
    made = dataclasses.make_dataclass("ExtendArgs", extra, bases=(ExtendArgs,), frozen=True)
    made.__doc__ = ExtendArgs.__doc__
    return made


def run(args: Any) -> int:
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    try:
        result, output = _train(args, console)
    except InterruptedTrainingError as error:
        print(error, file=sys.stderr)
        return 128 + error.signum
    console.print(
        f"{result['parameters'] / 1e6:.2f} M parameters, {result['train_seconds']:.0f} s, "
        f"{result['samples_per_s']:.0f} samples/s, loss {result['final_loss']:.5f}"
    )
    if best := result["best"]:
        console.print(f"best {best['name']} {best['value']:.4f} at step {best['step']}: {output / 'best'}")
    console.print(f"next: robopolicy eval --policy {output}")
    return 0


def _train(args: Any, console: Console) -> tuple[dict[str, Any], Path]:
    if isinstance(args, ResumeArgs):
        return resume(args.resume, console=console), args.resume
    if isinstance(args, ExtendArgs):
        config = dataclasses.replace(args.train, extend=ExtendConfig(str(args.extend), args.experts))
        version = args.task_version or None
        return train(args.task, args.output, version=version, config=config, console=console), args.output
    result = train(
        args.store,
        args.output,
        version=args.store_version or None,
        weights=args.weights,
        family=args.policy,
        policy_config=args.model,
        config=args.train,
        console=console,
    )
    return result, args.output
