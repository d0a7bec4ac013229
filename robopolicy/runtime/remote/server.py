"""Serve a policy over websockets: one inference at a time, clients in turn, the newest request of each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robopolicy import __version__
from robopolicy.core.errors import ConfigError, RobopolicyError
from robopolicy.core.policy import Policy
from robopolicy.runtime.remote.greeting import MAX_GREETING_BYTES, Greeting, Reply, dump, parse
from robopolicy.runtime.remote.layout import PROTOCOL, WireLayout
from robopolicy.runtime.remote.library import quiet_logger, require_websockets
from robopolicy.runtime.remote.messages import (
    MessageError,
    RemoteRequest,
    RemoteResponse,
    check_request,
    decode_request,
    encode_response,
)
from robopolicy.runtime.remote.newest import Newest
from robopolicy.runtime.remote.security import authorised, check_exposure, is_loopback, server_tls
from robopolicy.runtime.remote.shown import shown

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

REFUSED = 4400  # close code of a connection whose messages break the protocol; 4000..4999 are ours to define
_REASON_BYTES = 120  # a close reason has at most 123

logger = logging.getLogger("robopolicy.remote")


@dataclass(frozen=True)
class ServerConfig:
    """Where and for whom.

    Args:
        host, port: to listen on; port 0 takes a free one.
        max_batch, max_candidates: most of one request.
        max_clients: connections at once; more are refused.
        cert, key: PEM files of the certificate chain and its key, for wss.
        origins: of web pages that may connect, "https://host"; others are refused, programs send none.
        opening_s: longest time for a client to open a connection [s].
        keepalive_s: a connection that does not answer pings for so long is closed [s].
    """

    host: str = "127.0.0.1"
    port: int = 0
    max_batch: int = 16
    max_candidates: int = 16
    max_clients: int = 4
    cert: Path | None = None
    key: Path | None = None
    origins: tuple[str, ...] = ()
    opening_s: float = 5.0
    keepalive_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536 or self.max_clients < 1 or min(self.opening_s, self.keepalive_s) <= 0:
            raise ConfigError(
                f"port {self.port} must be 0..65535, max_clients {self.max_clients} >= 1, opening_s and "
                "keepalive_s positive [s]"
            )


class PolicyServer:
    """Answers requests of several clients.

    Args:
        policy: called in one thread of its own, one call at a time.
        digest: SHA-256 (hex) by which a client knows that it is the policy it expects.
        provider: what executes it, to be shown.
        token: what clients must prove; empty for none, which only loopback allows.
    Raises:
        ConfigError: no token for an address that others reach, a bad certificate, or messages too large.
        MissingDependencyError: websockets is not installed.
    """

    def __init__(
        self,
        policy: Policy,
        config: ServerConfig | None = None,
        *,
        digest: str,
        provider: str = "",
        token: str = "",
    ) -> None:
        require_websockets()
        self._config = config or ServerConfig()
        check_exposure(self._config.host, token)
        self._tls = server_tls(self._config.cert, self._config.key)
        self._policy, self._token = policy, token
        self._layout = WireLayout(policy.policy_specs, self._config.max_batch, self._config.max_candidates)
        self._greeting = Greeting(
            protocol=PROTOCOL,
            version=__version__,
            policy_specs=policy.policy_specs,
            digest=digest,
            layout=self._layout.fingerprint,
            max_batch=self._config.max_batch,
            max_candidates=self._config.max_candidates,
            provider=provider,
        )
        self._clients = 0

    async def run(self, stop: asyncio.Event, ready: Callable[[str], None] | None = None) -> None:
        """Serve until ``stop`` is set; ``ready`` gets the URL once connections are taken.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        from websockets.asyncio.server import serve

        config = self._config
        self._turn = asyncio.Lock()  # fair: first come, first served
        self._executor = ThreadPoolExecutor(1, "policy")
        quiet = quiet_logger()
        opening = serve(
            self._session,
            config.host,
            config.port,
            origins=[None, *config.origins],  # type: ignore[list-item]
            compression=None,
            process_request=self._admit,
            server_header=None,
            open_timeout=config.opening_s,
            ping_interval=config.keepalive_s / 2,
            ping_timeout=config.keepalive_s / 2,
            close_timeout=1.0,
            max_size=max(self._layout.max_request_bytes, MAX_GREETING_BYTES),
            max_queue=2,
            logger=quiet,
            ssl=self._tls,
        )
        try:
            server = await opening
        except OSError as error:
            raise ConfigError(f"cannot listen on {config.host}:{config.port}: {error}") from error
        try:
            port = next(iter(server.sockets)).getsockname()[1]
            host = f"[{config.host}]" if ":" in config.host else config.host
            url = f"{'wss' if self._tls else 'ws'}://{host}:{port}"
            logger.info("serving on %s, %s", url, "token required" if self._token else "no token")
            if self._tls is None and not is_loopback(config.host):
                logger.warning("no TLS: token and observations can be read on the way; see --cert and --key")
            if ready is not None:
                ready(url)
            await stop.wait()
        finally:
            server.close()
            await server.wait_closed()
            self._executor.shutdown()
            logger.info("closed")

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        """None lets a connection in; the library refuses foreign origins after this."""
        peer = _name(connection)
        if not authorised(request.headers.get_all("Authorization"), self._token):
            response = self._turn_away(connection, HTTPStatus.UNAUTHORIZED, peer, "wrong or missing token")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if self._clients >= self._config.max_clients:
            text = f"{self._clients} clients are connected, no more are taken"
            return self._turn_away(connection, HTTPStatus.SERVICE_UNAVAILABLE, peer, text)
        return None

    def _turn_away(self, connection: ServerConnection, status: HTTPStatus, peer: str, why: str) -> Any:
        logger.warning("%s turned away: %s", peer, why)
        return connection.respond(status, why + "\n")

    async def _session(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        peer, answered = _name(connection), 0
        if self._clients >= self._config.max_clients:  # several were admitted at the same time
            await connection.close(1013, "too many clients")
            return
        self._clients += 1
        logger.info("%s connected", peer)
        newest = Newest()
        reader = asyncio.ensure_future(self._read(connection, newest))
        try:
            while await newest.wait():
                answered += await self._answer_newest(connection, newest)
            await reader
        except MessageError as error:
            logger.warning("%s refused: %s", peer, shown(error))
            await connection.close(REFUSED, _short(str(error)))
        except ConnectionClosed:
            pass
        finally:
            self._clients -= 1
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, MessageError, ConnectionClosed):
                await reader
            logger.info("%s left after %d answers", peer, answered)

    async def _read(self, connection: ServerConnection, newest: Newest) -> None:
        """Greet, then keep the newest request until the connection ends."""
        try:
            await connection.send(dump(self._greeting))
            try:
                text = await asyncio.wait_for(connection.recv(), self._config.opening_s)
            except asyncio.TimeoutError as error:  # another class than TimeoutError before 3.11
                raise MessageError(f"no reply to the greeting within {self._config.opening_s} s") from error
            reply = parse(Reply, text)
            if reply.layout != self._layout.fingerprint:
                raise MessageError(
                    f"robopolicy {reply.version} there lays out its messages differently (fingerprint "
                    f"{reply.layout[:12]}, here {self._layout.fingerprint[:12]})"
                )
            async for frame in connection:
                if isinstance(frame, str):
                    raise MessageError("requests are binary messages, got a text")
                newest.put(decode_request(self._layout, frame))
        finally:
            newest.end()

    async def _answer_newest(self, connection: ServerConnection, newest: Newest) -> int:
        async with self._turn:
            request = newest.take()  # only now: a newer one may have come while others had their turn
            if request is None:
                return 0
            loop = asyncio.get_running_loop()
            frame = await loop.run_in_executor(self._executor, self._compute, request)
        await connection.send(frame)  # outside the turn: a slow client holds up nobody
        return 1

    def _compute(self, request: RemoteRequest) -> bytearray:
        started_ns = time.monotonic_ns()
        try:
            check_request(self._layout, request)
            candidates = self._policy.sample(request.observation, request.noise, request.context)
            elapsed_ns = time.monotonic_ns() - started_ns
            return encode_response(self._layout, RemoteResponse(request.request_id, candidates, elapsed_ns))
        except RobopolicyError as error:
            text = f"{type(error).__name__}: {error}"
        except Exception as error:  # an engine's own errors, out of memory: the other clients go on
            logger.exception("the policy failed")
            text = f"WorkerError: the policy failed: {type(error).__name__}: {error}"
        elapsed_ns = time.monotonic_ns() - started_ns
        return encode_response(self._layout, RemoteResponse(request.request_id, None, elapsed_ns, text))


def _name(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if address else "a client that has left"


def _short(text: str) -> str:
    return shown(text).encode("ascii", "replace")[:_REASON_BYTES].decode()
