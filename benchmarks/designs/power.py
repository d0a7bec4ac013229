"""Syncs per commit, and what a power cut may leave: strace tells what was asked of the disk.

A file's content counts as kept once it was synced after its last write, its name once its folder was synced
after the name came to be; folders alike, up to the store's parent. That is the least that POSIX promises;
most file systems keep more, and all of it once the kernel has written back by itself (about 30 s).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from designs.trouble import WORKER, committed, missing

SYNCS = ("fsync", "fdatasync", "syncfs", "sync", "sync_file_range", "msync")
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "copy_file_range", "sendfile")
MADE = ("openat", "open", "creat", "mkdir", "mkdirat")
MOVED = ("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat")
LINE = re.compile(r"^(\d+\.\d+) (\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)")


class Disk:
    """Which names and contents below a folder are sure to be on the disk."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.named: set[str] = set()
        self.filled: set[str] = set()

    def create(self, path: str) -> None:
        if path not in self.there:
            self.there.add(path)

    def write(self, path: str) -> None:
        self.filled.discard(path)

    def sync(self, path: str) -> None:
        self.filled.add(path)
        self.named |= {other for other in self.there if other.rpartition("/")[0] == path}

    def forget(self, path: str) -> None:
        for held in (self.there, self.named, self.filled):
            held.discard(path)

    def rename(self, old: str, new: str) -> None:
        for held in (self.there, self.named, self.filled):
            moved = {path for path in held if path == old or path.startswith(f"{old}/")}
            held -= moved
            held |= {new + path[len(old) :] for path in moved}
        self.named.discard(new)

    def link(self, old: str, new: str) -> None:
        self.there.add(new)
        if old in self.filled:
            self.filled.add(new)

    def keeps(self, path: Path, top: Path) -> bool:
        """Whether the names from ``top`` down to ``path`` are sure."""
        chain = [path, *path.parents]
        return all(str(part) in self.named for part in chain[: chain.index(top)])


def calls(folder: Path) -> list[tuple[float, str, str]]:
    """(time, call, arguments) of every traced call that succeeded, in order, over all threads."""
    found = []
    for file in folder.glob("trace.*"):
        for line in file.read_text(errors="replace").splitlines():
            match = LINE.match(line)
            if match and not match[4].startswith("-"):
                found.append((float(match[1]), match[2], match[3]))
    return sorted(found)


def replay(trace: list[tuple[float, str, str]], disk: Disk) -> int:
    """Apply the calls to ``disk``; returns how many syncs lay between "ready" and the last commit."""
    counting, syncs = False, 0
    for _, call, arguments in trace:
        described = re.search(r"<(/[^>]*)>", arguments)
        quoted = re.findall(r'"([^"]*)"', arguments)
        if call in SYNCS or "O_SYNC" in arguments or "O_DSYNC" in arguments:
            syncs += counting
            disk.sync(described[1] if described else "")
        elif call in WRITES:
            if quoted and quoted[0].startswith("ready"):
                counting = True
            if described:
                disk.write(described[1])
        elif call.startswith("rename"):
            disk.rename(*quoted[:2])
        elif call.startswith("link"):
            disk.link(*quoted[:2])
        elif call.startswith("unlink"):
            disk.forget(quoted[0])
        elif call.startswith("mkdir") or "O_CREAT" in arguments:
            disk.create(quoted[0])
    return syncs


def cut(design: str, work: Path, count: int) -> dict[str, Any]:
    """Trace a store made with ``count`` commits, drop what was not synced, and open the rest."""
    if shutil.which("strace") is None:
        return {"not counted": "strace is not installed"}
    top = work / "top"
    top.mkdir(parents=True)
    path, traces = top / "store", work / "traces"
    traces.mkdir()
    wanted = ",".join((*SYNCS, *WRITES, *MADE, *MOVED))
    tracer = ["strace", "-ff", "-ttt", "-y", "-s", "200", "-e", f"trace={wanted}"]
    worker = [sys.executable, str(WORKER), design, str(path), "0", str(count), "--create"]
    ran = subprocess.run(
        [*tracer, "-o", str(traces / "trace"), *worker], input=b"go\n", capture_output=True, check=False
    )
    if ran.returncode:
        return {"not counted": ran.stderr.decode(errors="replace").strip().splitlines()[-1]}
    disk = Disk()
    syncs = replay(calls(traces), disk)
    survivor = work / "survivor"
    survivor.mkdir()
    for file in path.rglob("*"):
        target = survivor / file.relative_to(top)
        if not disk.keeps(file, top):
            continue
        if file.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes() if str(file) in disk.filled else b"")
    seeds = committed(ran.stdout.decode())
    result: dict[str, Any] = {"syncs_per_commit": syncs / count, "committed": len(seeds)}
    try:
        absent, damaged = missing(design, survivor / "store", seeds)
        return {**result, "survive": len(seeds) - absent - damaged, "store": "opens"}
    except Exception as error:
        return {**result, "survive": 0, "store": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
