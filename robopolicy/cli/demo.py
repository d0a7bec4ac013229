"""The main job: record, train, evaluate, export and run in real time, with a report at the end."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.cli import eval as eval_command
from robopolicy.cli.record import Args as RecordArgs
from robopolicy.cli.record import run as run_record
from robopolicy.core.errors import MissingDependencyError, RobopolicyError
from robopolicy.core.provenance import create_run, write_json
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.campaign import Campaign, run_campaign
from robopolicy.evaluation.demo_report import write_demo_report
from robopolicy.evaluation.environments import make_env, make_env_for
from robopolicy.evaluation.replay import replay_open_loop
from robopolicy.evaluation.results import EpisodeResult, summarise
from robopolicy.export.bundle import export_bundle
from robopolicy.policies._saved import load_policy
from robopolicy.policies.diffusion_unet import Config
from robopolicy.training.train import TrainConfig, train

EVALUATION_SEED = 1_000_000
REALTIME_SEED = 2_000_000
REPLAY_SEED = 3_000_000


@dataclass(frozen=True)
class Args:
    """The demo's size; the defaults take about 8 minutes on two cores.

    Args:
        output: a new folder.
        replace: delete what an earlier demo left in it.
        demonstrations: to record.
        steps: of training.
        episodes: to evaluate on fresh seeds; ``videos`` of them are filmed, failures first.
        realtime_episodes: of the exported bundle.
    """

    output: Path = Path("runs/demo")
    replace: bool = False
    demonstrations: int = 100
    steps: int = 2_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    episodes: int = 50
    videos: int = 4
    realtime_episodes: int = 10
    seed: int = 0


def run(args: Args) -> int:
    console = Console()
    started = time.monotonic()
    folder = args.output
    if args.replace:
        _remove_earlier_demo(folder)
    create_run(folder, args, seed=args.seed)
    summary: dict[str, Any] = {"command": " ".join(["robopolicy demo", *sys.argv[2:]]), "seed": args.seed}
    if args.videos and (problem := _cannot_render()):
        console.print(f"[yellow]no videos:[/] {problem}")
        summary["no_videos"] = problem
        args = dataclasses.replace(args, videos=0)

    def step(name: str) -> float:
        console.rule(f"[bold]{name}")
        return time.monotonic()

    begun = step("1/6 record")
    store = folder / "demonstrations.zarr"
    run_record(RecordArgs(output=store, episodes=args.demonstrations, seed=args.seed))
    summary["episodes_recorded"] = len(EpisodeStore.open(store))
    summary["record_seconds"] = time.monotonic() - begun

    step("2/6 train")
    config = TrainConfig(
        steps=args.steps, batch_size=args.batch_size, learning_rate=args.learning_rate, seed=args.seed
    )
    trained = train(store, folder / "train", policy_config=Config(), config=config, console=console)
    summary["train_seconds"], summary["parameters"] = trained["train_seconds"], trained["parameters"]

    step("3/6 evaluate")
    episodes = _evaluate(args, folder, console, summary)
    _replay(args, store, summary)
    console.print(eval_command.describe(summarise(episodes)))
    console.print(f"open-loop replay {summary['replay_successes']}/{summary['replay_episodes']}")

    begun = step("4/6 export")
    parity = export_bundle(folder / "train", folder / "bundle", store=store)
    summary["parity_max_abs"], summary["export_seconds"] = parity.max_abs, time.monotonic() - begun
    console.print(f"{parity.chunks} chunks differ from torch by at most {parity.max_abs:.1e}")

    step("5/6 run in real time")
    _run_in_real_time(args, folder, summary)

    step("6/6 report")
    names = list(EpisodeStore.open(store).specs.action.names)
    summary["wall_seconds"] = time.monotonic() - started
    write_demo_report(folder, summary, episodes, names)
    summary["wall_seconds"] = time.monotonic() - started
    write_json(folder / "summary.json", summary)
    console.print_json(json.dumps(summary))
    console.print(f"open {folder / 'report.html'}")
    return 0


def _remove_earlier_demo(folder: Path) -> None:
    """Delete a folder that an earlier demo made, and nothing else."""
    config = folder / "config.json"
    if config.is_file() and set(json.loads(config.read_text())) == {f.name for f in dataclasses.fields(Args)}:
        shutil.rmtree(folder)


def _cannot_render() -> str:
    """Why pictures cannot be drawn here; empty when they can. Asked before the work, not after it."""
    env = make_env("lift", render_mode="rgb_array", render_size=(8, 8))
    try:
        env.reset(seed=0)
        env.render()
    except MissingDependencyError as error:
        return str(error)
    finally:
        env.close()
    return ""


def _evaluate(args: Args, folder: Path, console: Console, summary: dict[str, Any]) -> list[EpisodeResult]:
    campaign = Campaign(
        env="lift",
        options={"render_size": [240, 320]},
        seeds=tuple(range(EVALUATION_SEED, EVALUATION_SEED + args.episodes)),
        noise_seed=args.seed,
        videos=args.videos,
    )
    (folder / "eval").mkdir()
    evaluation = run_campaign(
        campaign,
        load_policy(folder / "train"),
        folder / "eval",
        label="train",
        command=("robopolicy", *sys.argv[1:]),
        console=console,
    )
    result = evaluation.summary
    summary["success_rate"], summary["success_interval"] = result.success_rate, result.success_interval
    summary["n_episodes"] = result.n_episodes
    return list(evaluation.episodes)


def _replay(args: Args, store: Path, summary: dict[str, Any]) -> None:
    opened = EpisodeStore.open(store)
    env = make_env_for("lift", PolicySpecs(opened.specs))
    seeds = range(REPLAY_SEED, REPLAY_SEED + args.episodes)
    summary["replay_successes"] = replay_open_loop(env, opened, seeds, seed=args.seed)
    summary["replay_episodes"] = args.episodes
    env.close()


def _run_in_real_time(args: Args, folder: Path, summary: dict[str, Any]) -> None:
    """In a fresh process, which never imports torch."""
    command = [sys.executable, "-m", "robopolicy.cli.main", "run"]
    command += ["--bundle", str(folder / "bundle"), "--output", str(folder / "realtime")]
    command += ["--episodes", str(args.realtime_episodes), "--seed", str(REALTIME_SEED)]
    command += ["--on-fault", "next"]  # an episode that ends in a fault has not succeeded, and is told
    code = subprocess.run(command, check=False).returncode
    result = _read(folder / "realtime" / "realtime.json")
    if code not in (0, 1) or len(result.get("episodes", [])) < args.realtime_episodes:
        raise RobopolicyError("the real-time run failed; its own message is above")
    if result["heavy_modules_loaded"]:
        raise RobopolicyError(f"the real-time process loaded {result['heavy_modules_loaded']}")
    keys = (
        "control_rate_hz", "control_lateness_p99_ms", "inference_p50_ms", "inference_p99_ms",
        "realtime_successes", "realtime_episodes", "faults",
    )  # fmt: skip
    summary.update({key.replace("faults", "realtime_faults"): result[key] for key in keys})


def _read(path: Path) -> dict[str, Any]:
    """Of a JSON file; empty where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}
