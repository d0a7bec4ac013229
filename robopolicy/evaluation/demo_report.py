"""The page that ``robopolicy demo`` leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robopolicy.core.provenance import git_revision, package_versions
from robopolicy.evaluation import plots
from robopolicy.evaluation.report import Figure, Section, Video, write_report
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.run_files import read_run
from robopolicy.evaluation.statistics import wilson_interval


def write_demo_report(
    folder: Path, summary: dict[str, Any], episodes: list[EpisodeResult], action_names: list[str]
) -> None:
    """``report.html`` from the files that the demo's steps wrote into ``folder``."""
    s = summary
    low, high = s["success_interval"]
    enough = 0.8 * s["realtime_episodes"]
    late_ms = s["control_lateness_p99_ms"]
    tiles = [
        (
            f"simulated success, 95 % interval {low:.2f} to {high:.2f}",
            f"{s['success_rate']:.2f}",
            s["success_rate"] >= 0.9,
        ),
        (
            "real-time episodes that succeed",
            f"{s['realtime_successes']}/{s['realtime_episodes']}",
            s["realtime_successes"] >= enough,
        ),
        ("largest difference ONNX to torch", f"{s['parity_max_abs']:.1e}", s["parity_max_abs"] <= 1e-4),
        ("control lateness p99 at 100 Hz", f"{late_ms:.2f} ms", late_ms <= 5),
        ("inference p50 / p99", f"{s['inference_p50_ms']:.0f} / {s['inference_p99_ms']:.0f} ms", True),
        ("whole job", f"{s['wall_seconds']:.0f} s", s["wall_seconds"] <= 720),
    ]
    lead = (
        "A seven-joint arm lifts a cube: demonstrations recorded, a diffusion policy trained, evaluated, "
        "exported to ONNX and run in real time behind a safety filter."
    )
    sections = [
        _evaluation(folder, s, episodes),
        _realtime(folder, s, action_names),
        _training(folder, s),
        Section("Reproduce", rows=[("command", s["command"]), ("seed", str(s["seed"]))]),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    footer = f"revision {git_revision() or 'unknown'}; {versions}"
    write_report(folder / "report.html", "robopolicy demo: lift", lead, tiles, sections, footer)


def _evaluation(folder: Path, s: dict[str, Any], episodes: list[EpisodeResult]) -> Section:
    won, count = sum(e.success for e in episodes), len(episodes)
    replayed, tried = s["replay_successes"], s["replay_episodes"]
    bars = [
        ("diffusion policy", won, count, wilson_interval(won, count)),
        ("open-loop replay", replayed, tried, wilson_interval(replayed, tried)),
    ]
    videos = [
        Video(path, f"seed {path.stem.removeprefix('seed_')}")
        for path in sorted((folder / "eval").glob("seed_*.mp4"))
    ]
    return Section(
        "Evaluation in simulation",
        "Success: the cube is 5 cm up and stays there for one second. Seeds were never seen in training. "
        "Open-loop replay plays a random demonstration's commands blindly on a fresh seed."
        + (f" No videos: {s['no_videos']}" if "no_videos" in s else ""),
        figures=[
            Figure(plots.rates(bars), "Success on fresh seeds"),
            Figure(plots.starts(episodes, "cube_pose"), "Where the cube started, seen from above"),
        ],
        videos=videos,
    )


def _realtime(folder: Path, s: dict[str, Any], action_names: list[str]) -> Section:
    stored = read_run(folder / "realtime")
    run, first = stored.summary, stored.episodes[0].arrays
    late, inference = stored.pooled("lateness_ns") * 1e-6, stored.pooled("inference_ns") * 1e-6
    picture = plots.commands(first["time_ns"], first["commands"], first["references"], action_names)
    clipped: dict[str, int] = {}
    for counts in run["interventions"]:
        for reason, ticks in counts.items():
            clipped[reason] = clipped.get(reason, 0) + ticks
    lateness = [run[f"control_lateness_{name}_ms"] for name in ("p50", "p99", "max")]
    rows = [
        ("commands", f"{run['ticks']} at {run['control_rate_hz']:.2f} Hz, {run['missed_ticks']} missed"),
        ("lateness p50 / p99 / max", " / ".join(f"{value:.2f}" for value in lateness) + " ms"),
        ("observation to use of its chunk, p95", f"{run['delay_p95_ms']:.0f} ms"),
        ("safety filter interventions", ", ".join(f"{k}: {v} ticks" for k, v in clipped.items()) or "none"),
        ("torch, diffusers or zarr in the process", ", ".join(run["heavy_modules_loaded"]) or "none"),
    ]
    return Section(
        "Real time",
        "The bundle runs in a process of its own; the 100 Hz loop plays its chunks through the scheduler "
        "and the safety filter against the simulated arm, by the wall clock. Every episode: "
        "realtime/report.html beside this page.",
        rows,
        [
            Figure(picture, "First episode: commands sent, and the scheduler's reference in thin black"),
            Figure(plots.histogram(late, "lateness of a control tick [ms]", 5.0), "Every control tick"),
            Figure(plots.histogram(inference, "inference [ms]"), "Every chunk"),
        ],
    )


def _training(folder: Path, s: dict[str, Any]) -> Section:
    lines = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    curve = plots.loss_curve([row["step"] for row in lines], [row["loss"] for row in lines])
    rows = [
        ("demonstrations", f"{s['episodes_recorded']} in {s['record_seconds']:.0f} s"),
        ("training", f"{s['train_seconds']:.0f} s, {s['parameters'] / 1e6:.2f} M parameters"),
        ("export and parity", f"{s['export_seconds']:.0f} s"),
    ]
    return Section("Data and training", rows=rows, figures=[Figure(curve, "Training loss")])
