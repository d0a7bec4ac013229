"""A Rerun viewer that only this machine can reach.

``rerun.spawn`` and ``rerun.serve_grpc`` have no say over the address and listen on every interface, without a
password; the viewer's own ``--bind`` does. Rerun collects usage data unless ``rerun analytics disable`` was
run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from robopolicy.core.errors import ConfigError

LOOPBACK = "127.0.0.1"
START_TIMEOUT = 30.0  # [s]
#: Tells the viewer that it belongs to another program, as ``rerun.spawn`` does.
ENVIRONMENT = {"RERUN_APP_ONLY": "true"}


@dataclass(frozen=True)
class Viewer:
    """A running viewer; it stays open when this program ends."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"rerun+http://{LOOPBACK}:{self.port}/proxy"


def start_viewer(*options: str) -> Viewer:
    """Start the viewer and wait until it listens.

    Args:
        options: further command line options, for example "--headless".
    Raises:
        ConfigError: it did not start; without a display there is nothing to show it on.
    """
    port = _free_port()
    command = [*command_line(), "--bind", LOOPBACK, "--port", str(port), "--hide-welcome-screen", *options]
    process = subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + START_TIMEOUT
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise ConfigError(
                f"the Rerun viewer did not start (exit code {process.returncode}); it needs a display. "
                "Without one, write a .rrd file and open it elsewhere"
            )
        time.sleep(0.05)
    return Viewer(process, port)


def command_line() -> list[str]:
    """The ``rerun`` program of this very environment, not one found in PATH."""
    return [sys.executable, "-m", "rerun_cli"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0
