"""Requests, answers and signs of life between a control loop and its worker, over shared memory."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.inference.client import Request, Response
from robopolicy.runtime.inference.slot import Slot
from robopolicy.runtime.remote.layout import TEXT_BYTES, text_bytes

STARTING, READY = 0, 1
_LINE = 64  # bytes; the heartbeat's thread writes one cache line, the serving one the other
_OFFSETS = {
    "heartbeat": 0,
    "state": _LINE,
    "progress": _LINE + 8,
    "answered": _LINE + 16,
    "warm_ns": _LINE + 24,
}
_DECISION = ("index", "asked", "scored", "draw_ns", "score_ns", "deadline_ns")  # of a response, as they are
_STATUS = struct.Struct("@q56xqqqq")


@dataclass(frozen=True)
class Layout:
    """The records both processes derive from the bundle's specs. No schema travels, but its fingerprint
    does: the worker may run another release.

    Args:
        specs: of the policy.
        max_candidates: room for this many in an answer.
    """

    specs: PolicySpecs
    max_candidates: int

    def __post_init__(self) -> None:
        if self.max_candidates < 1:
            raise ConfigError(f"max_candidates must be >= 1, got {self.max_candidates}")

    @property
    def request(self) -> np.dtype[Any]:
        horizon = self.specs.horizons.observation
        observation = [
            (name, spec.dtype, (horizon, *spec.shape)) for name, spec in self.specs.specs.observation.items()
        ]
        return np.dtype(
            [
                ("request_id", "i8"),
                ("observation_time_ns", "i8"),
                ("noise_key", "i8", (3,)),
                ("num_candidates", "i8"),
                ("instruction", f"S{TEXT_BYTES}"),
                ("has_prefix", "?"),
                ("prefix", "f4", self.specs.chunk_shape),
                ("prefix_weight", "f4", (self.specs.horizons.prediction,)),
                ("binds", "?"),
                ("has_past", "?"),
                ("past", "f4", (self.specs.horizons.action_start, self.specs.specs.action.dim)),
                ("observation", observation),
            ]
        )

    @property
    def response(self) -> np.dtype[Any]:
        return np.dtype(
            [
                ("request_id", "i8"),
                ("observation_time_ns", "i8"),
                ("inference_ns", "i8"),
                ("num_candidates", "i8"),
                ("error", f"S{TEXT_BYTES}"),
                ("candidates", "f4", (self.max_candidates, *self.specs.chunk_shape)),
                ("has_values", "?"),
                ("values", "f8", (self.max_candidates,)),
                *((name, "i8") for name in _DECISION),
                ("note", f"S{TEXT_BYTES}"),
            ]
        )

    @property
    def status(self) -> np.dtype[Any]:
        """The worker's signs of life, see ``Status``."""
        names = list(_OFFSETS)
        return np.dtype(
            {
                "names": names,
                "formats": ["i8"] * len(names),
                "offsets": list(_OFFSETS.values()),
                "itemsize": 2 * _LINE,
            }
        )

    @property
    def size(self) -> int:
        """Bytes of the whole segment."""
        return Slot.size(self.request) + Slot.size(self.response) + self.status.itemsize

    @property
    def records(self) -> tuple[np.dtype[Any], ...]:
        """In the order they lie in the segment."""
        return self.request, self.response, self.status

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of every field's name, type, shape and order."""
        description = json.dumps([dtype.descr for dtype in self.records])
        return hashlib.sha256(description.encode()).hexdigest()


class Status(NamedTuple):
    """What a worker lets its parent see of itself.

    Args:
        heartbeat: counts up while the process is alive and scheduled, also while it computes.
        state: ``STARTING`` or ``READY``.
        progress: counts up when a request is begun and when it is answered.
        answered: id of the newest request that was answered, 0 before the first.
        warm_ns: slowest inference of the warm-up, its first left out; 0 where there was none.
    """

    heartbeat: int
    state: int
    progress: int
    answered: int
    warm_ns: int


