"""Message definitions: those a bag carries, else ROS's own, else the texts here and in the mapping."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from robopolicy.core.errors import ConfigError, ImportFormatError

#: Not among rosbags' standard messages; the same in every ROS 2 distribution.
SHIPPED = {"control_msgs/msg/GripperCommand": "float64 position\nfloat64 max_effort\n"}
_IDL_MARK = "=" * 80 + "\n"
#: rosbags unrolls fixed arrays of texts and messages into code; no real message comes near.
_MAX_UNROLLED = 10_000


@dataclass(frozen=True)
class Decoder:
    """Reads the messages of one topic."""

    msgtype: str
    store: Typestore

    def __call__(self, raw: bytes) -> Any:
        """The message object; whatever rosbags raises, or ValueError where bytes are missing or left over."""
        if len(raw) < 4:
            raise ValueError(f"{len(raw)} bytes are no CDR message")
        definition = self.store.get_msgdef(self.msgtype)
        decode = definition.deserialize_cdr_le if raw[1] & 1 else definition.deserialize_cdr_be
        message, used = decode(raw[4:], 0, definition.cls, self.store)
        if not used <= len(raw) - 4 <= used + 3:  # CDR pads to 4 bytes
            raise ValueError(f"{len(raw) - 4} bytes where {self.msgtype} needs {used}")
        return message

    @property
    def has_header(self) -> bool:
        """Whether the message begins with a std_msgs/Header, as ROS stamps its data."""
        fields = self.store.fielddefs[self.msgtype][1]
        return bool(fields) and fields[0][1] == (Nodetype.NAME, "std_msgs/msg/Header")

    def header_ns(self, raw: bytes) -> int:
        """Unix time of the header [ns] without decoding the rest; struct.error or IndexError when cut off."""
        seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
        if seconds < 0 or nanoseconds >= 1_000_000_000:
            raise ValueError(f"header stamp of {seconds} s and {nanoseconds} ns")
        return int(seconds) * 1_000_000_000 + int(nanoseconds)


def make_decoder(
    msgtype: str, carried: MessageDefinition, distro: str, definitions: Mapping[str, str], where: str
) -> Decoder:
    """A decoder for one message type, from the definition its bag carries if there is one.

    Raises:
        ImportFormatError: nobody defines the type; ConfigError: an unknown distribution.
    """
    if carried.format == MessageDefinitionFormat.NONE:
        store = _standard_store(distro)
        for name, text in {**SHIPPED, **definitions}.items():
            types = get_types_from_msg(text, name)
            store.register({key: value for key, value in types.items() if key not in store.fielddefs})
    else:
        store = get_typestore(Stores.EMPTY)
        if carried.data.startswith(f"{_IDL_MARK}IDL: "):
            for part in carried.data.split(_IDL_MARK)[1:]:
                store.register(get_types_from_idl(part.partition("\n")[2]))
        else:
            store.register(get_types_from_msg(carried.data, msgtype))
    if msgtype not in store.fielddefs:
        raise ImportFormatError(
            f"{where}: unknown message type {msgtype}, which the bag does not define; put its .msg "
            f"text under `definitions` in the mapping"
        )
    _refuse_unrolling(store, where)
    store.get_msgdef(msgtype)  # finds nested types that are not defined
    return Decoder(msgtype, store)


def _standard_store(distro: str) -> Typestore:
    known = {store.value.removeprefix("ros2_"): store for store in Stores if store.value.startswith("ros2_")}
    if distro not in known:
        raise ConfigError(f"distro {distro!r} is not one of {sorted(known)}")
    return get_typestore(known[distro])


def _refuse_unrolling(store: Typestore, where: str) -> None:
    for name, (_, fields) in store.fielddefs.items():
        for field, description in fields:
            if description[0] == Nodetype.ARRAY and description[1][1] > _MAX_UNROLLED:
                raise ImportFormatError(
                    f"{where}: {name}.{field} is a fixed array of {description[1][1]} elements"
                )
