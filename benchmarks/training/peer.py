"""LeRobot in its own Python, asked for one turn of training after another."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

SCRIPT = Path(__file__).parents[1] / "peers" / "lerobot_training.py"


class Peer:
    """A running ``peers/lerobot_training.py``.

    Raises:
        SystemExit: the peer failed; the message holds the end of what it printed.
    """

    def __init__(self, python: Path, jobs: Sequence[dict[str, object]], scratch: Path) -> None:
        self._log = scratch / "lerobot.log"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "huggingface")}
        self._process = subprocess.Popen(
            [str(python), str(SCRIPT), json.dumps(jobs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=environment,
        )
        #: Versions, and the video decoders that work there.
        self.facts = self._read()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def ask(self, **turn: Any) -> dict[str, Any]:
        """{"seconds", "parameters"} of one turn."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(turn) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"{SCRIPT.name} failed:\n{self._log.read_text()[-3000:]}")
