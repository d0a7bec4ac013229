"""Requests and answers as frames and back. Whatever arrives is checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, SpecError, WorkerError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Prefix, check_inputs
from robopolicy.runtime.remote.layout import (
    ERROR_BYTES,
    REQUEST_HEADER,
    RESPONSE_HEADER,
    WireLayout,
    text_bytes,
)

_REQUEST, _RESPONSE = b"RPQ1", b"RPA1"


class MessageError(WorkerError):
    """A frame that no correct peer sends: wrong length, mark or fingerprint."""


@dataclass(frozen=True)
class RemoteRequest:
    """One call of ``Policy.sample``; see there for shapes."""

    request_id: int
    observation: Arrays
    noise: Float32
    context: Context = NO_CONTEXT


@dataclass(frozen=True)
class RemoteResponse:
    """What came back.

    Args:
        candidates: (batch, n, prediction_horizon, action_dim); None after an error.
        inference_ns: time the server spent computing.
        error: "ShapeError: ..." and the like; empty when there are candidates.
    """

    request_id: int
    candidates: Float32 | None
    inference_ns: int
    error: str = ""


def check_request(layout: WireLayout, request: RemoteRequest) -> tuple[int, int]:
    """Hold a request against the specs and limits; returns (batch, n).

    Raises:
        SpecError, ShapeError, NonFiniteValueError, ConfigError: what is wrong with it.
    """
    specs = layout.specs
    batch, n = check_inputs(specs, request.observation, request.noise)
    if not (1 <= batch <= layout.max_batch and 1 <= n <= layout.max_candidates):
        raise ConfigError(
            f"a request has 1..{layout.max_batch} observations and 1..{layout.max_candidates} candidates, "
            f"got {batch} and {n}"
        )
    if len(request.context.instruction) not in (0, batch):
        raise ShapeError(f"{len(request.context.instruction)} instructions for {batch} observations")
    if request.context.prefix is not None and specs.takes_prefix:
        request.context.prefix.check(specs, batch)
    return batch, n


def encode_request(layout: WireLayout, request: RemoteRequest) -> bytearray:
    """A frame; raises as ``check_request`` does, and SpecError for an observation of another kind."""
    batch, n = check_request(layout, request)
    frame = bytearray(layout.request_bytes(batch, n))
    header, rows, noise = _request_parts(layout, frame, batch, n)
    prefix = request.context.prefix if layout.specs.takes_prefix else None
    header["magic"], header["layout"] = _REQUEST, np.frombuffer(layout.digest, np.uint8)
    header["request_id"], header["batch"], header["candidates"] = request.request_id, batch, n
    header["has_instruction"] = bool(request.context.instruction)
    header["has_prefix"] = prefix is not None
    for row, text in enumerate(request.context.instruction):
        rows["instruction"][row] = text_bytes(text)
    if prefix is not None:
        rows["prefix"], rows["prefix_weight"] = prefix.action, prefix.weight
    for name in layout.specs.specs.observation:
        value, field = request.observation[name], rows["observation"][name]
        if not np.can_cast(value.dtype, field.dtype, "same_kind"):
            raise SpecError(f"observation {name!r} must be {field.dtype}, got {value.dtype}")
        field[...] = value
    noise[...] = request.noise
    return frame


def decode_request(layout: WireLayout, frame: bytes) -> RemoteRequest:
    """What a frame asks for; its values are checked by ``check_request``.

    Raises:
        MessageError: not a request of this layout, or of another length than it says.
    """
    header = _header(layout, frame, REQUEST_HEADER, _REQUEST)
    batch, n = int(header["batch"]), int(header["candidates"])
    if not (1 <= batch <= layout.max_batch and 1 <= n <= layout.max_candidates):
        raise MessageError(
            f"the request has {batch} observations and {n} candidates; 1..{layout.max_batch} and "
            f"1..{layout.max_candidates} are allowed"
        )
    _check_length(frame, layout.request_bytes(batch, n))
    if max(header["has_instruction"], header["has_prefix"]) > 1:
        raise MessageError("the request has a flag that is neither 0 nor 1")
    if header["has_prefix"] and not layout.specs.takes_prefix:
        raise MessageError("the request has a prefix, and this policy takes none")
    _, rows, noise = _request_parts(layout, frame, batch, n)
    prefix = None
    if header["has_prefix"]:
        prefix = Prefix(_native(rows["prefix"]), _native(rows["prefix_weight"]))
    texts: tuple[str, ...] = ()
    if header["has_instruction"]:
        try:
            texts = tuple(bytes(text).decode() for text in rows["instruction"])
        except UnicodeDecodeError as error:
            raise MessageError(f"an instruction is no UTF-8: {error}") from error
    observation = {name: _native(rows["observation"][name]) for name in layout.specs.specs.observation}
    for name, value in observation.items():
        if value.dtype == bool and value.view(np.uint8).max() > 1:
            raise MessageError(f"observation {name!r} has a boolean that is neither 0 nor 1")
    return RemoteRequest(int(header["request_id"]), observation, _native(noise), Context(texts, prefix))


def encode_response(layout: WireLayout, response: RemoteResponse) -> bytearray:
    """A frame; candidates of another shape than the specs' raise ShapeError, NaN NonFiniteValueError."""
    candidates = response.candidates
    batch, n = (0, 0) if candidates is None else candidates.shape[:2]
    if candidates is not None:
        _check_candidates(layout, candidates, batch, n)
    frame = bytearray(layout.response_bytes(batch, n))
    header = np.frombuffer(frame, RESPONSE_HEADER, 1)[0]
    header["magic"], header["layout"] = _RESPONSE, np.frombuffer(layout.digest, np.uint8)
    header["request_id"], header["batch"], header["candidates"] = response.request_id, batch, n
    header["inference_ns"] = response.inference_ns
    header["error"] = response.error.encode("ascii", "replace")[:ERROR_BYTES]
    if candidates is not None:
        _payload(frame, RESPONSE_HEADER.itemsize, layout.chunk, (batch, n))[...] = candidates
    return frame


