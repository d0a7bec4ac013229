"""The records on the wire, derived by both sides from the policy's specs; their fingerprint is compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.serial import to_tree
from robopolicy.core.specs import PolicySpecs

PROTOCOL = 1
TEXT_BYTES = 512  # of an instruction, here and in shared memory
ERROR_BYTES = 1024
#: Longest wait for an answer [s]. ``WorkerClient`` waits 1.25 times as long: a silent server is reported as
#: one, not as a hung worker.
REQUEST_TIMEOUT_S = 0.4
#: Of one message, whatever the specs say: a server's greeting must not make a robot reserve all its memory.
MAX_MESSAGE_BYTES = 1 << 28
#: Booleans, integers and floats. Objects and texts would need a parser, long doubles differ by machine.
_KINDS, _WIDEST = "biuf", 8

REQUEST_HEADER = np.dtype(
    [
        ("magic", "S4"),
        ("layout", "u1", (32,)),
        ("request_id", "<u8"),
        ("batch", "<u4"),
        ("candidates", "<u4"),
        ("has_instruction", "u1"),
        ("has_prefix", "u1"),
    ]
)
RESPONSE_HEADER = np.dtype(
    [
        ("magic", "S4"),
        ("layout", "u1", (32,)),
        ("request_id", "<u8"),
        ("batch", "<u4"),
        ("candidates", "<u4"),
        ("inference_ns", "<u8"),
        ("error", f"S{ERROR_BYTES}"),
    ]
)


@dataclass(frozen=True)
class WireLayout:
    """What a request and an answer consist of, to the byte.

        request:  header, batch rows, batch * candidates noises
        answer:   header, batch * candidates chunks

    Args:
        specs: of the policy.
        max_batch, max_candidates: most of one request; with the specs they bound every message.
    Raises:
        ConfigError: a limit below 1, a dtype that does not travel, or messages beyond ``MAX_MESSAGE_BYTES``.
    """

    specs: PolicySpecs
    max_batch: int
    max_candidates: int

    def __post_init__(self) -> None:
        if min(self.max_batch, self.max_candidates) < 1:
            raise ConfigError(
                f"max_batch and max_candidates must be >= 1, got {self.max_batch} and {self.max_candidates}"
            )
        for name, spec in self.specs.specs.observation.items():
            dtype = np.dtype(spec.dtype)
            if dtype.kind not in _KINDS or dtype.itemsize > _WIDEST:
                raise ConfigError(f"observation {name!r} has dtype {spec.dtype}, which cannot be sent")
        largest = max(self.max_request_bytes, self.max_response_bytes)
        if largest > MAX_MESSAGE_BYTES:
            raise ConfigError(
                f"messages of up to {largest} bytes are above {MAX_MESSAGE_BYTES}; lower max_batch "
                f"({self.max_batch}) or max_candidates ({self.max_candidates})"
            )

    @cached_property
    def row(self) -> np.dtype[Any]:
        """One observation window and what goes with it."""
        horizon = self.specs.horizons.observation
        observation = [
            (name, np.dtype(spec.dtype).newbyteorder("<"), (horizon, *spec.shape))
            for name, spec in self.specs.specs.observation.items()
        ]
        prefix = [
            ("prefix", "<f4", self.specs.chunk_shape),
            ("prefix_weight", "<f4", self.specs.chunk_shape[:1]),
        ]
        return np.dtype(
            [
                ("instruction", f"S{TEXT_BYTES}"),
                *(prefix if self.specs.takes_prefix else []),
                ("observation", observation),
            ]
        )

    @cached_property
    def noise(self) -> np.dtype[Any]:
        return np.dtype(("<f4", self.specs.noise_shape))

    @cached_property
    def chunk(self) -> np.dtype[Any]:
        return np.dtype(("<f4", self.specs.chunk_shape))

    def request_bytes(self, batch: int, candidates: int) -> int:
        return REQUEST_HEADER.itemsize + batch * (self.row.itemsize + candidates * self.noise.itemsize)

    def response_bytes(self, batch: int, candidates: int) -> int:
        return RESPONSE_HEADER.itemsize + batch * candidates * self.chunk.itemsize

    @property
    def max_request_bytes(self) -> int:
        return self.request_bytes(self.max_batch, self.max_candidates)

    @property
    def max_response_bytes(self) -> int:
        return self.response_bytes(self.max_batch, self.max_candidates)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the specs and of every field's name, type, shape and order."""
        records = [dtype.descr for dtype in (REQUEST_HEADER, self.row, RESPONSE_HEADER)]
        description = json.dumps([PROTOCOL, to_tree(self.specs), records])
        return hashlib.sha256(description.encode()).digest()

    @property
    def fingerprint(self) -> str:
        return self.digest.hex()


def text_bytes(text: str) -> bytes:
    """An instruction in UTF-8; ConfigError when it does not fit."""
    data = text.encode()
    if len(data) > TEXT_BYTES or b"\0" in data:
        raise ConfigError(f"an instruction has at most {TEXT_BYTES} bytes and no zero: {text!r}")
    return data
