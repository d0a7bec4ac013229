"""Identify a robot model's gains, friction and delay from logged motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import create_run
from robopolicy.evaluation.environments import load_entry, parse_options

IDENTIFIERS = "robopolicy.identifiers"


@dataclass(frozen=True)
class Args:
    """Where the motion comes from, and what to fit.

    Args:
        output: a new folder for ``randomisation.yaml``, ``sysid.json`` and a plot; with --excite a new store.
        store: recordings, by path or URL; best at control rate, as --excite makes them.
        bag: a rosbag2 to read as well.
        mapping: what the bag's topics mean, as for ``robopolicy dataset import``.
        robot: whose model is fitted.
        parameters: some of kp, kv, damping, armature, frictionloss, delay.
        gripper: whether the gripper moved freely in these recordings; else as they say themselves.
        held_out: share of the episodes that judge the result.
        seconds: of motion to fit at most [s]; with --excite the length of an episode.
        max_iterations: of the optimiser.
        threads: that simulate.
        excite: record instead: a task whose robot is moved by sums of sines.
        episodes, seed: of --excite.
        option: of the environment of --excite, as NAME=VALUE.
    """

    output: Path
    store: tuple[str, ...] = ()
    bag: Path | None = None
    mapping: str = "rosbag2_fr3"
    robot: str = "fr3"
    parameters: tuple[str, ...] = ("kp", "kv", "armature", "frictionloss", "delay")
    gripper: bool | None = None
    held_out: float = 0.25
    seconds: float | None = None
    max_iterations: int = 30
    threads: int = 1
    excite: str | None = None
    episodes: int = 8
    seed: int = 0
    option: tuple[str, ...] = ()


def run(args: Args) -> int:
    console = Console()
    identifier = load_entry(IDENTIFIERS, "identifier", "mujoco")
    if args.excite is not None:
        return _record(args, identifier, console)
    options = identifier.Options(
        parameters=args.parameters,
        held_out=args.held_out,
        seconds=30.0 if args.seconds is None else args.seconds,
        max_iterations=args.max_iterations,
        threads=args.threads,
    )
    logs = identifier.read(
        stores=args.store, bag=args.bag, mapping=args.mapping, robot=args.robot, gripper=args.gripper
    )
    create_run(args.output, args)  # only now: what was refused above leaves no folder behind
    result = identifier.identify(args.robot, logs, options, console)
    identifier.save(result, args.output)
    identifier.show(result, console)
    console.print(
        f"{args.output} holds sysid.json, held_out.png and randomisation.yaml; "
        f"next: robopolicy eval --option randomisation={args.output}/randomisation.yaml ..."
    )
    return 0


def _record(args: Args, identifier: Any, console: Console) -> int:
    if args.store or args.bag is not None:
        raise ConfigError("--excite records; give it without --store and --bag")
    if args.episodes < 2:
        raise ConfigError(f"--episodes must be >= 2, one of them to judge by, got {args.episodes}")
    seconds = 10.0 if args.seconds is None else args.seconds
    store = identifier.record(
        args.excite,
        args.output,
        seeds=range(args.seed, args.seed + args.episodes),
        seconds=seconds,
        console=console,
        **parse_options(args.option),
    )
    console.print(f"{args.output} holds {len(store)} episodes; next: robopolicy sysid --store {args.output}")
    return 0
