"""The page of a real-time run: says what happened, stands alone, and refuses damaged files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.core.errors import RobopolicyError, SpecError
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.run_files import episode_file, read_run
from robopolicy.evaluation.run_lines import lanes, series, spans
from robopolicy.evaluation.run_report import write_run_report

REASONS = ["position", "velocity", "acceleration", "jerk", "latched"]
NAMES = ["joint1", "joint<2>", "grip"]


def arrays_of(ticks: int, seed: int = 0) -> dict[str, Any]:
    """A slow swing of every joint at 100 Hz; the filter changes something in a few stretches."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(ticks) * 0.01
    references = np.sin(seconds[:, None] * [1.0, 1.7, 0.5] + [0.0, 1.0, 2.0]) * [1.2, 0.8, 0.04]
    interventions = np.zeros(ticks, np.uint32)
    interventions[ticks // 4 : ticks // 4 + 20] |= 0b1010
    interventions[-30:] |= 0b10000
    commands = references + np.where(interventions[:, None] != 0, 0.05, 0.0)
    chunks = max(ticks // 50, 1)
    return {
        "time_ns": 10**12 + np.arange(ticks, dtype=np.int64) * 10_000_000,
        "lateness_ns": rng.gamma(2.0, 60_000, ticks).astype(np.int64),
        "busy_ns": rng.gamma(4.0, 100_000, ticks).astype(np.int64),
        "references": references,
        "commands": commands,
        "interventions": interventions,
        "joins_ns": 10**12 + np.arange(chunks, dtype=np.int64) * 500_000_000,
        "inference_ns": rng.gamma(40.0, 600_000, chunks).astype(np.int64),
        "delay_ns": rng.gamma(40.0, 900_000, chunks).astype(np.int64),
        "observation_age_ns": rng.gamma(4.0, 900_000, chunks).astype(np.int64),
    }


def write_run(folder: Path, episodes: int = 3, ticks: int = 700, fault: str = "") -> Path:
    """A folder as ``robopolicy run`` leaves it; the last episode ends in ``fault``."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = []
    for k in range(episodes):
        np.savez(folder / episode_file(k), **arrays_of(ticks, k))
        last = bool(fault) and k == episodes - 1
        facts.append(
            {
                "file": episode_file(k),
                "seed": 7 + k,
                "success": not last,
                "fault": last,
                "reason": fault if last else "success",
                "ticks": ticks,
                "missed_ticks": k,
                "interventions": {"velocity": 20, "jerk": 20},
                "scheduler": {"accepted": 14, "discarded": 0},
                "failed_inferences": ["NonFiniteValueError: 3 values"] if last else [],
                "stale_responses": 0,
            }
        )
    summary = {
        "task": "lift",
        "robot": "fr3",
        "source": "runs/<bundle>",
        "bundle_digest": "ab" * 32,
        "control_rate_asked_hz": 100.0,
        "policy_rate_hz": 10.0,
        "action_names": NAMES,
        "action_units": ["rad", "rad", "m"],
        "intervention_reasons": REASONS,
        "scheduler_config": {"mode": "replace", "limits": {"speed": 1.5}},
        "realtime_episodes": episodes,
        "episodes": facts,
    }
    (folder / "realtime.json").write_text(json.dumps(summary))
    (folder / "config.json").write_text(json.dumps({"bundle": "runs/b", "episodes": episodes, "digest": ""}))
    provenance = {"command": ["robopolicy", "run", "--bundle", "a b"], "versions": {"numpy": "2"}}
    (folder / "provenance.json").write_text(json.dumps({**provenance, "git_revision": "abc"}))
    return folder


def test_page_says_what_happened_and_stands_alone(tmp_path: Path) -> None:
    path = write_run_report(write_run(tmp_path / "run", fault="worker <hangs>: no heartbeat"))
    page = path.read_text()
    assert path == tmp_path / "run" / "report.html"
    assert "Episode 2 ended in a fault: worker &lt;hangs&gt;: no heartbeat" in page
    for text in (
        "2/3",
        "Real-time run: lift",
        "ab" * 32,
        "scheduler",
        "limits.speed",
        "robopolicy run --bundle",
    ):
        assert text in page
    assert "1 × NonFiniteValueError: 3 values" in page
    assert "<hangs>" not in page and "joint<2>" not in page and "<bundle>" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "http" not in re.sub(r"http-equiv", "", page)
    assert page.count('<svg class="lines"') == 9 and page.count('<svg class="lanes"') == 3
    rows = re.findall(r'<th scope="row">(\w+)</th><td class="n">(\d+)</td><td class="n">([\d.]+%)</td>', page)
    assert ("jerk", "60", "2.86%") in rows and ("latched", "90", "4.29%") in rows and len(rows) == 3


def test_only_so_many_episodes_are_drawn_and_faults_first(tmp_path: Path) -> None:
    page = write_run_report(write_run(tmp_path / "run", 13, ticks=60, fault="x")).read_text()
    assert "3 more episodes are not drawn" in page
    assert 'id="episode-12"' in page and 'id="episode-9"' not in page
    assert 'href="#episode-12"' in page and 'href="#episode-9"' not in page


@pytest.mark.parametrize("ticks", [0, 1, 2])
def test_an_episode_that_hardly_began_is_no_trouble(tmp_path: Path, ticks: int) -> None:
    folder = write_run(tmp_path / "run", 2)
    short = {name: value[:ticks] for name, value in arrays_of(60).items()}
    np.savez(folder / episode_file(1), **short)
    assert write_run_report(folder).read_text().count("<h3 id=") == (2 if ticks == 2 else 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "realtime.json").unlink(), "cannot read .*realtime.json"),
        (lambda f: (f / "realtime.json").write_text("[]"), "holds no mapping"),
        (lambda f: (f / "realtime.json").write_text("{}"), "lacks task, source"),
        (lambda f: (f / episode_file(1)).unlink(), "cannot read .*episode_001.npz"),
        (lambda f: (f / episode_file(1)).write_bytes(b"PK nothing"), "cannot read .*episode_001.npz"),
        (lambda f: np.savez(f / episode_file(1), time_ns=[1]), "episode_001.npz lacks busy_ns"),
        (lambda f: np.savez(f / episode_file(1), **{**arrays_of(9), "commands": [1.0]}), "commands must be"),
        (lambda f: np.savez(f / episode_file(1), **{**arrays_of(9), "busy_ns": [{}]}), "cannot read"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: Any, message: str) -> None:
    folder = write_run(tmp_path / "run")
    damage(folder)
    with pytest.raises(RobopolicyError, match=message):
        read_run(folder)


def test_smoothness_is_shown_beside_the_demonstrations(tmp_path: Path) -> None:
    specs = Specs(
        {"state": ArraySpec((1,))},
        ActionSpec(
            (ActionPart("gripper_opening", ("grip",)), ActionPart("joint_position", tuple(NAMES[:2])))
        ),
        policy_rate=10.0,
    )
    store = EpisodeStore.create(tmp_path / "demonstrations.zarr", specs)
    arrays = arrays_of(700)
    actions = arrays["references"][::10][:, [2, 0, 1]]
    times = np.arange(70, dtype=np.int64) * 100_000_000
    states = Signal(np.zeros((70, 1), np.float32), times)
    store.append(Episode({"state": states}, Signal(actions, times)))
    folder = write_run(tmp_path / "run", 1)
    np.savez(folder / episode_file(0), **{**arrays, "commands": arrays["references"]})
    page = write_run_report(folder, store=store.path).read_text()
    row = re.search(r"jerk, root mean square \[rad/s³\]</th>(.*?)</tr>", page)
    assert row is not None
    sent, asked, sent_slowly, demonstrated = re.findall(r'<td class="n">([^<]+)</td>', row.group(1))
    assert sent == asked and sent_slowly == demonstrated != sent  # the same motion, in another order
    with pytest.raises(SpecError, match="not comparable"):
        summary = json.loads((folder / "realtime.json").read_text())
        (folder / "realtime.json").write_text(json.dumps({**summary, "action_names": ["a", "b", "c"]}))
        write_run_report(folder, store=store.path)


def test_the_report_command_knows_a_run_from_an_evaluation(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 1, ticks=60)
    assert main(["report", str(folder), "--output", str(tmp_path / "page.html")]) == 0
    assert "Real-time run" in (tmp_path / "page.html").read_text()
    assert main(["report", str(folder), str(tmp_path)]) == 2


def test_spans_last_until_the_next_tick() -> None:
    seconds = np.arange(6) * 0.1
    active = np.array([True, False, True, True, False, True])
    found = [(round(s.start, 6), round(s.stop, 6)) for s in spans(seconds, active, 0.1)]
    assert found == [(0.0, 0.1), (0.2, 0.4), (0.5, 0.6)]
    assert spans(seconds, ~active & active, 0.1) == []


def test_lines_keep_what_the_eye_sees() -> None:
    seconds = np.linspace(0, 10, 1001)
    command = np.where(seconds < 5, 0.0, 1.0)
    command[300] = 0.5  # one tick
    drawing = series(seconds, command, np.zeros(1001), [], [1.0, 2.0])
    first = re.search(r'class="command" points="([^"]+)"', drawing)
    assert first is not None
    points = np.array([pair.split(",") for pair in first.group(1).split()], dtype=float)
    assert len(points) < 12  # of 1001
    assert {round(p) for p in points[:, 1]} >= {11, 58, 105}  # top, the one tick, bottom
    flat = series(seconds, np.zeros(1001), np.zeros(1001), [], [])
    assert "nan" not in flat and "inf" not in flat
    assert lanes([("a<b", [])], 0.0).count("a&lt;b") == 1
