"""The server against clients that are wrong, hostile or many; it goes on serving the others."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from test_remote_support import DIGEST, TOKEN, Plain, call_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as raw_connect

from robopolicy.core.errors import ConfigError, NonFiniteValueError, WorkerError
from robopolicy.runtime.remote import PolicyServer, RemotePolicy, ServerConfig, WireLayout, connect, serving
from robopolicy.runtime.remote.greeting import Greeting, Reply, dump, parse
from robopolicy.runtime.remote.messages import RemoteRequest, decode_response, encode_request
from robopolicy.runtime.remote.security import readable_on_the_way


@contextlib.contextmanager
def served(policy: Plain | None = None, token: str = "", **config: Any) -> Iterator[str]:
    server = PolicyServer(policy or Plain(), ServerConfig(**config), digest=DIGEST, token=token)
    with serving(server) as url:
        yield url


@contextlib.contextmanager
def raw_client(url: str, reply: bool = True, **options: Any) -> Iterator[tuple[Any, WireLayout]]:
    """A connection after the greeting, for frames that no client of ours would send."""
    with raw_connect(url, compression=None, **options) as connection:
        greeting = parse(Greeting, connection.recv(timeout=5))
        layout = greeting.wire_layout()
        if reply:
            connection.send(dump(Reply(greeting.protocol, "test", layout.fingerprint)))
        yield connection, layout


def frame_of(layout: WireLayout, request_id: int = 1, seed: int = 0) -> bytearray:
    return encode_request(layout, RemoteRequest(request_id, *call_of(layout.specs, seed)))


def still_serves(url: str, token: str = "") -> None:
    call = call_of(Plain().policy_specs)
    with RemotePolicy(url, token) as policy:
        np.testing.assert_array_equal(policy.sample(*call), Plain().sample(*call))


def closing(connection: Any) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(timeout=5)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def nan_in(layout: WireLayout) -> bytes:
    frame = frame_of(layout)
    place = frame.index(np.float32(call_of(layout.specs)[0]["joints"].flat[0]).tobytes())
    frame[place : place + 4] = np.float32(np.nan).tobytes()
    return bytes(frame)


@pytest.mark.parametrize(
    ("make", "code", "reason"),
    [
        (lambda layout: frame_of(layout)[:-1], 4400, "bytes where its header asks"),
        (lambda layout: frame_of(layout) + b"\0", 4400, "bytes where its header asks"),
        (lambda layout: b"", 4400, "shorter than its header"),
        (lambda layout: np.random.default_rng(0).bytes(5000), 4400, "begins with"),
        (lambda layout: frame_of(layout)[:4] + bytes(32) + frame_of(layout)[36:], 4400, "another policy"),
        (lambda layout: "a text", 4400, "binary messages"),
        (lambda layout: bytes(max(layout.max_request_bytes, 1 << 20) + 1), 1009, ""),
    ],
    ids=["truncated", "longer", "empty", "garbage", "fingerprint", "text", "oversized"],
)
def test_a_frame_that_is_no_request_ends_that_connection_alone(
    make: Callable[[WireLayout], Any], code: int, reason: str
) -> None:
    with served() as url:
        with raw_client(url) as (connection, layout):
            connection.send(make(layout))
            found = closing(connection)
            assert found[0] == code and reason in found[1]
        still_serves(url)


def test_bad_values_are_answered_with_the_error_and_the_connection_goes_on() -> None:
    policy = Plain()
    with served(policy) as url, raw_client(url) as (connection, layout):
        connection.send(nan_in(layout))
        answer = decode_response(layout, connection.recv(timeout=5))
        assert answer.candidates is None and answer.error.startswith(
            "NonFiniteValueError: observation 'joints'"
        )
        assert not policy.calls  # nothing was computed
        connection.send(frame_of(layout, request_id=5))
        assert decode_response(layout, connection.recv(timeout=5)).request_id == 5


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ('{"protocol": 2, "version": "9", "layout": ""}', "speaks protocol 2, this release 1"),
        ('{"protocol": 1, "version": "9", "layout": "00"}', "lays out its messages differently"),
        ('{"protocol": 1}', "missing fields"),
        ("hello", "opens with JSON"),
        (b"\0\0", "opens with a text message"),
    ],
)
def test_a_wrong_reply_to_the_greeting_is_refused(reply: str | bytes, reason: str) -> None:
    with served() as url:
        with raw_client(url, reply=False) as (connection, _):
            connection.send(reply)
            code, said = closing(connection)
            assert code == 4400 and reason in said
        still_serves(url)


def test_a_client_that_never_replies_or_talks_http_is_let_go() -> None:
    with served(opening_s=0.2) as url:
        with raw_client(url, reply=False) as (connection, _):
            assert "no reply" in closing(connection)[1]
        host, port = url.rsplit("/", 1)[1].split(":")
        for text in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00garbage\r\n\r\n", b""):
            with socket.create_connection((host, int(port)), timeout=5) as plain:
                plain.sendall(text)
                answer = plain.recv(4000)
                assert answer == b"" or answer.split()[1] in (b"400", b"426")
        still_serves(url)


@pytest.mark.parametrize("field", ["version", "layout", "protocol", "INFO forged\n\x1b[2K"])
def test_what_a_client_writes_forges_no_log(field: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reply = {"protocol": 1, "version": "9", "layout": "00", field: "1\n\x1b[31mINFO forged\x9b" + 900 * "x"}
    with served() as url:
        with raw_client(url, reply=False) as (connection, _):
            connection.send(json.dumps(reply))
            assert closing(connection)[0] == 4400
        still_serves(url)
    lines = [record.getMessage() for record in caplog.records]
    assert any("refused: " in line and len(line) < 250 for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_no_tls_is_warned_of_on_both_sides_where_others_can_listen(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with served(token=TOKEN, host=host) as url:
        connect(url, TOKEN)
    warned = [record.getMessage() for record in caplog.records if "no TLS" in record.getMessage()]
    assert len(warned) == (0 if host == "127.0.0.1" else 2) and TOKEN not in caplog.text
    for url, readable in (("ws://gpu:1", True), ("ws://[::1]:1", False), ("wss://gpu:1", False)):
        assert readable_on_the_way(url) == readable


@pytest.mark.parametrize("given", ["", "wrong-wrong-wrong-wrong", TOKEN[:-1], TOKEN + "x"])
def test_a_wrong_token_is_turned_away_and_never_logged(given: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with served(token=TOKEN) as url:
        with pytest.raises(WorkerError, match=rf"{url} turned us away: wrong or missing token \(HTTP 401\)"):
            connect(url, given)
        still_serves(url, TOKEN)
    assert "turned away: wrong or missing token" in caplog.text and "connected" in caplog.text
    assert TOKEN not in caplog.text and (not given or given not in caplog.text)


def test_two_authorizations_are_none() -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
    with served(token=TOKEN) as url, pytest.raises(InvalidStatus, match="401"):
        raw_connect(url, additional_headers=headers).__enter__()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "robot.example"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        PolicyServer(Plain(), ServerConfig(host), digest=DIGEST)
    PolicyServer(Plain(), ServerConfig(host), digest=DIGEST, token=TOKEN)


def test_web_pages_are_refused_unless_named() -> None:
    with served(origins=("https://lab.example",)) as url:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:8000"):
            with pytest.raises(InvalidStatus, match="403"):
                raw_connect(url, origin=origin).__enter__()
        with raw_client(url, origin="https://lab.example"):
            pass
        still_serves(url)


def test_clients_beyond_the_limit_are_turned_away_until_one_leaves() -> None:
    with served(max_clients=2) as url:
        with raw_client(url), raw_client(url), pytest.raises(WorkerError, match="2 clients are connected"):
            connect(url)
        for _ in range(200):
            with contextlib.suppress(WorkerError):
                connect(url)
                return
            time.sleep(0.02)
        raise AssertionError("never let in again")


def test_two_clients_take_turns_and_each_gets_its_own() -> None:
    policy, found = Plain(), {}
    calls = {seed: [call_of(policy.policy_specs, 10 * seed + k) for k in range(20)] for seed in (1, 2)}

    def client(seed: int) -> None:
        with RemotePolicy(url, request_timeout_s=20) as remote:
            found[seed] = [remote.sample(*call) for call in calls[seed]]

    with served(policy) as url:
        threads = [threading.Thread(target=client, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed in (1, 2):
        for call, result in zip(calls[seed], found[seed]):
            np.testing.assert_array_equal(result, Plain().sample(*call))


def test_the_newest_of_several_waiting_requests_is_answered_and_others_wait_their_turn() -> None:
    policy = Plain()
    policy.hold.clear()
    with served(policy) as url, raw_client(url) as (first, layout), raw_client(url) as (second, _):
        first.send(frame_of(layout, 1))
        assert policy.entered.wait(5)
        for connection, numbers in ((second, (1, 2)), (first, (2, 3, 4))):
            for request_id in numbers:
                connection.send(frame_of(layout, request_id, seed=request_id))
                assert connection.ping().wait(5)  # what was sent before has arrived
                time.sleep(0.05)  # and waits for its turn
        policy.hold.set()
        assert [decode_response(layout, first.recv(timeout=5)).request_id for _ in range(2)] == [1, 4]
        assert decode_response(layout, second.recv(timeout=5)).request_id == 2
        assert len(policy.calls) == 3


def test_errors_of_the_policy_come_back_typed_and_unforeseen_ones_too() -> None:
    policy = Plain()
    call = call_of(policy.policy_specs)
    with served(policy) as url, RemotePolicy(url) as remote:
        policy.fail = NonFiniteValueError("the sampler gave 3 non-finite values")
        with pytest.raises(NonFiniteValueError, match="gave 3 non-finite"):
            remote.sample(*call)
        policy.fail = WorkerError("out\n\x1b[31mforged" + 900 * "x")
        with pytest.raises(WorkerError) as caught:
            remote.sample(*call)
        assert str(caught.value).startswith("out\\n\\x1b[31mforged") and len(str(caught.value)) == 200
        policy.fail = MemoryError("no room")
        with pytest.raises(WorkerError, match="the policy failed: MemoryError: no room"):
            remote.sample(*call)
        policy.fail, policy.scale = None, float("nan")
        with pytest.raises(NonFiniteValueError, match="candidates are not finite"):
            remote.sample(*call)
        policy.scale = 1.0
        np.testing.assert_array_equal(remote.sample(*call), Plain().sample(*call))


def test_greeting_says_what_is_served_and_nothing_secret() -> None:
    with served(token=TOKEN, max_candidates=3) as url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with raw_connect(url, compression=None, additional_headers=headers) as connection:
            text = connection.recv(timeout=5)
        assert TOKEN not in text
        tree = json.loads(text)
        assert tree["digest"] == DIGEST and tree["max_candidates"] == 3
        assert set(tree) == {field.name for field in dataclasses.fields(Greeting)}


def test_a_taken_port_and_bad_limits_are_config_errors() -> None:
    with served() as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"), served(port=port):
            pass
    for bad in ({"port": 70000}, {"max_clients": 0}, {"opening_s": 0.0}):
        with pytest.raises(ConfigError):
            ServerConfig(**bad)  # type: ignore[arg-type]