def decode_response(layout: WireLayout, frame: bytes) -> RemoteResponse:
    """An answer whose candidates have the specs' shape and are finite.

    Raises:
        MessageError: not an answer of this layout, or of another length than it says.
        NonFiniteValueError: candidates with NaN or infinity.
    """
    header = _header(layout, frame, RESPONSE_HEADER, _RESPONSE)
    batch, n = int(header["batch"]), int(header["candidates"])
    request_id, inference_ns = int(header["request_id"]), int(header["inference_ns"])
    error = bytes(header["error"]).decode("ascii", "replace")
    if batch > layout.max_batch or n > layout.max_candidates or (batch * n == 0) != bool(error):
        raise MessageError(f"the answer has {batch} x {n} candidates and the error {error!r}")
    _check_length(frame, layout.response_bytes(batch, n))
    if error:
        return RemoteResponse(request_id, None, inference_ns, error)
    candidates = _native(_payload(frame, RESPONSE_HEADER.itemsize, layout.chunk, (batch, n)))
    _check_candidates(layout, candidates, batch, n)
    return RemoteResponse(request_id, candidates, inference_ns)


def _header(layout: WireLayout, frame: bytes, dtype: np.dtype[Any], magic: bytes) -> Any:
    if len(frame) < dtype.itemsize:
        raise MessageError(f"a frame of {len(frame)} bytes is shorter than its header of {dtype.itemsize}")
    header = np.frombuffer(frame, dtype, 1)[0]
    if header["magic"] != magic:
        raise MessageError(f"a frame begins with {bytes(header['magic'])!r} instead of {magic!r}")
    if header["layout"].tobytes() != layout.digest:
        raise MessageError(
            f"a frame has the layout {header['layout'].tobytes().hex()[:12]}, not {layout.fingerprint[:12]}: "
            "it was made for another policy or release"
        )
    return header


def _check_length(frame: bytes, expected: int) -> None:
    if len(frame) != expected:
        raise MessageError(f"a frame has {len(frame)} bytes where its header asks for {expected}")


def _check_candidates(layout: WireLayout, candidates: NDArray[Any], batch: int, n: int) -> None:
    if candidates.shape != (batch, n, *layout.specs.chunk_shape):
        raise ShapeError(
            f"candidates must be {(batch, n, *layout.specs.chunk_shape)}, got {candidates.shape}"
        )
    if not np.isfinite(candidates).all():
        bad = int((~np.isfinite(candidates)).sum())
        raise NonFiniteValueError(f"{bad} values of the candidates are not finite")


def _request_parts(
    layout: WireLayout, frame: bytes | bytearray, batch: int, n: int
) -> tuple[Any, NDArray[Any], NDArray[Any]]:
    """Header, rows and noises as views; to be written to when the frame is a bytearray."""
    start = REQUEST_HEADER.itemsize
    rows = np.frombuffer(frame, layout.row, batch, start)
    noise = _payload(frame, start + rows.nbytes, layout.noise, (batch, n))
    return np.frombuffer(frame, REQUEST_HEADER, 1)[0], rows, noise


def _payload(
    frame: bytes | bytearray, start: int, record: np.dtype[Any], shape: tuple[int, int]
) -> NDArray[Any]:
    values = np.frombuffer(frame, record.base, offset=start)
    return values.reshape(*shape, *record.shape)


def _native(view: NDArray[Any]) -> NDArray[Any]:
    """A contiguous, aligned copy in this machine's byte order."""
    return np.array(view, dtype=view.dtype.newbyteorder("="), order="C")
