"""LeRobot in its own Python, asked for one timing after another, so that ours and its take turns."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from inference.networks import Network

SCRIPT = Path(__file__).parents[1] / "peers" / "lerobot_denoiser.py"


class Peer:
    """A running ``peers/lerobot_denoiser.py``.

    Raises:
        SystemExit: the peer failed; the message holds the end of what it printed.
    """

    def __init__(self, python: Path, networks: Sequence[Network], scratch: Path) -> None:
        self._log = scratch / "lerobot.log"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "huggingface")}
        jobs = json.dumps([network.peer_job() for network in networks])
        self._process = subprocess.Popen(
            [str(python), str(SCRIPT), jobs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=environment,
        )
        #: Versions, and each network's number of parameters.
        self.facts = self._read()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def ask(self, network: str, rows: int, threads: int, repeat: int) -> list[float]:
        """Milliseconds of ``repeat`` chunks for ``rows`` candidates, the first of several not counted."""
        assert self._process.stdin is not None
        request = {"network": network, "rows": rows, "threads": threads, "repeat": repeat}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        times: list[float] = self._read()["ms"]
        return times

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"{SCRIPT.name} failed:\n{self._log.read_text()[-3000:]}")
