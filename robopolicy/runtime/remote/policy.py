"""A served policy as a policy: a blocking call that names the server when it fails, and connects again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from robopolicy.core.errors import ConfigError, ShapeError, WorkerError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Prefix, check_inputs
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.clock import monotonic_ns
from robopolicy.runtime.remote.greeting import Greeting
from robopolicy.runtime.remote.layout import REQUEST_TIMEOUT_S
from robopolicy.runtime.remote.link import Link
from robopolicy.runtime.remote.messages import MessageError

CONNECT_TIMEOUT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0


@dataclass(frozen=True)
class RemoteEndpoint:
    """What a server said about itself.

    Args:
        digest: SHA-256 (hex) of the bundle or saved policy it serves.
        max_candidates: most of one request.
        provider: what executes the policy there.
        version: of robopolicy there.
    """

    url: str
    policy_specs: PolicySpecs
    digest: str
    max_candidates: int
    provider: str
    version: str


def connect(
    url: str, token: str = "", *, expect_digest: str = "", connect_timeout_s: float = CONNECT_TIMEOUT_S
) -> RemoteEndpoint:
    """Ask a server what it serves, and leave.

    Raises:
        WorkerError: it cannot be reached, turns us away, or serves something else than ``expect_digest``.
        ConfigError: not the URL of a server.
    """
    link = _open(url, token, expect_digest, connect_timeout_s)
    link.close()
    said = link.greeting
    specs = said.policy_specs
    return RemoteEndpoint(url, specs, said.digest, said.max_candidates, said.provider, said.version)


class RemotePolicy:
    """Satisfies ``robopolicy.core.policy.Policy``; each call waits for the answer, so it belongs into an
    inference worker's process and never into a control loop. A context manager; not for several threads.

    When the connection is lost the call fails at once, and later calls connect again, at first after
    ``FIRST_PAUSE_S``, then after twice as long each time. What is served must stay the same throughout.

    Args:
        url: ws://HOST:PORT or wss://HOST:PORT.
        token: see ``security.read_token``.
        expect_digest: refuse a server of anything else; empty takes what is served at the start.
        connect_timeout_s: for the first connection; later ones get ``request_timeout_s`` [s].
        request_timeout_s: longest wait for an answer [s].
        max_candidates: most that will be asked for, checked at the start; 0 takes what the server allows.
        clock: monotonic [ns].
    Attributes:
        url: of the server.
        inference_ns: of the last call, as the server measured it.
    Raises:
        WorkerError: no server, or another policy; names the URL and the reason.
        ConfigError: not such a URL, or the server allows fewer candidates.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        expect_digest: str = "",
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        max_candidates: int = 0,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        if min(connect_timeout_s, request_timeout_s) <= 0:
            raise ConfigError("connect_timeout_s and request_timeout_s must be positive [s]")
        self.url, self._token, self._timeout_s, self._clock = url, token, request_timeout_s, clock
        self._link: Link | None = _open(url, token, expect_digest, connect_timeout_s)
        self._greeting = self._link.greeting
        self.inference_ns = 0
        self._pause_s = FIRST_PAUSE_S
        self._retry_ns = 0
        self._lost = "closed"
        if max_candidates > self._greeting.max_candidates:
            self.close()
            raise ConfigError(
                f"{url} answers with at most {self._greeting.max_candidates} candidates, "
                f"{max_candidates} are needed; start it with a larger --max-candidates"
            )

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._greeting.policy_specs

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the bundle or saved policy behind it."""
        return self._greeting.digest

    @property
    def provider(self) -> str:
        """What executes the policy on the server."""
        return self._greeting.provider

    @property
    def max_candidates(self) -> int:
        """Most that the server answers with."""
        return self._greeting.max_candidates

    @property
    def lost(self) -> str:
        """Why there is no connection now, known without asking; empty while there is one."""
        link = self._link  # read once: another thread may be closing it
        why = self._lost if link is None else link.lost
        return f"lost the server {self.url}: {why}" if why else ""

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """Candidates (batch, n, prediction_horizon, action_dim); see ``Policy.sample``.

        A batch larger than the server takes goes in several requests, which an engine may round otherwise.

        Raises:
            WorkerError: the server is gone, silent, or serves another policy now; names it.
        """
        batch, _ = check_inputs(self.policy_specs, observation, noise)
        if len(context.instruction) not in (0, batch):
            raise ShapeError(f"{len(context.instruction)} instructions for {batch} observations")
        if context.prefix is not None and self.policy_specs.takes_prefix:
            context.prefix.check(self.policy_specs, batch)
        size = self._greeting.max_batch
        self.inference_ns = 0
        parts = [
            self._ask(*_part(observation, noise, context, slice(start, start + size)))
            for start in range(0, batch, size)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Leave the server; may be called twice. A later call connects again."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, observation: Arrays, noise: Float32, context: Context) -> Float32:
        left_s = self._timeout_s
        if self._link is None:
            began_ns = self._clock()
            self._connect_again(began_ns)
            left_s = max(left_s - (self._clock() - began_ns) * 1e-9, 0.0)
        assert self._link is not None
        try:
            response = self._link.ask(observation, noise, context, left_s)
        except TimeoutError as error:
            raise WorkerError(f"{self.url} did not answer within {self._timeout_s:g} s") from error
        except (ConnectionError, MessageError) as error:
            self._lost = str(error)
            self.close()
            self._wait_longer(self._clock())
            raise WorkerError(f"lost the server {self.url}: {error}") from error
        assert response.candidates is not None
        self._pause_s = FIRST_PAUSE_S
        self.inference_ns += response.inference_ns
        return response.candidates

    def _connect_again(self, now_ns: int) -> None:
        if now_ns < self._retry_ns:
            wait_s = (self._retry_ns - now_ns) * 1e-9
            raise WorkerError(f"no server at {self.url} ({self._lost}); next attempt in {wait_s:.1f} s")
        try:
            self._link = _open(self.url, self._token, self.digest, self._timeout_s)
            if _terms(self._link.greeting) != _terms(self._greeting):
                raise WorkerError(f"{self.url} is back with other limits or specs than before")
        except WorkerError as error:
            self._lost = str(error)
            self.close()
            self._wait_longer(self._clock())
            raise

    def _wait_longer(self, now_ns: int) -> None:
        self._retry_ns = now_ns + round(self._pause_s * 1e9)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


def _open(url: str, token: str, expect_digest: str, timeout_s: float) -> Link:
    link = Link(url, token=token, timeout_s=timeout_s)
    if expect_digest and link.greeting.digest != expect_digest.lower():
        link.close()
        raise WorkerError(
            f"{url} serves another policy: its digest is {link.greeting.digest[:12]}..., not "
            f"{expect_digest[:12]}..."
        )
    return link


def _terms(greeting: Greeting) -> tuple[str, int, int]:
    """What must not change while a policy is in use, besides its digest."""
    return greeting.layout, greeting.max_batch, greeting.max_candidates


def _part(
    observation: Arrays, noise: Float32, context: Context, rows: slice
) -> tuple[Arrays, Float32, Context]:
    prefix = context.prefix
    if prefix is not None:
        prefix = Prefix(prefix.action[rows], prefix.weight[rows])
    part = Context(context.instruction[rows], prefix)
    return {name: value[rows] for name, value in observation.items()}, noise[rows], part
