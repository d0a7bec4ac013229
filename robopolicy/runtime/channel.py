"""Requests, answers and heartbeats between a control loop and its worker, over shared memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.client import Request, Response
from robopolicy.runtime.slot import Slot

_TEXT_BYTES = 512
STARTING, READY = 0, 1


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
                ("error", f"S{_TEXT_BYTES}"),
                ("candidates", "f4", (self.max_candidates, *self.specs.chunk_shape)),
            ]
        )

    @property
    def heartbeat(self) -> np.dtype[Any]:
        return np.dtype([("count", "i8"), ("state", "i8")])

    @property
    def size(self) -> int:
        """Bytes of the whole segment."""
        return sum(Slot.size(dtype) for dtype in self.records)

    @property
    def records(self) -> tuple[np.dtype[Any], ...]:
        """In the order they lie in the segment."""
        return self.request, self.response, self.heartbeat

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of every field's name, type, shape and order."""
        description = json.dumps([dtype.descr for dtype in self.records])
        return hashlib.sha256(description.encode()).hexdigest()


class Channel:
    """Three slots in one segment: the parent writes requests, the worker answers and heartbeats."""

    def __init__(self, segment: SharedMemory, layout: Layout) -> None:
        self.layout = layout
        assert segment.buf is not None  # open
        slots, offset = [], 0
        for dtype in layout.records:
            slots.append(Slot(segment.buf, offset, dtype))
            offset += Slot.size(dtype)
        self._requests, self._responses, self._heartbeats = slots
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
        )

    def send_response(self, response: Response) -> None:
        record = np.zeros((), dtype=self._responses.dtype)
        record["request_id"] = response.request_id
        record["observation_time_ns"] = response.observation_time_ns
        record["inference_ns"] = response.inference_ns
        record["error"] = response.error.encode("ascii", "replace")[:_TEXT_BYTES]
        if response.candidates is not None:
            record["num_candidates"] = len(response.candidates)
            record["candidates"][: len(response.candidates)] = response.candidates
        self._responses.write(record)

    def receive_response(self) -> Response | None:
        """The newest response not yet received."""
        found = self._responses.read(newer_than=self._response_seen)
        if found is None:
            return None
        self._response_seen, record = found
        error = bytes(record["error"]).decode("ascii")
        return Response(
            request_id=int(record["request_id"]),
            observation_time_ns=int(record["observation_time_ns"]),
            candidates=None if error else record["candidates"][: int(record["num_candidates"])],
            inference_ns=int(record["inference_ns"]),
            error=error,
        )

    def beat(self, count: int, state: int) -> None:
        self._heartbeats.write(np.array((count, state), dtype=self._heartbeats.dtype))

    def heartbeat(self) -> tuple[int, int]:
        """(count, state); count 0 before the first, -1 while one is being written."""
        found = self._heartbeats.read()
        if found is None:
            return (0 if self._heartbeats.sequence == 0 else -1), STARTING
        return int(found[1]["count"]), int(found[1]["state"])
