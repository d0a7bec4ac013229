"""Train a critic that chooses among a policy's candidates.

It learns from stores of episodes, successful and failed, what an action chunk is worth. With ``--policy RUN``
it looks at what that policy looks at and learns to judge its candidates. An interrupted training goes on with
``--resume RUN`` and nothing else: all settings are in the run. See docs/value_guidance.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from robopolicy.core.errors import ConfigError
from robopolicy.datasets.transitions import TransitionConfig
from robopolicy.models.critics import CriticConfig
from robopolicy.steering import objectives
from robopolicy.training.failures import InterruptedTrainingError
from robopolicy.training.source import Source, read_source
from robopolicy.training.value.building import LAST
from robopolicy.training.value.config import ValueTrainConfig
from robopolicy.training.value.job import DEFAULT_OBJECTIVE
from robopolicy.training.value.policy import as_policy
from robopolicy.training.value.report import PLOT
from robopolicy.training.value.train import resume_value, train_value


@dataclass(frozen=True)
class Args:
    """What to learn from what. The chosen objective's own options go by its name.

    Args:
        store: episodes, by path or URL; failed ones are used like the others.
        output: a new run folder; the critic that ranked held-out episodes best is saved in its ``critic/``.
        store_version: of each store, by number or tag; the newest unless given. The run records it.
        weights: of several stores in a batch; as many as stores, in any unit. By their windows unless given.
        policy: run of the policy whose candidates are to be judged; it decides observations, horizons and
            text encoder. Without one the critic may still judge any policy that it fits.
        objective: what the critic learns by, a file name in robopolicy/steering/objectives.
        reward: of each step, "sparse", "success", "dense" or your own function, "package.module:function".
    """

    store: tuple[str, ...]
    output: Path
    store_version: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    policy: str = ""
    objective: str = DEFAULT_OBJECTIVE
    reward: str = "sparse"
    returns: TransitionConfig = field(default_factory=TransitionConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    train: ValueTrainConfig = field(default_factory=ValueTrainConfig)
    source: ClassVar[Source | None] = None  # the policy, read once for its options


@dataclass(frozen=True)
class ResumeArgs:
    """An interrupted training to go on with.

    Args:
        resume: its run folder.
    """

    resume: Path


def arguments(given: list[str]) -> type:
    """Args with the chosen objective's ``Config`` under its name; the policy's own options are defaults."""
    flags = [word.split("=")[0].replace("_", "-") for word in given if word.startswith("--")]
    if "--resume" in flags:
        others = [flag for flag in flags if flag not in ("--resume", "--help")]
        if others:
            raise ConfigError(f"--resume takes every setting from the run; leave out {', '.join(others)}")
        return ResumeArgs
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--objective", default=DEFAULT_OBJECTIVE)
    parser.add_argument("--policy", default="")
    asked = parser.parse_known_args(given)[0]
    config, options = objectives.objective(asked.objective).Config, ValueTrainConfig()
    source = read_source(asked.policy) if asked.policy else None
    if source is not None:
        options = as_policy(source, options)
    extra = [
        (asked.objective, config, field(default_factory=config)),
        ("train", ValueTrainConfig, field(default_factory=lambda: options)),
    ]
    made = dataclasses.make_dataclass("Args", extra, bases=(Args,), frozen=True, namespace={"source": source})
    made.__doc__ = Args.__doc__
    return made


def run(args: Any) -> int:
    console = Console()
    try:
        if isinstance(args, ResumeArgs):
            output, result = args.resume, resume_value(args.resume, console=console)
        else:
            output, result = args.output, _train(args, console)
    except InterruptedTrainingError as error:
        print(error, file=sys.stderr)
        return 128 + error.signum
    console.print(
        f"{result['parameters'] / 1e6:.2f} M parameters, {result['train_seconds']:.0f} s, "
        f"{result['samples_per_s']:.0f} samples/s, loss {result['final_loss']:.5f}"
    )
    if value := result["value"]:
        if rank := value["ranking_accuracy"]:
            low, high = rank["interval"]
            console.print(
                f"ranking accuracy {rank['value']:.3f} ({low:.3f} to {high:.3f}; 0.5 is chance), "
                f"spread over {value['spread_of']} {value['spread']:.3f}"
            )
        if chunks := value["chunk_accuracy"]:
            low, high = chunks["interval"]
            console.print(f"chunk accuracy {chunks['value']:.3f} ({low:.3f} to {high:.3f})")
        if value["step"] != result["steps"]:
            console.print(
                f"kept: the critic of step {value['step']}, which ranked best; the last is in {output / LAST}"
            )
        console.print(f"predicted against realised returns: {output / PLOT}")
    console.print(f"next: robopolicy eval --policy RUN --critic {output} --candidates 16 --select critic")
    return 0


def _train(args: Any, console: Console) -> dict[str, Any]:
    if args.source is not None:  # here options that are like the usual ones were asked for, too
        as_policy(args.source, args.train, given=True)
    return train_value(
        args.store,
        args.output,
        version=args.store_version or None,
        weights=args.weights,
        objective=args.objective,
        options=getattr(args, args.objective),
        reward=args.reward,
        returns=args.returns,
        critic=args.critic,
        policy=args.policy,
        source=args.source,
        config=args.train,
        console=console,
    )
