"""Record demonstrations of a task with its scripted expert into a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import provenance
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import EXPERTS, load_entry, make_env


@dataclass(frozen=True)
class Args:
    """What to record.

    Args:
        output: the store; a new one, unless --append.
        task: an environment that has an expert.
        episodes: how many.
        seed: of the first episode; the others follow.
        observations: "state", "image" or "all".
        action_space: "joint_position", "joint_delta", "ee_pose" or "ee_delta".
        policy_rate: observations and actions per second [Hz].
        noise: standard deviation of executed joint noise [rad]; the clean action is recorded.
        append: continue an existing store of the same specs.
        image_codec: how camera frames are stored in a new store: lossless, jpeg or png.
    """

    output: Path
    task: str = "lift"
    episodes: int = 100
    seed: int = 0
    observations: str = "state"
    action_space: str = "joint_position"
    policy_rate: float = 10.0
    noise: float = 0.005
    append: bool = False
    image_codec: str = "lossless"


def run(args: Args) -> int:
    console = Console()
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    expert_class = load_entry(EXPERTS, "expert", args.task)
    env = make_env(
        args.task,
        observation_mode=args.observations,
        action_space=args.action_space,
        policy_rate=args.policy_rate,
    )
    noise = args.noise if args.action_space == "joint_position" else 0.0
    expert = expert_class(noise=noise)
    first = args.seed
    if args.append and args.output.exists():
        store = EpisodeStore.open(args.output)
        if store.specs != env.specs:
            raise ConfigError(f"{args.output} has other specs than this recording: {store.specs}")
        recorded = [entry.seed for entry in store.entries.values() if entry.seed is not None]
        first = max([first - 1, *recorded]) + 1
    else:
        facts = provenance(task=args.task, config=args)
        store = EpisodeStore.create(args.output, env.specs, facts, image_codec=args.image_codec)
    seeds = range(first, first + args.episodes)
    try:
        successes = record(env, expert, store, seeds, console)
    finally:
        env.close()
        console.print(f"{args.output} holds {len(store)} episodes")
    console.print(f"{successes}/{args.episodes} succeeded; next: robopolicy train --store {args.output}")
    return 0
