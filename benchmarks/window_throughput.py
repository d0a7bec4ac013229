"""Training windows per second: our loader beside LeRobot's, a numpy gather and zarr-python.

python benchmarks/window_throughput.py [--quick] [--json FILE] [--peer-python PATH] [--large GB]

All read the same windows of the same frames (2 observations, 16 actions; batches of 256 without pictures, 64
with) in one process and one thread each; rows that use more threads say so. Where other work shares the
machine, the rate per second of processor time is the one to compare. LeRobot runs under the Python of
its own environment, see ``peers/lerobot_windows.py``; without --peer-python it says "not measured".
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numcodecs.blosc
import torch
from rich.console import Console
from rich.table import Table
from throughput import bounded, frames, peer, readers, sections
from throughput.memory import machine
from throughput.sections import Row

SCALARS = (
    *("tabular_per_s", "tabular_vs_lerobot", "tabular_vs_lerobot_cpu", "tabular_vs_numpy"),
    *("image_per_s", "image_vs_lerobot", "image_vs_lerobot_cpu"),
)
#: Ways in which LeRobot stores pictures: its default, and what decodes fastest elsewhere; PNG takes long.
QUICK_STORES = ["libsvtav1", "h264"]
ALL_STORES = [*QUICK_STORES, "image"]
NOT_MEASURED = "not measured"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer frames, windows and rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--peer-python", type=Path, help="the Python of LeRobot's own environment")
    parser.add_argument("--large", type=float, metavar="GB", help="also sample such a store (from 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the extra rows")
    parser.add_argument("--work", type=Path, help="a new folder to keep what is written in")
    given = parser.parse_args()
    if given.large is not None and given.large < 1:
        parser.error(f"--large must be at least 1 GB, got {given.large}: a tenth of less holds no batches")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    numcodecs.blosc.set_nthreads(1)
    console, facts = Console(), machine()
    console.width = max(console.width, 150)  # the table, in logs too
    console.print(f"{facts}\none thread unless a row says otherwise")
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        rows, sources, results = compare(work, given, console)
        large = bounded.demonstrate(work / "large", given.large, given.quick) if given.large else None
    facts["load_1min_after"] = os.getloadavg()[0]
    figures = summary(rows)
    console.print(as_table(rows))
    for name in SCALARS:
        console.print(f"{name:24} {NOT_MEASURED if figures[name] is None else round(figures[name], 2)}")
    if large:
        console.print("bounded memory:", large)
    if given.json:
        details: dict[str, Any] = {
            "rows": [dataclasses.asdict(row) for row in rows],
            "sources": sources,
            "machine": facts,
        }
        details.update(lerobot=results, large=large, quick=given.quick)
        given.json.write_text(json.dumps({**figures, "details": details}, indent=2) + "\n")


def compare(
    work: Path, given: argparse.Namespace, console: Console
) -> tuple[list[Row], dict[str, str], list[dict[str, Any]]]:
    """Every workload with every reader; also where its frames came from and the peer's own lines."""
    rows: list[Row] = []
    sources = {}
    seconds = 1.0 if given.quick else 10.0
    for make in (frames.tabular, frames.two_cameras, frames.one_camera):
        workload = make(given.quick)
        folder = work / workload.name
        batches = readers.order(workload, 10 if given.quick and not workload.cameras else 1_000_000)
        sources[workload.name] = f"{workload.source}: {len(workload)} frames, {batches.size} windows read"
        console.print(f"{workload.name}: {sources[workload.name]}")
        stores = (QUICK_STORES if given.quick else ALL_STORES) if workload.cameras else ["none"]
        job = {"observation": readers.HORIZONS.observation, "prediction": readers.HORIZONS.prediction}
        frames.save(workload, folder, batches, {**job, "seconds": 60.0, "stores": stores})
        if workload.cameras:
            rows += sections.images(workload, batches, folder, seconds, given.threads)
        else:
            rows += sections.tabular(workload, batches, folder, seconds)
        rows.append(Row(workload.name, "raw frames", bytes_per_frame=workload.raw_bytes))
    folders = [work / name for name in sources]
    results = peer.measure(given.peer_python, folders, work) if given.peer_python else []
    if results:
        console.print(f"LeRobot: {results[-1]}")
    for name in sources:
        rows += peer.rows(results, name)
    return rows, sources, results


def summary(rows: list[Row]) -> dict[str, Any]:
    """The published figures. The image ones are of JPEG, of the workload that compares worst with LeRobot."""
    for workload in {row.workload for row in rows}:
        members = [row for row in rows if row.workload == workload and row.windows_per_s]
        peers = [row for row in members if row.reader.startswith("LeRobot")]
        for row in members if peers else ():
            row.vs_lerobot = row.speed / max(p.speed for p in peers)
            row.vs_lerobot_cpu = row.cpu_speed / max(p.cpu_speed for p in peers)
    own = {row.workload: row for row in rows if row.reader in ("ours", f"ours {sections.HEADLINE}")}
    images = [row for name, row in own.items() if name != "tabular"]
    worst = min(images, key=lambda row: row.vs_lerobot or row.speed)
    sizes: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.bytes_per_frame is not None and "," not in row.reader and "zarr" not in row.reader:
            how = " ".join(row.reader.split()[:2])  # without the decoder
            sizes.setdefault(row.workload, {})[how] = row.bytes_per_frame
    return {
        "tabular_per_s": own["tabular"].windows_per_s,
        "tabular_vs_lerobot": own["tabular"].vs_lerobot,
        "tabular_vs_lerobot_cpu": own["tabular"].vs_lerobot_cpu,
        "tabular_vs_numpy": own["tabular"].vs_numpy,
        "image_per_s": worst.windows_per_s,
        "image_vs_lerobot": worst.vs_lerobot,
        "image_vs_lerobot_cpu": worst.vs_lerobot_cpu,
        "image_worst_workload": worst.workload,
        "bytes_per_frame": sizes,
    }


def as_table(rows: list[Row]) -> Table:
    """Every row; summary has put the ratios to LeRobot's fastest in."""
    table = Table("workload", "reader")
    speeds = ("windows/s", "a CPU second", "of numpy", "x LeRobot", "in CPU time")
    for title in (*speeds, "bytes/frame", "PSNR dB", "peak MiB"):
        table.add_column(title, justify="right")
    previous, order = "", list(dict.fromkeys(row.workload for row in rows))
    for row in sorted(rows, key=lambda row: order.index(row.workload)):
        if row.workload != previous and previous:
            table.add_section()
        shown = row.workload if row.workload != previous else ""
        previous = row.workload
        psnr = "equal" if (row.psnr_db or 0.0) > 100 else _text(row.psnr_db, ".1f")
        speed = row.note or _text(row.windows_per_s, ",.0f")
        ratios = (row.vs_numpy, ".2f"), (row.vs_lerobot, ".1f"), (row.vs_lerobot_cpu, ".1f")
        texts = [_text(*pair) for pair in (*ratios, (row.bytes_per_frame, ",.0f"))]
        busy = _text(row.windows_per_cpu_s, ",.0f")
        table.add_row(shown, row.reader, speed, busy, *texts, psnr, _text(row.peak_mib, ",.0f"))
    return table


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
