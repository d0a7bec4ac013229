"""Evaluate a trained policy or a bundle in simulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.core.errors import ConfigError, RobopolicyError
from robopolicy.core.policy import Policy
from robopolicy.core.provenance import create_run, package_versions, write_json
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.environments import make_env_for, named_observation
from robopolicy.evaluation.results import EpisodeResult, Summary, summarise
from robopolicy.evaluation.rollout import evaluate
from robopolicy.evaluation.video import mark_outcome, write_video

EVAL_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Args:
    """What to evaluate where.

    Args:
        policy: training run, saved policy, or bundle.
        output: a new folder for ``eval.json`` and videos.
        env: a task name, or a Gymnasium id as NAMESPACE/Name-vN.
        episodes: how many; their seeds follow ``seed``.
        seed: first seed of the environment; the others follow.
        noise_seed: of the policy.
        num_envs: environments in lockstep; does not change the results.
        videos: episodes to film.
        threads: of the inference on a CPU.
    """

    policy: Path
    output: Path
    env: str = "lift"
    episodes: int = 50
    seed: int = 1_000_000
    noise_seed: int = 0
    num_envs: int = 16
    videos: int = 0
    threads: int = 1


def load_any(path: Path, threads: int = 1) -> Policy:
    """A bundle or a torch policy, whichever lies there."""
    if (path / "manifest.json").is_file():
        from robopolicy.runtime import BundlePolicy, load_bundle

        return BundlePolicy(load_bundle(path), threads=threads)
    if not path.is_dir():
        raise RobopolicyError(f"no policy at {path}")
    import torch

    from robopolicy.policies._saved import load_policy

    torch.set_num_threads(threads)
    return load_policy(path)


def run(args: Args) -> int:
    console = Console()
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    policy = load_any(args.policy, args.threads)
    specs = policy.policy_specs
    options: dict[str, Any] = {"render_mode": "rgb_array"} if args.videos else {}
    _check_environment(args, policy, options)
    create_run(args.output, args, seed=args.seed)

    def film(seed: int, success: bool, frames: list[Any]) -> None:
        write_video(args.output / f"seed_{seed}.mp4", mark_outcome(frames, success), specs.specs.policy_rate)

    episodes = evaluate(
        policy,
        lambda: make_env_for(args.env, specs, **options),
        range(args.seed, args.seed + args.episodes),
        noise_seed=args.noise_seed,
        num_envs=args.num_envs,
        film=args.videos,
        on_film=film,
        console=console,
    )
    summary = summarise(episodes)
    write_json(args.output / "eval.json", as_tree(episodes, policy, env=args.env, noise_seed=args.noise_seed))
    console.print(describe(summary))
    return 0


def _check_environment(args: Args, policy: Policy, options: dict[str, Any]) -> None:
    """A wrong name, or observations that do not fit, must fail before anything is written."""
    env = make_env_for(args.env, policy.policy_specs, **options)
    try:
        raw, _ = env.reset(seed=args.seed)
        named_observation(raw, policy.policy_specs)
    finally:
        env.close()


def as_tree(episodes: list[EpisodeResult], policy: Policy, *, env: str, noise_seed: int) -> dict[str, Any]:
    """Contents of ``eval.json``: what was run, the summary, and every episode."""
    return {
        "schema_version": EVAL_SCHEMA_VERSION,
        "environment": env,
        "noise_seed": noise_seed,
        "policy_digest": getattr(policy, "digest", ""),
        "policy_specs": to_tree(policy.policy_specs),
        "versions": package_versions(),
        "summary": to_tree(summarise(episodes)),
        "episodes": to_tree(episodes),
    }


def describe(summary: Summary) -> str:
    """The summary in a few lines."""
    low, high = summary.success_interval
    reward_low, reward_high = summary.max_reward_interval
    lines = [
        f"success {summary.successes}/{summary.n_episodes} = {summary.success_rate:.3f} "
        f"[{low:.3f}, {high:.3f}]",
        f"mean of maximum reward {summary.max_reward:.3f} [{reward_low:.3f}, {reward_high:.3f}]",
    ]
    for key, (mean, (low, high)) in summary.maxima.items():
        lines.append(f"mean of maximum {key} {mean:.3f} [{low:.3f}, {high:.3f}]")
    return "\n".join(lines)
