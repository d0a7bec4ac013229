"""Runs LeRobot in its own Python and collects what it measured."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from throughput.sections import Row

SCRIPT = Path(__file__).parents[1] / "peers" / "lerobot_windows.py"


def measure(python: Path, folders: list[Path], scratch: Path) -> list[dict[str, Any]]:
    """One result per workload, way of storing and decoder; the last item holds the peer's versions.

    Raises:
        SystemExit: the peer failed; the message holds the end of what it printed.
    """
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(scratch / "huggingface"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "SVT_LOG": "1",
    }
    command = [str(python), str(SCRIPT), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def rows(results: list[dict[str, Any]], workload: str) -> list[Row]:
    """LeRobot's lines of the table; one that says "not measured" where there is no peer."""
    if not results:
        return [Row(workload, "LeRobot", note="not measured")]
    found = []
    for result in results:
        if result.get("workload") != workload:
            continue
        how = " ".join(result[key] for key in ("storage", "backend") if result[key] not in (None, "none"))
        row = Row(workload, f"LeRobot {how}".strip(), bytes_per_frame=result["bytes_per_frame"])
        row.windows_per_s, row.psnr_db = result.get("windows_per_s"), result.get("psnr_db")
        row.windows_per_cpu_s = result.get("windows_per_cpu_s")
        row.peak_mib, row.note = result["peak_rss_mib"], "cannot decode" if "failed" in result else ""
        found.append(row)
    return found
