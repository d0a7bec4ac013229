"""How long ``import robopolicy.runtime`` takes in a fresh process, what it pulls in, and, with --install, how
much disk the base package takes in a fresh environment.

python benchmarks/runtime_import.py [--json FILE] [--quick] [--install]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "zarr", "mujoco", "scipy", "matplotlib", "jinja2", "websockets")
PARTS = ("pyproject.toml", "README.md", "LICENSE", "robopolicy", "sim")
ASKED = {"import_s_median": 0.25, "install_mb": 220.0}
PROBE = """
import sys, time
started = time.perf_counter()
import robopolicy.runtime
first = time.perf_counter() - started
for name in robopolicy.runtime.__all__:
    getattr(robopolicy.runtime, name)
import onnxruntime
print(first, time.perf_counter() - started, [m for m in {heavy} if m in sys.modules])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--install", action="store_true", help="into a new environment, with pip")
    given = parser.parse_args()
    repeats = 3 if given.quick else 15
    result = imports(sys.executable, repeats)
    if given.install:
        with tempfile.TemporaryDirectory() as scratch:
            result = {**result, **install(Path(scratch) / "venv", repeats)}
    table = Table("figure", "measured", "asked for")
    for key, value in result.items():
        limit = f"<= {ASKED[key]:g}" if key in ASKED else ""
        table.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value), limit)
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def imports(python: str, repeats: int) -> dict[str, Any]:
    """Seconds in fresh processes of one interpreter, after one that fills the disk's cache."""
    first, everything, heavy = [], [], ""
    for repeat in range(repeats + 1):
        command = [python, "-c", PROBE.format(heavy=HEAVY)]
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=True
        )  # not the checkout
        seconds, whole, heavy = done.stdout.strip().split(" ", 2)
        if repeat:
            first.append(float(seconds))
            everything.append(float(whole))
    return {
        "import_s_median": statistics.median(first),
        "import_s_max": max(first),
        "all_names_and_onnxruntime_s_median": statistics.median(everything),
        "heavy_modules": heavy,
    }


def install(environment: Path, repeats: int) -> dict[str, Any]:
    """Size of the base package and all it needs, pip left out, and the import there."""
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    empty = megabytes(environment)
    source = environment.parent / "source"  # building leaves its traces
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(source)], check=True)
    installed = megabytes(environment) - empty
    there = imports(python, repeats)
    packages = subprocess.run(
        [python, "-m", "pip", "list", "--format", "freeze"], capture_output=True, text=True, check=True
    )
    return {
        "install_mb": installed,
        "install_import_s_median": there["import_s_median"],
        "install_heavy_modules": there["heavy_modules"],
        "install_packages": " ".join(packages.stdout.split()),
    }


def megabytes(folder: Path) -> float:
    """What its files take on the disk, as ``du`` counts [MB = 1e6 bytes]."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_symlink()) * 1e-6


if __name__ == "__main__":
    main()
