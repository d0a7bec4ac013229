"""Record demonstrations of a task with its scripted or its noisy expert into a store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.core.errors import ConfigError, RobopolicyError, UnknownNameError
from robopolicy.core.provenance import provenance
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import EXPERTS, load_entry, make_env, parse_options

KINDS = ("scripted", "noisy")
JOINT_NOISE = 0.005  # [rad] where actions are joint positions and --noise is not given


@dataclass(frozen=True)
class Args:
    """What to record.

    Args:
        output: the store; a new one, unless --append.
        task: an environment that has an expert.
        robot: a name or an MJCF or URDF file, for tasks that take one; by default their own.
        option: of the environment, as NAME=VALUE, the value in YAML: goal=left, randomisation=light.
        episodes: how many.
        seed: of the first episode; the others follow.
        expert: "scripted", or "noisy", whose demonstrations are of mixed quality.
        noise_level: how bad the noisy expert is, in 0..1: at 0 like the scripted one, at 1 mostly failing.
        keep_failures: store failed episodes too, marked as such.
        observations: "state", "image" or "all".
        action_space: "joint_position", "joint_delta", "ee_pose" or "ee_delta"; by default the task's own.
        policy_rate: observations and actions per second [Hz]; by default the task's own.
        noise: standard deviation of executed noise, in the actions' unit; the clean action is recorded. By
            default 0.005 rad where actions are joint positions, else none.
        append: continue an existing store of the same specs.
        image_codec: how camera frames are stored in a new store: lossless, jpeg or png.
    """

    output: Path
    task: str = "lift"
    robot: str = ""
    option: tuple[str, ...] = ()
    episodes: int = 100
    seed: int = 0
    expert: str = "scripted"
    noise_level: float = 0.5
    keep_failures: bool = True
    observations: str = "state"
    action_space: str = ""
    policy_rate: float | None = None
    noise: float | None = None
    append: bool = False
    image_codec: str = "lossless"


def run(args: Args) -> int:
    console = Console()
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    expert_class = load_entry(EXPERTS, "expert", args.task)
    env = make_env(args.task, **env_options(args))
    try:
        expert = make_expert(expert_class, args, env)
        store, first = open_store(args, env)
        seeds = range(first, first + args.episodes)
        try:
            successes = record(env, expert, store, seeds, console, keep_failures=args.keep_failures)
        finally:
            if len(store) == 0 and not args.append:
                shutil.rmtree(args.output)  # made above, for nothing
            else:
                console.print(f"{args.output} holds {len(store)} episodes")
    finally:
        env.close()
    if successes == 0 and (args.expert == "scripted" or not args.keep_failures):
        raise RobopolicyError(_nothing_solved(args, store, seeds))
    console.print(f"{successes}/{args.episodes} succeeded; next: robopolicy train --store {args.output}")
    return 0


def env_options(args: Args) -> dict[str, Any]:
    """What the environment's constructor is given: what was asked for, and nothing else."""
    asked = {"robot": args.robot, "action_space": args.action_space, "policy_rate": args.policy_rate}
    given = {name: value for name, value in asked.items() if value not in ("", None)}
    return {"observation_mode": args.observations, **given, **parse_options(args.option)}


def make_expert(expert_class: Any, args: Args, env: Any) -> Any:
    """The task's expert as asked for.

    Raises:
        UnknownNameError: no such kind; ConfigError: this task has none of that kind.
    """
    if args.expert not in KINDS:
        raise UnknownNameError("kind of expert", args.expert, KINDS)
    noise = args.noise
    if noise is None:
        noise = JOINT_NOISE if env.specs.action.parts[0].space == "joint_position" else 0.0
    if args.expert == "scripted":
        return expert_class(noise=noise)
    if not hasattr(expert_class, "noisy"):
        raise ConfigError(f"task {args.task!r} has no noisy expert; known: scripted")
    return expert_class.noisy(level=args.noise_level, noise=noise)


def open_store(args: Args, env: Any) -> tuple[EpisodeStore, int]:
    """The store to write to, and the seed to go on with; ConfigError if its specs are others."""
    if not (args.append and args.output.exists()):
        facts = provenance(task=args.task, config=args)
        return EpisodeStore.create(args.output, env.specs, facts, image_codec=args.image_codec), args.seed
    store = EpisodeStore.open(args.output)
    if store.specs != env.specs:
        raise ConfigError(f"{args.output} has other specs than this recording: {store.specs}")
    recorded = [entry.seed for entry in store.entries.values() if entry.seed is not None]
    return store, max([args.seed - 1, *recorded]) + 1


def _nothing_solved(args: Args, store: EpisodeStore, seeds: range) -> str:
    robot = f" with robot {args.robot!r}" if args.robot else ""
    kept = f"{args.output} holds {len(store)} episodes, of this run no success"
    return (
        f"the {args.expert} expert of task {args.task!r}{robot} solved none of {len(seeds)} episodes "
        f"(seeds {seeds[0]}..{seeds[-1]}); {kept if len(store) else 'nothing was kept'}"
    )
