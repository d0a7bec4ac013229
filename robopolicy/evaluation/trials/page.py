"""A page on this machine: the start over the live picture, and the same keys as the terminal."""

from __future__ import annotations

import hmac
import json
import queue
import secrets
import threading
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from numpy.typing import NDArray

from robopolicy.core.errors import RobopolicyError
from robopolicy.evaluation.report import render
from robopolicy.evaluation.trials.overlay import Picture, jpeg, overlay, read_photograph
from robopolicy.evaluation.trials.session import RUNNING, View

HOST = "127.0.0.1"
MOST_TEXT = 500  # bytes of one posted note


class Camera(Protocol):
    """Anything that sees the scene."""

    def read(self) -> NDArray[Any] | None:
        """The newest (height, width, 3) uint8 picture, red first; None when there is none."""
        ...


class TrialPage:
    """Serves on the loopback device only, under a path that holds a token; use as a context manager.

    While a policy runs the camera is left alone: it belongs to the policy.

    Args:
        camera: of the live picture; None shows the photograph alone.
        keys: where pressed keys go, one by one.
        port: 0 takes a free one.
        token: unguessable part of the address.
    """

    def __init__(
        self,
        camera: Camera | None,
        keys: queue.SimpleQueue[str],
        *,
        port: int = 0,
        token: str = "",
    ) -> None:
        self._camera, self._keys = camera, keys
        self._token = token or secrets.token_urlsafe(16)
        self._view: View | None = None
        self._camera_lock = threading.Lock()
        page = self

        class Handler(_Handler):
            owner = page

        self._server = ThreadingHTTPServer((HOST, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="trial page", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What to open, token included."""
        return f"http://{HOST}:{self.port}/{self._token}/"

    def __enter__(self) -> TrialPage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def show(self, view: View) -> None:
        """Show this from now on; waits for a picture that is being taken."""
        with self._camera_lock:
            self._view = view

    def belongs(self, path: str, host: str) -> str | None:
        """The path behind the token; None for strangers, such as another site's script by DNS rebinding."""
        token, _, rest = path.removeprefix("/").partition("/")
        known = host in (f"{HOST}:{self.port}", f"localhost:{self.port}")
        return rest if known and hmac.compare_digest(token.encode(), self._token.encode()) else None

    def state(self) -> dict[str, Any]:
        """What the page's script shows."""
        view = self._view
        if view is None:
            return {"phase": "", "title": "One moment", "start": "", "lines": [], "keys": [], "message": ""}
        lines = [f"{thing}: {_place(place)}" for thing, place in view.start.positions.items()]
        return {
            "phase": view.phase,
            "title": f"Trial {view.number} of {view.total}",
            "start": view.start.name,
            "lines": lines,
            "keys": [list(key) for key in view.keys],
            "message": view.message,
        }

    def picture(self, blend: float) -> bytes | None:
        """A JPEG file: live picture and wanted start; None while a policy runs or nothing can be seen."""
        with self._camera_lock:
            view = self._view
            if view is None or view.phase == RUNNING:
                return None
            live = self._camera.read() if self._camera is not None else None
        wanted = _photograph(view.start.photograph) if view.start.photograph is not None else None
        if live is None:
            return jpeg(wanted) if wanted is not None else None
        return jpeg(overlay(live, wanted, blend=blend))

    def press(self, text: str) -> None:
        """Keys as if they had been typed."""
        for key in text[:MOST_TEXT]:
            self._keys.put(key)


def _place(place: tuple[float, ...]) -> str:
    return ", ".join(f"{axis} {value:.3f} m" for axis, value in zip("xyz", place))


@lru_cache(maxsize=4)
def _photograph(path: Path) -> Picture:
    return read_photograph(path)


class _Handler(BaseHTTPRequestHandler):
    owner: TrialPage
    server_version = "robopolicy"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(
            {
                "": lambda query: ("text/html; charset=utf-8", render("trial.html").encode()),
                "state": lambda query: ("application/json", json.dumps(self.owner.state()).encode()),
                "view.jpg": self._view,
            }
        )

    def do_POST(self) -> None:
        self._answer({"keys": self._press})

    def _answer(self, known: dict[str, Callable[[dict[str, list[str]]], tuple[str, bytes]]]) -> None:
        address = urlsplit(self.path)
        name = self.owner.belongs(address.path, self.headers.get("Host", ""))
        if name is None or name not in known:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            kind, body = known[name](parse_qs(address.query))
        except (RobopolicyError, OSError, ValueError) as error:  # shown instead of a picture; trials go on
            kind, body = "text/plain; charset=utf-8", f"{type(error).__name__}: {error}".encode()
            self.send_response(HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            self.send_response(HTTPStatus.OK if body else HTTPStatus.NO_CONTENT)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def _view(self, query: dict[str, list[str]]) -> tuple[str, bytes]:
        blend = min(max(float(query.get("blend", ["0.5"])[0]), 0.0), 1.0)
        return "image/jpeg", self.owner.picture(blend) or b""

    def _press(self, query: dict[str, list[str]]) -> tuple[str, bytes]:
        length = min(int(self.headers.get("Content-Length", 0)), 4 * MOST_TEXT)
        self.owner.press(self.rfile.read(length).decode(errors="replace"))
        return "text/plain", b""

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: the terminal is where the person reads what to do."""
