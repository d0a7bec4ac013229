#!/usr/bin/env python3
"""Set up everything and run the demo or the tests: ``python3 make.py demo`` or ``python3 make.py test``.

Needs Python 3.11 or newer and nothing else; creates .venv beside this file, installs pinned packages
and, where they are missing, the system libraries that draw pictures without a display.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "robopolicy-installed"
PINNED = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
OLDEST = (3, 11)
# cv2 needs libGL and glib even without a window; EGL and Mesa draw MuJoCo's pictures in software.
SYSTEM_PACKAGES = ["libegl1", "libgl1", "libgl1-mesa-dri", "libglib2.0-0"]
PROBES = {
    "opencv": "import cv2",
    "off-screen rendering": "from robopolicy_sim.rendering import create_context; create_context(8, 8)",
}
LINT = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
    ["lint-imports"],
]


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in ("demo", "test", "install"):
        print(__doc__)
        return 2
    if sys.version_info < OLDEST:
        return fail(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version.split()[0]}")
    status = install()
    if status or sys.argv[1] == "install":
        return status
    extra = sys.argv[2:]
    if sys.argv[1] == "demo":
        return run([str(PYTHON), "-m", "robopolicy.cli.main", "demo", *extra])
    for command in LINT:
        print("\n$", *command, flush=True)
        if run([str(PYTHON.parent / command[0]), *command[1:]]):
            return fail(f"{command[0]} found problems")
    print("\n$ pytest", *extra, flush=True)
    return run([str(PYTHON), "-m", "pytest", *extra])


def install() -> int:
    """Virtual environment, packages, system libraries; quick when all is there."""
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in PINNED)).hexdigest()
    if not (PYTHON.is_file() and STAMP.is_file() and STAMP.read_text() == wanted):
        if not PYTHON.is_file() and run([sys.executable, "-m", "venv", str(VENV)]):
            shutil.rmtree(VENV, ignore_errors=True)
            return fail("cannot create .venv; on Debian: sudo apt-get install python3-venv")
        if sys.platform == "linux" and not shutil.which("nvidia-smi"):
            print(
                "No NVIDIA GPU seen. If pip now downloads CUDA packages (several GB), you can stop it and\n"
                "set PIP_EXTRA_INDEX_URL to PyTorch's CPU package index (see PyTorch's installation page).",
                flush=True,
            )
        print("Installing packages into .venv ...", flush=True)
        packages = ["-q", "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[dev]"]
        if run([str(PYTHON), "-m", "pip", "install", *packages]):
            return fail("pip could not install the packages; its message is above")
        STAMP.write_text(wanted)
    if sys.platform == "linux":
        install_system_libraries()
    return 0


def install_system_libraries() -> None:
    """Ask apt for what is missing, when we may; otherwise say what to install and go on."""
    missing = [name for name, code in PROBES.items() if not probe(code)]
    if not missing:
        return
    print(f"Missing for {', '.join(missing)}: installing {' '.join(SYSTEM_PACKAGES)} ...", flush=True)
    sudo = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") and (not sudo or shutil.which("sudo")):
        run([*sudo, "apt-get", "update", "-q"])
        run([*sudo, "apt-get", "install", "-y", "-q", "--no-install-recommends", *SYSTEM_PACKAGES])
    missing = [name for name, code in PROBES.items() if not probe(code)]
    if missing:
        print(
            f"warning: {', '.join(missing)} still not working. Cameras and videos are off until you run\n"
            f"    sudo apt-get install {' '.join(SYSTEM_PACKAGES)}\n"
            "or your distribution's equivalent. States, training and the real-time run work without.",
            file=sys.stderr,
        )


def probe(code: str) -> bool:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run([str(PYTHON), "-c", code], cwd=ROOT, check=False, **quiet).returncode == 0


def run(command: list[str]) -> int:
    try:
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:
        return 130


def fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
