"""Frames: what goes in comes out to the bit, and nothing else is taken for a frame."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_remote_support import DIGEST, call_of, plain_specs

from robopolicy import __version__
from robopolicy.core.errors import ConfigError, NonFiniteValueError, RobopolicyError, ShapeError, SpecError
from robopolicy.core.policy import Context, Prefix
from robopolicy.runtime.remote import MessageError, WireLayout
from robopolicy.runtime.remote.greeting import Greeting, Reply, dump, parse
from robopolicy.runtime.remote.layout import PROTOCOL, REQUEST_HEADER
from robopolicy.runtime.remote.messages import (
    RemoteRequest,
    RemoteResponse,
    check_request,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

SPECS = plain_specs()
LAYOUT = WireLayout(SPECS, 3, 4)


def request_frame(batch: int = 1, n: int = 2, full: bool = False) -> bytes:
    return bytes(encode_request(LAYOUT, RemoteRequest(7, *call_of(SPECS, 1, batch, n, full))))


def response_frame(batch: int = 1, n: int = 2) -> bytes:
    candidates = np.random.default_rng(0).normal(size=(batch, n, 8, 3)).astype(np.float32)
    return bytes(encode_response(LAYOUT, RemoteResponse(7, candidates, 1234)))


@given(st.integers(1, 3), st.integers(1, 4), st.booleans(), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_a_request_comes_back_to_the_bit(batch: int, n: int, full: bool, seed: int) -> None:
    observation, noise, context = call_of(SPECS, seed, batch, n, full)
    frame = bytes(encode_request(LAYOUT, RemoteRequest(2**63, observation, noise, context)))
    assert len(frame) == LAYOUT.request_bytes(batch, n) <= LAYOUT.max_request_bytes
    back = decode_request(LAYOUT, frame)
    assert back.request_id == 2**63 and back.context.instruction == context.instruction
    for name, value in observation.items():
        assert back.observation[name].dtype == value.dtype and back.observation[name].flags.aligned
        np.testing.assert_array_equal(back.observation[name], value)
    np.testing.assert_array_equal(back.noise, noise)
    if full:
        assert back.context.prefix is not None and context.prefix is not None
        np.testing.assert_array_equal(back.context.prefix.action, context.prefix.action)
        np.testing.assert_array_equal(back.context.prefix.weight, context.prefix.weight)
    else:
        assert back.context.prefix is None
    assert check_request(LAYOUT, back) == (batch, n)


def test_an_answer_comes_back_to_the_bit() -> None:
    candidates = np.random.default_rng(0).normal(size=(3, 4, 8, 3)).astype(np.float32)
    frame = bytes(encode_response(LAYOUT, RemoteResponse(9, candidates, 1234)))
    assert len(frame) == LAYOUT.max_response_bytes
    back = decode_response(LAYOUT, frame)
    np.testing.assert_array_equal(back.candidates, candidates)
    assert (back.request_id, back.inference_ns, back.error) == (9, 1234, "")
    refused = decode_response(
        LAYOUT, bytes(encode_response(LAYOUT, RemoteResponse(9, None, 5, "E: ü" * 900)))
    )
    assert refused.candidates is None and refused.error.startswith("E: ?E: ?") and len(refused.error) == 1024


@pytest.mark.parametrize("make", [request_frame, response_frame])
def test_frames_of_another_length_mark_or_layout_are_refused(make: object) -> None:
    good = make()  # type: ignore[operator]
    decode = decode_request if make is request_frame else decode_response
    decode(LAYOUT, good)
    for length in (0, 1, 4, 59, 60, len(good) - 1):
        with pytest.raises(MessageError, match="bytes"):
            decode(LAYOUT, good[:length])
    with pytest.raises(MessageError, match="bytes where its header asks for"):
        decode(LAYOUT, good + b"\0")
    with pytest.raises(MessageError, match="begins with"):
        decode(LAYOUT, b"X" + good[1:])
    with pytest.raises(MessageError, match="another policy or release"):
        decode(LAYOUT, good[:4] + bytes(32) + good[36:])
    other = response_frame() if make is request_frame else request_frame()
    with pytest.raises(MessageError, match="begins with"):
        decode(LAYOUT, other)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (4, 1), (1, 5), (2**32 - 1, 2**32 - 1)])
def test_counts_beyond_the_limits_are_refused_before_anything_is_reserved(counts: tuple[int, int]) -> None:
    for frame, decode in ((request_frame(), decode_request), (response_frame(), decode_response)):
        altered = bytearray(frame)
        header = np.frombuffer(altered, REQUEST_HEADER, 1)[0]  # both headers begin alike
        header["batch"], header["candidates"] = counts
        with pytest.raises(MessageError, match="candidates"):
            decode(LAYOUT, bytes(altered))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_altered_frames_are_refused_or_checked_never_a_crash(data: st.DataObject) -> None:
    frame = bytearray(request_frame(full=True) if data.draw(st.booleans()) else response_frame())
    for _ in range(data.draw(st.integers(1, 8))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        if frame[:4] == b"RPQ1":
            check_request(LAYOUT, decode_request(LAYOUT, bytes(frame)))
        else:
            response = decode_response(LAYOUT, bytes(frame))
            assert response.error or np.isfinite(response.candidates).all()
    except RobopolicyError:
        pass


def test_a_request_is_held_against_the_specs_before_it_is_sent() -> None:
    observation, noise, context = call_of(SPECS)

    def encode(**changed: object) -> None:
        parts = {"observation": observation, "noise": noise, "context": context, **changed}
        encode_request(LAYOUT, RemoteRequest(1, **parts))  # type: ignore[arg-type]

    with pytest.raises(NonFiniteValueError, match="joints"):
        encode(observation={**observation, "joints": observation["joints"] * np.nan})
    with pytest.raises(NonFiniteValueError, match="noise"):
        encode(noise=noise * np.inf)
    with pytest.raises(ShapeError, match="joints"):
        encode(observation={**observation, "joints": observation["joints"][:, :1]})
    with pytest.raises(SpecError, match="scene"):
        encode(observation={**observation, "scene": observation["scene"] / 255.0})
    with pytest.raises(SpecError, match="'range' must be uint16"):
        encode(observation={**observation, "range": observation["range"] / 2.0})
    with pytest.raises(SpecError, match="lacks"):
        encode(observation={"joints": observation["joints"]})
    with pytest.raises(ConfigError, match=r"1\.\.4 candidates"):
        encode(noise=np.zeros((1, 5, 8, 3), np.float32))
    with pytest.raises(ConfigError, match="512 bytes"):
        encode(context=Context(("ä" * 257,)))
    with pytest.raises(ShapeError, match="2 instructions for 1"):
        encode(context=Context(("a", "b")))
    with pytest.raises(NonFiniteValueError, match="prefix"):
        encode(
            context=Context((), Prefix(np.full((1, 8, 3), np.nan, np.float32), np.ones((1, 8), np.float32)))
        )


def test_greeting_is_read_strictly() -> None:
    greeting = Greeting(PROTOCOL, __version__, SPECS, DIGEST, LAYOUT.fingerprint, 3, 4, "cpu")
    text = dump(greeting)
    assert parse(Greeting, text) == greeting and parse(Greeting, text).wire_layout() == LAYOUT
    tree = json.loads(text)
    for change, message in (
        ({"protocol": 2}, "speaks protocol 2, this release 1"),
        ({"protocol": None}, "speaks protocol None"),
        ({"more": 1}, "unknown fields"),
        ({"max_batch": "3"}, "expected int"),
        ({"policy_specs": {}}, "missing fields"),
    ):
        with pytest.raises(MessageError, match=message):
            parse(Greeting, json.dumps({**tree, **change}))
    for bad in ("", "[]", "null", "{", "[" * 100_000, '{"protocol": NaN}', b"{}", "x" * (1 << 21)):
        with pytest.raises(MessageError):
            parse(Reply, bad)
    with pytest.raises(MessageError, match="same release"):
        parse(Greeting, json.dumps({**tree, "layout": "0" * 64})).wire_layout()
    with pytest.raises(MessageError, match="cannot be used"):
        parse(Greeting, json.dumps({**tree, "max_batch": 0})).wire_layout()
