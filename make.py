#!/usr/bin/env python3
"""Set up everything and run the demo or the tests: ``python3 make.py demo`` or ``python3 make.py test``.

Needs Python 3.11 or newer and nothing else; creates .venv beside this file, installs pinned packages
and, where they are missing, the system libraries that draw pictures without a display.
``python3 make.py install`` does only that. ``python3 make.py install-peers`` makes .venv-peers, for
Meta-World, robosuite and gym-aloha, which need an older MuJoCo (see docs/other_environments.md).
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
OLDEST = (3, 11)
PEERS = ROOT / ".venv-peers"
PEERS_NEWEST = (3, 13)  # of Meta-World and of MuJoCo 3.3's wheels
PEERS_PACKAGES = ["metaworld", "gym-aloha", "numba", "termcolor", "packaging"]
PEERS_TESTS = ["pytest", "pytest-timeout", "hypothesis"]
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
# Files of tests in processes of one thread each; several threads in each would fight for the cores.
PARALLEL = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in ("demo", "test", "install", "install-peers"):
        print(__doc__)
        return 2
    if sys.version_info < OLDEST:
        return fail(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version.split()[0]}")
    if sys.argv[1] == "install-peers":
        return install_peers()
    status = install()
    if status or sys.argv[1] == "install":
        return status
    extra = sys.argv[2:]
    if sys.argv[1] == "demo":
        return run([str(interpreter(VENV)), "-m", "robopolicy.cli.main", "demo", *extra])
    for command in LINT:
        print("\n$", *command, flush=True)
        if run([str(interpreter(VENV).parent / command[0]), *command[1:]]):
            return fail(f"{command[0]} found problems")
    options = extra or PARALLEL
    print("\n$ pytest", *options, flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return run([str(interpreter(VENV)), "-m", "pytest", *options])


def install() -> int:
    """Virtual environment, packages, system libraries; quick when all is there."""
    status = install_packages(VENV, ROOT / "constraints.txt", [["-e", f"{ROOT}[dev]"]])
    if not status and sys.platform == "linux":
        install_system_libraries()
    return status


def install_peers() -> int:
    """The other simulators' environment: they break on MuJoCo 4. Evaluating bundles there needs no torch."""
    if sys.version_info[:2] > PEERS_NEWEST:
        newest, this = ".".join(map(str, PEERS_NEWEST)), sys.version.split()[0]
        return fail(
            f"Meta-World needs Python {newest} or older, this is {this}: python{newest} make.py install-peers"
        )
    steps = [
        ["-e", f"{ROOT}[eval,data,opencv,viz]", *PEERS_PACKAGES, *PEERS_TESTS],
        # What it asks for besides are keyboard drivers, which need a compiler, and an old mink, which would
        # hold numpy below 2; its tasks use neither.
        ["--no-deps", "robosuite"],
    ]
    status = install_packages(PEERS, ROOT / "constraints-peers.txt", steps)
    if not status:
        print(f"Ready: {interpreter(PEERS).parent / 'robopolicy'} eval --env metaworld/push-v3 ...")
    return status


def install_packages(venv: Path, constraints: Path, steps: list[list[str]]) -> int:
    """One pip call per step, unless the same ones have succeeded before."""
    python, stamp = interpreter(venv), venv / "robopolicy-installed"
    pinned = [ROOT / "pyproject.toml", constraints]
    wanted = hashlib.sha256(b"".join(p.read_bytes() for p in pinned) + repr(steps).encode()).hexdigest()
    if python.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return 0
    if not python.is_file() and run([sys.executable, "-m", "venv", str(venv)]):
        shutil.rmtree(venv, ignore_errors=True)
        return fail(f"cannot create {venv.name}; on Debian: sudo apt-get install python3-venv")
    if venv == VENV and sys.platform == "linux" and not shutil.which("nvidia-smi"):
        print(
            "No NVIDIA GPU seen. If pip now downloads CUDA packages (several GB), you can stop it and\n"
            "set PIP_EXTRA_INDEX_URL to PyTorch's CPU package index (see PyTorch's installation page).",
            flush=True,
        )
    print(f"Installing packages into {venv.name} ...", flush=True)
    for step in steps:
        if run([str(python), "-m", "pip", "install", "-q", "-c", str(constraints), *step]):
            return fail("pip could not install the packages; its message is above")
    stamp.write_text(wanted)
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
    return (
        subprocess.run([str(interpreter(VENV)), "-c", code], cwd=ROOT, check=False, **quiet).returncode == 0
    )


def interpreter(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


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
