"""How long ``import robopolicy.runtime`` takes in a fresh process, and what it pulls in.

python benchmarks/runtime_import.py [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "diffusers", "zarr", "mujoco")
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    imports, everything, heavy = [], [], ""
    for _ in range(3 if given.quick else 15):
        command = [sys.executable, "-c", PROBE.format(heavy=HEAVY)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, whole, heavy = done.stdout.strip().split(" ", 2)
        imports.append(float(first))
        everything.append(float(whole))
    result = {
        "import_s_median": statistics.median(imports),
        "import_s_max": max(imports),
        "all_names_and_onnxruntime_s_median": statistics.median(everything),
        "heavy_modules": heavy,
    }
    for key, value in result.items():
        print(f"{key:38} {value if isinstance(value, str) else round(value, 4)}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
