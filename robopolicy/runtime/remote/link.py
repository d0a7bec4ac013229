"""One open connection to a policy server, seen from the robot."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from robopolicy import __version__
from robopolicy.core import errors
from robopolicy.core.errors import RobopolicyError, WorkerError
from robopolicy.core.policy import Arrays, Context, Float32
from robopolicy.runtime.remote.greeting import Greeting, Reply, dump, parse
from robopolicy.runtime.remote.layout import PROTOCOL, WireLayout
from robopolicy.runtime.remote.library import quiet_logger, require_websockets
from robopolicy.runtime.remote.messages import (
    MessageError,
    RemoteRequest,
    RemoteResponse,
    decode_response,
    encode_request,
)
from robopolicy.runtime.remote.security import bearer, check_url, readable_on_the_way
from robopolicy.runtime.remote.shown import shown

_LARGEST_ANSWER = 1 << 26  # bytes, known before the greeting says how large they get
_KEEPALIVE_S = 5.0
_CLOSE_S = 0.2
#: Of errors that a server may name; any other text becomes a WorkerError.
_TYPED = ("ConfigError", "NonFiniteValueError", "ShapeError", "SpecError", "WorkerError")

T = TypeVar("T")

logger = logging.getLogger("robopolicy.remote")


class Link:
    """Open from the start until ``close``. A thread of its own keeps it alive between calls.

    Args:
        url: ws://HOST:PORT or wss://HOST:PORT.
        token: proven in the ``Authorization`` header; empty for none.
        timeout_s: for connecting and greeting [s].
    Raises:
        WorkerError: no connection, or no server that can be understood; names the URL and the reason.
        ConfigError: not such a URL.
        MissingDependencyError: websockets is not installed.
    """

    greeting: Greeting
    layout: WireLayout

    def __init__(self, url: str, *, token: str, timeout_s: float) -> None:
        require_websockets()
        self.url = check_url(url)
        if token and readable_on_the_way(url):
            logger.warning("%s has no TLS: token and observations can be read on the way; use wss://", url)
        self._connection: Any = None
        self._request_id = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="policy link", daemon=True)
        self._thread.start()
        try:
            self._wait(self._open(token, timeout_s), timeout_s)
        except BaseException:
            self.close()
            raise

    def ask(self, observation: Arrays, noise: Float32, context: Context, timeout_s: float) -> RemoteResponse:
        """Candidates of at most ``greeting.max_batch`` observations.

        Raises:
            TimeoutError: no answer in time [s]; a late one will be dropped.
            ConnectionError: the connection is lost, or takes no more data; says why.
            MessageError: what came is no answer.
            SpecError, ShapeError, NonFiniteValueError, ConfigError, WorkerError: as the server says.
        """
        self._request_id += 1
        frame = encode_request(self.layout, RemoteRequest(self._request_id, observation, noise, context))
        response = self._wait(self._exchange(frame, timeout_s), timeout_s)
        if response.candidates is None:
            raise _named_error(response.error)
        if response.candidates.shape[:2] != noise.shape[:2]:
            raise MessageError(f"{response.candidates.shape[:2]} candidates instead of {noise.shape[:2]}")
        return response

    @property
    def lost(self) -> str:
        """Why it is no longer open, as far as this side knows by now; empty while it is."""
        code: int | None = self._connection.close_code
        if code is None:
            return ""
        return f"the connection ended ({code}): {shown(self._connection.close_reason or 'no reason given')}"

    def close(self) -> None:
        """May be called twice."""
        if self._loop.is_closed():
            return
        self._wait(self._leave(), _CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """The coroutines keep the time themselves; twice as long means that their thread is stuck."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(2 * timeout_s + 10 * _CLOSE_S)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError(f"{self.url} did not answer within {timeout_s:g} s") from None

    async def _open(self, token: str, timeout_s: float) -> None:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

        try:
            await asyncio.wait_for(self._greet(token), timeout_s)
        except InvalidStatus as error:
            raise WorkerError(f"{self.url} turned us away: {_why(error.response)}") from error
        except MessageError as error:
            raise MessageError(f"{self.url}: {shown(error)}") from error
        except (TimeoutError, asyncio.TimeoutError) as error:  # two classes before Python 3.11
            raise WorkerError(f"{self.url} did not open a connection within {timeout_s:g} s") from error
        except (OSError, EOFError, InvalidHandshake, ConnectionClosed) as error:
            raise WorkerError(f"cannot connect to {self.url}: {shown(error)}") from error

    async def _greet(self, token: str) -> None:
        from websockets.asyncio.client import connect

        self._connection = await connect(
            self.url,
            compression=None,  # it finds nothing in a camera's noise, and costs more than a local network
            additional_headers={"Authorization": bearer(token)} if token else {},
            proxy=None,
            open_timeout=None,
            ping_interval=_KEEPALIVE_S,
            ping_timeout=_KEEPALIVE_S,
            close_timeout=_CLOSE_S,
            max_size=_LARGEST_ANSWER,
            logger=quiet_logger(),
        )
        self.greeting = parse(Greeting, await self._connection.recv())
        self.layout = self.greeting.wire_layout()
        await self._connection.send(dump(Reply(PROTOCOL, __version__, self.layout.fingerprint)))

    async def _leave(self) -> None:
        if self._connection is not None:
            try:
                await asyncio.wait_for(self._connection.close(), 2 * _CLOSE_S)
            except asyncio.TimeoutError:  # the farewell waits behind data that nobody takes
                self._connection.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _exchange(self, frame: bytearray, timeout_s: float) -> RemoteResponse:
        from websockets.exceptions import ConnectionClosed

        self._sending = True
        try:
            return await asyncio.wait_for(self._send_and_wait(frame), timeout_s)
        except ConnectionClosed as error:
            raise ConnectionError(_closing(error)) from error
        except asyncio.TimeoutError as error:
            if self._sending:  # more would only pile up
                raise ConnectionError(f"it took no data for {timeout_s:g} s") from error
            raise TimeoutError("no answer") from error

    async def _send_and_wait(self, frame: bytearray) -> RemoteResponse:
        """The answer to this request; those to earlier ones that come late are dropped."""
        await self._connection.send(frame)
        self._sending = False
        while True:
            answer = await self._connection.recv()
            if isinstance(answer, str):
                raise MessageError("a text came instead of an answer")
            response = decode_response(self.layout, answer)
            if response.request_id > self._request_id:
                raise MessageError(f"an answer to request {response.request_id}, which was never made")
            if response.request_id == self._request_id:
                return response


def _named_error(text: str) -> RobopolicyError:
    name, colon, rest = text.partition(": ")
    if colon and name in _TYPED:
        cls: type[RobopolicyError] = getattr(errors, name)
        return cls(shown(rest))
    return WorkerError(shown(text))


def _closing(error: Any) -> str:
    """What the server said when it closed, if it said anything."""
    if error.rcvd is not None:
        reason = shown(error.rcvd.reason or "no reason given")
        return f"it closed the connection ({error.rcvd.code}): {reason}"
    cause = f": {error.__cause__}" if error.__cause__ else ""
    return f"the connection broke{cause}"


def _why(response: Any) -> str:
    text = bytes(response.body or b"")[:200].decode("ascii", "replace").strip()
    return f"{shown(text or response.reason_phrase)} (HTTP {response.status_code})"
