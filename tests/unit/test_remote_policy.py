"""``RemotePolicy``: bit-equal to the policy itself, and honest about a server that is gone or silent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_remote_support import DIGEST, Plain, call_of
from websockets.sync.server import serve as raw_serve

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, WorkerError
from robopolicy.core.policy import Policy, Prefix
from robopolicy.runtime.remote import PolicyServer, RemotePolicy, ServerConfig, WireLayout, connect, serving
from robopolicy.runtime.remote.greeting import Greeting, dump
from robopolicy.runtime.remote.layout import PROTOCOL
from robopolicy.runtime.remote.messages import RemoteResponse, decode_request, encode_response

ROOT = Path(__file__).parents[2]


def served(policy: Plain | None = None, digest: str = DIGEST, **config: Any) -> Any:
    return serving(PolicyServer(policy or Plain(), ServerConfig(**config), digest=digest, provider="plain"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1

    def __call__(self) -> int:
        return self.now_ns


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("batch", "n"), [(1, 1), (1, 4), (3, 2), (7, 4)])
def test_remote_gives_what_the_policy_gives_here(batch: int, n: int, full: bool) -> None:
    here = Plain()
    call = call_of(here.policy_specs, 3, batch, n, full)
    with served(there := Plain(), max_batch=3, max_candidates=4) as url, RemotePolicy(url) as remote:
        assert remote.max_candidates == 4
        assert isinstance(remote, Policy) and remote.policy_specs == here.policy_specs
        assert (remote.digest, remote.provider) == (DIGEST, "plain")
        for _ in range(3):
            np.testing.assert_array_equal(remote.sample(*call), here.sample(*call))
        assert remote.inference_ns > 0
    assert [size for size, _ in there.calls[:3]] == {1: [1] * 3, 3: [3] * 3, 7: [3, 3, 1]}[batch]


def test_connect_tells_what_is_served() -> None:
    with served(max_candidates=5) as url:
        found = connect(url)
        assert (found.url, found.digest, found.max_candidates) == (url, DIGEST, 5)
        assert found.policy_specs == Plain().policy_specs
        connect(url, expect_digest=DIGEST.upper())
        with pytest.raises(WorkerError, match=f"{url} serves another policy: its digest is abababababab"):
            connect(url, expect_digest="cd" * 32)
        with pytest.raises(ConfigError, match="at most 5 candidates, 6 are needed"):
            RemotePolicy(url, max_candidates=6)


def test_bad_input_is_refused_here_and_nothing_is_sent() -> None:
    observation, noise, context = call_of(Plain().policy_specs)
    with served(there := Plain(), max_batch=1) as url, RemotePolicy(url) as remote:
        with pytest.raises(NonFiniteValueError, match="noise"):
            remote.sample(observation, noise * np.nan, context)
        three = call_of(remote.policy_specs, batch=3, full=True)
        with pytest.raises(ShapeError, match="1 instructions for 3"):
            remote.sample(*three[:2], dataclasses.replace(three[2], instruction=("lift",)))
        with pytest.raises(ShapeError, match="prefix"):
            prefix = Prefix(three[2].prefix.action[:1], three[2].prefix.weight[:1])
            remote.sample(*three[:2], dataclasses.replace(three[2], prefix=prefix))
        with pytest.raises(ShapeError, match="scene"):
            remote.sample({**observation, "scene": observation["scene"][:, :, 1:]}, noise, context)
        assert not there.calls


@pytest.mark.parametrize(
    "url",
    [
        "http://h:1",
        "ws://",
        "ws://h:x",
        "ws://h:99999",
        "h:1",
        "ws://me:secret@h:1",
        "ws://h:1/?token=secret",
    ],
)
def test_urls_are_checked_and_secrets_in_them_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert "secret" not in str(caught.value).replace("no secrets", "")


def test_no_server_is_named_within_the_time_given() -> None:
    with pytest.raises(WorkerError, match=r"cannot connect to ws://127.0.0.1:\d+: .*Errno 111"):
        connect(f"ws://127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and says nothing
        url = f"ws://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(WorkerError, match=r"within 0\.2 s"):
            connect(url, connect_timeout_s=0.2)


def test_a_late_answer_is_dropped_and_the_next_call_gets_its_own() -> None:
    there = Plain()
    first, second = (call_of(there.policy_specs, seed) for seed in (1, 2))
    with served(there) as url, RemotePolicy(url, request_timeout_s=0.1) as remote:
        there.hold.clear()
        with pytest.raises(WorkerError, match=f"{url} did not answer within 0.1 s"):
            remote.sample(*first)
        assert there.entered.wait(5)
        threading.Timer(0.02, there.hold.set).start()
        np.testing.assert_array_equal(remote.sample(*second), Plain().sample(*second))


def test_a_lost_server_is_named_and_found_again_after_pauses_that_grow() -> None:
    clock, port, call = Clock(), free_port(), call_of(Plain().policy_specs)
    with contextlib.ExitStack() as stack:
        first = served(port=port)
        url = first.__enter__()
        remote = stack.enter_context(RemotePolicy(url, clock=clock, request_timeout_s=5))
        remote.sample(*call)
        first.__exit__(None, None, None)
        with pytest.raises(WorkerError, match=f"lost the server {url}: it closed the connection .1001."):
            remote.sample(*call)
        for pause_ms in (100, 200, 400, 800, 1600, 3200, 5000, 5000):
            clock.now_ns += (pause_ms - 1) * 1_000_000
            with pytest.raises(WorkerError, match=rf"no server at {url} \(.*next attempt in 0.0 s"):
                remote.sample(*call)
            clock.now_ns += 1_000_000
            with pytest.raises(WorkerError, match=f"cannot connect to {url}"):
                remote.sample(*call)
        stack.enter_context(served(port=port))
        clock.now_ns += 5_000_000_000
        np.testing.assert_array_equal(remote.sample(*call), Plain().sample(*call))


@pytest.mark.parametrize(
    ("other", "message"),
    [({"digest": "cd" * 32}, "serves another policy"), ({"max_candidates": 1}, "other limits")],
)
def test_a_server_that_comes_back_with_another_policy_is_refused(other: Any, message: str) -> None:
    clock, port, call = Clock(), free_port(), call_of(Plain().policy_specs)
    with served(port=port) as url:
        remote = RemotePolicy(url, clock=clock, request_timeout_s=5)
    with remote, served(there := Plain(), port=port, **other):
        with pytest.raises(WorkerError, match="lost the server"):
            remote.sample(*call)
        for _ in range(2):
            clock.now_ns += 10_000_000_000
            with pytest.raises(WorkerError, match=message):
                remote.sample(*call)
        assert not there.calls


BLOCKING = """
import asyncio, sys
sys.path.insert(0, {folder!r})
from test_remote_support import DIGEST, Plain, plain_specs
from robopolicy.runtime.remote import PolicyServer, ServerConfig
policy = Plain(plain_specs({height}))
if {block}: policy.hold.clear()
server = PolicyServer(policy, ServerConfig(max_batch=1), digest=DIGEST)
asyncio.run(server.run(asyncio.Event(), lambda url: print(url, flush=True)))
"""


@contextlib.contextmanager
def in_a_process(*, block: bool, height: int = 4) -> Iterator[tuple[subprocess.Popen[str], str]]:
    code = BLOCKING.format(folder=str(Path(__file__).parent), block=block, height=height)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_server_killed_in_the_middle_of_a_request_ends_the_call_at_once() -> None:
    with in_a_process(block=True) as (process, url), RemotePolicy(url, request_timeout_s=60) as remote:
        assert remote.lost == ""
        threading.Timer(0.3, process.kill).start()
        with pytest.raises(WorkerError, match=f"lost the server {url}: the connection broke"):
            remote.sample(*call_of(remote.policy_specs))
        assert "the connection broke" in remote.lost


def test_a_loss_is_known_before_the_next_call() -> None:
    with served() as url:
        remote = RemotePolicy(url)
        assert remote.lost == ""
    for _ in range(500):
        if remote.lost:
            break
        time.sleep(0.01)
    assert remote.lost == f"lost the server {url}: the connection ended (1001): no reason given"
    remote.close()


def test_a_loss_may_be_asked_for_while_the_link_is_closed() -> None:
    """Another thread takes the link away between two looks at it."""

    class Flicker(RemotePolicy):
        found = iter([SimpleNamespace(lost="it broke"), None])
        _link = property(lambda self: next(self.found))  # type: ignore[assignment]

    remote = object.__new__(Flicker)
    remote.url, remote._lost = "ws://h:1", ""
    assert remote.lost == "lost the server ws://h:1: it broke"


@pytest.mark.parametrize(
    ("height", "message"),
    [(4, "did not answer within 0.3 s"), (1200, "took no data for 0.3 s")],  # of what the sockets buffer
)
def test_a_server_that_stands_still_is_given_up_in_time(height: int, message: str) -> None:
    with (
        in_a_process(block=False, height=height) as (process, url),
        RemotePolicy(url, connect_timeout_s=60, request_timeout_s=0.3) as remote,
    ):
        call = call_of(remote.policy_specs)
        process.send_signal(signal.SIGSTOP)
        for expected in (message, url):  # a send without a limit would never return
            with pytest.raises(WorkerError) as caught:
                remote.sample(*call)
            assert url in str(caught.value) and expected in str(caught.value)


@contextlib.contextmanager
def impostor(greeting: str, answer: Callable[[WireLayout, bytes], Any]) -> Iterator[str]:
    """A server that sends what it is told."""
    layout = WireLayout(Plain().policy_specs, 1, 4)

    def handle(connection: Any) -> None:
        connection.send(greeting)
        connection.recv()
        for frame in connection:
            connection.send(answer(layout, frame))

    with raw_serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def strange(field: str, text: str) -> str:
    """A greeting that this release would not make."""
    return json.dumps({**json.loads(greeting_text()), field: text})


def greeting_text(**changed: Any) -> str:
    specs = Plain().policy_specs
    layout = WireLayout(specs, 1, 4).fingerprint
    fields = {"protocol": PROTOCOL, "version": "9", "policy_specs": specs, "digest": DIGEST, "layout": layout}
    return dump(Greeting(**{**fields, "max_batch": 1, "max_candidates": 4, "provider": "p", **changed}))


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        ("", "opens with JSON"),
        (greeting_text(protocol=2), "speaks protocol 2, this release 1"),
        (greeting_text(layout="00" * 32), "same release on both sides"),
        (greeting_text(max_batch=1 << 30), "cannot be used: messages of up to"),
        (strange("provider", "cpu\n\x1b[31mforged"), r"provider must be at most 200 .* got cpu\n\x1b[31m"),
        (strange("digest", 65 * "a"), "digest must be at most 64 printable"),
        (strange("version", 900 * "9"), "version must be at most 80"),
    ],
)
def test_a_strange_greeting_is_refused_and_the_server_named(greeting: str, message: str) -> None:
    with impostor(greeting, lambda layout, frame: b"") as url, pytest.raises(WorkerError) as caught:
        connect(url)
    said = str(caught.value)
    assert said.startswith(f"{url}: ") and said.isprintable() and len(said) < 250
    assert all(part in said for part in message.split(" .* "))


def answer_with(
    shape: tuple[int, ...], later: int = 0, value: float = 0.0
) -> Callable[[WireLayout, bytes], Any]:
    def answer(layout: WireLayout, frame: bytes) -> bytearray:
        number = decode_request(layout, frame).request_id + later
        made = encode_response(layout, RemoteResponse(number, np.zeros(shape, np.float32), 1))
        made[-4:] = np.float32(value).tobytes()
        return made

    return answer


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda layout, frame: "hello", WorkerError, "a text came"),
        (lambda layout, frame: b"hello", WorkerError, "shorter than its header"),
        (lambda layout, frame: bytes(2000), WorkerError, "begins with"),
        (answer_with((1, 2, 8, 3), later=1), WorkerError, "request 2, which was never made"),
        (answer_with((1, 3, 8, 3)), WorkerError, r"\(1, 3\) candidates instead of \(1, 2\)"),
        (answer_with((1, 2, 8, 3), value=np.nan), NonFiniteValueError, "1 values of the candidates"),
        (lambda layout, frame: bytes(1 << 27), WorkerError, "lost the server"),
    ],
)
def test_a_strange_answer_is_an_error_and_never_a_chunk(answer: Any, error: Any, message: str) -> None:
    call = call_of(Plain().policy_specs)
    with (
        impostor(greeting_text(), answer) as url,
        RemotePolicy(url, request_timeout_s=20) as remote,
        pytest.raises(error, match=message),
    ):
        remote.sample(*call)
