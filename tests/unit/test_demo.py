"""The main job in small: every step runs, every key is there. The figures are the real demo's to show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robopolicy.cli.main import main

KEYS = {
    "episodes_recorded", "train_seconds", "success_rate", "n_episodes", "success_interval", "parity_max_abs",
    "control_rate_hz", "control_lateness_p99_ms", "inference_p50_ms", "inference_p99_ms",
    "realtime_successes", "realtime_episodes", "wall_seconds",
}  # fmt: skip
SMALL = [
    "--demonstrations",
    "4",
    "--steps",
    "5",
    "--episodes",
    "2",
    "--videos",
    "1",
    "--realtime-episodes",
    "1",
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_from_recording_to_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    assert main(["demo", "--output", str(output), *SMALL]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary) >= KEYS
    assert summary["episodes_recorded"] == 4 and summary["n_episodes"] == 2
    assert summary["parity_max_abs"] <= 1e-4
    realtime = json.loads((output / "realtime" / "realtime.json").read_text())
    assert realtime["heavy_modules_loaded"] == []
    page = (output / "report.html").read_text()
    assert page.count("<svg ") >= 5
    assert "http://" not in page and "https://" not in page  # self-contained
    # A second run must not overwrite it, and --replace must take only a demo's folder.
    assert main(["demo", "--output", str(output), *SMALL]) == 2
    assert "already holds results" in capfd.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"mine": 1}')
    assert main(["demo", "--replace", "--output", str(tmp_path / "other"), *SMALL]) == 2
    assert (tmp_path / "other" / "config.json").is_file()
