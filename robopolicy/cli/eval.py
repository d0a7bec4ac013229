"""Evaluate a policy or a bundle in simulation, or with --robot in guided trials on an arm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from robopolicy.cli._reranked import reranked
from robopolicy.cli._selection import Asked
from robopolicy.core.errors import ConfigError, RobopolicyError
from robopolicy.core.policy import Policy
from robopolicy.core.provenance import create_run
from robopolicy.evaluation.campaign import JOURNAL, Campaign, check_environment, run_campaign
from robopolicy.evaluation.environments import parse_options
from robopolicy.evaluation.goals import GoalPolicy, load_goals
from robopolicy.evaluation.instructed import InstructedPolicy
from robopolicy.evaluation.results import Summary

REMOTE_TIMEOUT_S = 120.0  # many observations at once, and nothing that waits for them


@dataclass(frozen=True)
class Args:
    """What to evaluate where.

    Args:
        policy: training run, saved policy, bundle, or ws(s)://HOST:PORT of a ``robopolicy serve``.
        output: a new folder for ``eval.json``, ``report.html`` and videos.
        env: a task name, or a Gymnasium id as NAMESPACE/Name-vN.
        option: of the environment, as NAME=VALUE, the value in YAML: robot=ur5e, randomisation=light.
        episodes: how many; their seeds follow ``seed``.
        seed: first seed of the environment; the others follow.
        noise_seed: of the policy.
        instruction: what to ask of the policy, in words, instead of what the environment asks.
        candidates: draw so many chunks at every call of the policy and act on one of them.
        select: by which scores, as NAME or NAME=WEIGHT: critic, random_pick, past_tokens, ...; by the critic
            unless said otherwise.
        critic: run of ``robopolicy train-value``, or a bundle that has one; by default that of the bundle.
        temperature: 0 takes the best candidate; larger chooses closer to uniformly, in the scores' unit.
        pessimism: over the critic's members: min (as trained), mean, or std.
        score: an option of a score, as NAME.OPTION=VALUE.
        goal: what to reach, as STORE#EPISODE: what the last step of that episode saw, for a policy whose
            observations include "goal.KEY" and an environment that does not give them.
        num_envs: environments at once; does not change the results.
        executor: where environments live: processes, inline (this process) or ray; changes no result.
        workers: processes for them; 0 is one for each core.
        videos: episodes to film, failures first.
        threads: of the inference on a CPU.
        resume: go on with an evaluation that was interrupted in ``output``.
        report: write ``report.html``.
    """

    policy: Path
    output: Path
    env: str = "lift"
    option: tuple[str, ...] = ()
    episodes: int = 50
    seed: int = 1_000_000
    noise_seed: int = 0
    instruction: str = ""
    goal: str = ""
    candidates: int = 1
    select: tuple[str, ...] = ()
    critic: Path | None = None
    temperature: float = 0.0
    pessimism: Literal["", "min", "mean", "std"] = ""
    score: tuple[str, ...] = ()
    num_envs: int = 16
    executor: str = "processes"
    workers: int = 0
    videos: int = 0
    threads: int = 1
    resume: bool = False
    report: bool = True


def arguments(rest: Sequence[str]) -> Any:
    """``--robot`` asks for guided trials on an arm, which take other arguments."""
    from robopolicy.cli._trial import TrialArgs

    return TrialArgs if any(word.split("=")[0] == "--robot" for word in rest) else Args


def load_any(path: Path, threads: int = 1) -> Policy:
    """A bundle or a torch policy, whichever lies there, or what a server at ws(s)://HOST:PORT has.

    Paths keep one slash of the two; the token comes from ROBOPOLICY_TOKEN.
    """
    if path.parts and path.parts[0] in ("ws:", "wss:"):
        from robopolicy.runtime.remote import RemotePolicy, read_token

        url = f"{path.parts[0]}//{'/'.join(path.parts[1:])}"
        return RemotePolicy(url, read_token(), request_timeout_s=REMOTE_TIMEOUT_S)
    if (path / "manifest.json").is_file():
        from robopolicy.runtime import BundlePolicy, load_bundle

        return BundlePolicy(load_bundle(path), threads=threads)
    if not path.is_dir():
        raise RobopolicyError(f"no policy at {path}")
    import torch

    from robopolicy.policies._saved import load_policy

    torch.set_num_threads(threads)
    return load_policy(path)


def run(args: Any) -> int:
    if not isinstance(args, Args):
        from robopolicy.cli._trial import run_trials

        return run_trials(args)
    console = Console()
    if args.episodes < 1:
        raise ConfigError(f"--episodes must be >= 1, got {args.episodes}")
    policy = load_any(args.policy, args.threads)
    label = str(getattr(policy, "url", args.policy))
    chooser = reranked(policy, Asked.of(args), threads=args.threads)
    policy = chooser or policy  # within what tells or gives goals: the critic is told the same
    if args.instruction:
        policy = InstructedPolicy(policy, args.instruction)
    if args.goal:
        policy = GoalPolicy(policy, load_goals(args.goal, policy.policy_specs))
    campaign = Campaign(
        env=args.env,
        options=parse_options(args.option),
        seeds=tuple(range(args.seed, args.seed + args.episodes)),
        noise_seed=args.noise_seed,
        num_envs=args.num_envs,
        executor=args.executor,
        workers=args.workers,
        videos=args.videos,
    )
    if args.resume:
        if not (args.output / JOURNAL).is_file():
            raise ConfigError(f"nothing to resume: {args.output} holds no {JOURNAL}")
    else:
        check_environment(campaign, policy)
        create_run(args.output, args, seed=args.seed)
    command = ("robopolicy", *sys.argv[1:])
    evaluation = run_campaign(
        campaign,
        policy,
        args.output,
        label=label,
        command=command,
        console=console,
        selection=chooser.record if chooser else None,
    )
    console.print(describe(evaluation.summary))
    if evaluation.selection is not None:
        console.print(evaluation.selection.in_words())
    if (timing := evaluation.timing) is not None:
        console.print(
            f"{timing.steps_per_s:.0f} steps/s; physics {timing.share_physics:.0%}, rendering "
            f"{timing.share_render:.0%}, rest of the environment {timing.share_environment:.0%}, policy "
            f"{timing.share_policy:.0%}"
        )
    if args.report:
        from robopolicy.evaluation.eval_report import load_entries, write_evaluation_report

        write_evaluation_report(args.output / "report.html", load_entries([args.output / "eval.json"]))
        console.print(f"open {args.output / 'report.html'}")
    return 0


def describe(summary: Summary) -> str:
    """The summary in a few lines."""

    def mean(value: float, interval: tuple[float, float], unit: str = "") -> str:
        return f"{value:.3f}{unit} [{interval[0]:.3f}, {interval[1]:.3f}]"

    counted = f"success {summary.successes}/{summary.n_episodes}"
    lines = [
        f"{counted} = {mean(summary.success_rate, summary.success_interval)}",
        f"mean return {mean(summary.mean_return, summary.mean_return_interval)}",
        f"mean of maximum reward {mean(summary.max_reward, summary.max_reward_interval)}",
    ]
    if summary.seconds_to_success is not None and summary.seconds_to_success_interval is not None:
        times = mean(summary.seconds_to_success, summary.seconds_to_success_interval, " s")
        lines.append(f"mean time to success {times}")
    lines += [f"mean of maximum {key} {mean(*found)}" for key, found in summary.maxima.items()]
    if summary.unstable:
        lines.append(f"{summary.unstable} episodes ended in unstable physics; they count as failures")
    if summary.restarts:
        lines.append(f"{summary.restarts} times an episode began again because its process had died")
    return "\n".join(lines)