class Channel:
    """One segment: the parent writes requests, the worker answers and shows that it lives.

    The signs of life are single aligned words, each with one writer, which no reader sees half written;
    so they need neither sequence nor checksum, and looking at them every control tick is cheap.
    """

    def __init__(self, segment: SharedMemory, layout: Layout) -> None:
        self.layout = layout
        assert segment.buf is not None  # open
        self._requests = Slot(segment.buf, 0, layout.request)
        offset = Slot.size(layout.request)
        self._responses = Slot(segment.buf, offset, layout.response)
        offset += Slot.size(layout.response)
        self._buffer, self._status = segment.buf, offset
        self._request_seen = self._response_seen = 0

    def send_request(self, request_id: int, request: Request) -> None:
        if not 1 <= request.num_candidates <= self.layout.max_candidates:
            raise ConfigError(
                f"num_candidates must be 1..{self.layout.max_candidates}, got {request.num_candidates}"
            )
        record = np.zeros((), dtype=self._requests.dtype)
        record["request_id"] = request_id
        record["observation_time_ns"] = request.observation_time_ns
        record["noise_key"] = request.noise_key
        record["num_candidates"] = request.num_candidates
        record["instruction"] = text_bytes(request.instruction)
        record["binds"] = request.binds
        if request.prefix is not None:
            record["has_prefix"] = True
            for name, value in zip(("prefix", "prefix_weight"), request.prefix):
                _fill(record, name, value)
        if request.past is not None:
            record["has_past"] = True
            _fill(record, "past", request.past)
        self.layout.specs.specs.check_observation(request.observation)
        for name in self.layout.specs.specs.observation:
            value, field = request.observation[name], record["observation"][name]
            if value.shape != field.shape:  # numpy would repeat a single observation
                raise ShapeError(f"observation {name!r} must be {field.shape}, got {value.shape}")
            record["observation"][name] = value
        self._requests.write(record)

    def receive_request(self) -> tuple[int, Request] | None:
        """The newest request not yet received."""
        found = self._requests.read(newer_than=self._request_seen)
        if found is None:
            return None
        self._request_seen, record = found
        seed, episode, step = (int(part) for part in record["noise_key"])
        names = self.layout.specs.specs.observation
        return int(record["request_id"]), Request(
            observation={name: record["observation"][name] for name in names},
            observation_time_ns=int(record["observation_time_ns"]),
            noise_key=(seed, episode, step),
            num_candidates=int(record["num_candidates"]),
            instruction=bytes(record["instruction"]).decode(),
            prefix=(record["prefix"], record["prefix_weight"]) if record["has_prefix"] else None,
            binds=bool(record["binds"]),
            past=record["past"] if record["has_past"] else None,
        )

    def send_response(self, response: Response) -> None:
        record = np.zeros((), dtype=self._responses.dtype)
        record["request_id"] = response.request_id
        record["observation_time_ns"] = response.observation_time_ns
        record["inference_ns"] = response.inference_ns
        for name in ("error", "note"):
            record[name] = getattr(response, name).encode("ascii", "replace")[:TEXT_BYTES]
        for name in _DECISION:
            record[name] = getattr(response, name)
        if response.candidates is not None:
            record["num_candidates"] = len(response.candidates)
            record["candidates"][: len(response.candidates)] = response.candidates
            if response.values is not None:
                record["has_values"] = True
                record["values"][: len(response.values)] = response.values
        self._responses.write(record)

    def receive_response(self) -> Response | None:
        """The newest response not yet received."""
        found = self._responses.read(newer_than=self._response_seen)
        if found is None:
            return None
        self._response_seen, record = found
        error, count = bytes(record["error"]).decode("ascii"), int(record["num_candidates"])
        return Response(
            request_id=int(record["request_id"]),
            observation_time_ns=int(record["observation_time_ns"]),
            candidates=None if error else record["candidates"][:count].copy(),  # not the whole record
            inference_ns=int(record["inference_ns"]),
            error=error,
            values=record["values"][:count].copy() if record["has_values"] else None,
            note=bytes(record["note"]).decode("ascii"),
            **{name: int(record[name]) for name in _DECISION},
        )

    def beat(self, count: int) -> None:
        self._put("heartbeat", count)

    def report(self, *, state: int, progress: int, answered: int, warm_ns: int) -> None:
        """All but the heartbeat; ``progress`` last, since it is what tells a reader that there is news."""
        words = {"state": state, "answered": answered, "warm_ns": warm_ns, "progress": progress}
        for name, value in words.items():
            self._put(name, value)

    def status(self) -> Status:
        """The worker's signs of life, all 0 before the first."""
        return Status._make(_STATUS.unpack_from(self._buffer, self._status))

    def _put(self, name: str, value: int) -> None:
        start = self._status + _OFFSETS[name]
        self._buffer[start : start + 8] = value.to_bytes(8, sys.byteorder)  # one store, unlike pack_into


def _fill(record: NDArray[Any], name: str, value: NDArray[Any]) -> None:
    """ShapeError where numpy would repeat a smaller array."""
    if value.shape != record[name].shape:
        raise ShapeError(f"{name} must be {record[name].shape}, got {value.shape}")
    record[name] = value
