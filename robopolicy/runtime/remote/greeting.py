"""The two small JSON messages that open a connection: what is served, and that it was understood."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from robopolicy.core.errors import RobopolicyError
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.remote.layout import PROTOCOL, WireLayout
from robopolicy.runtime.remote.messages import MessageError
from robopolicy.runtime.remote.shown import shown

MAX_GREETING_BYTES = 1 << 20
_LONGEST = {"version": 80, "digest": 64, "layout": 64, "provider": 200}

T = TypeVar("T")


@dataclass(frozen=True)
class Greeting:
    """The server's first message.

    Args:
        protocol: of the messages that follow.
        version: of robopolicy.
        digest: SHA-256 (hex) of what is served: the bundle's manifest, or a saved policy's weights.
        layout: ``WireLayout.fingerprint``.
        provider: what executes the policy.
    """

    protocol: int
    version: str
    policy_specs: PolicySpecs
    digest: str
    layout: str
    max_batch: int
    max_candidates: int
    provider: str

    def __post_init__(self) -> None:
        _check_texts(self)

    def wire_layout(self) -> WireLayout:
        """The layout as this side derives it; MessageError unless the server's is the same."""
        try:
            layout = WireLayout(self.policy_specs, self.max_batch, self.max_candidates)
        except RobopolicyError as error:
            raise MessageError(f"the greeting cannot be used: {error}") from error
        if layout.fingerprint != self.layout:
            raise MessageError(
                f"robopolicy {self.version} there lays out its messages differently (fingerprint "
                f"{self.layout[:12]}, here {layout.fingerprint[:12]}); install the same release on both sides"
            )
        return layout


@dataclass(frozen=True)
class Reply:
    """The client's answer to a greeting: the same protocol and layout, derived on its own."""

    protocol: int
    version: str
    layout: str

    def __post_init__(self) -> None:
        _check_texts(self)


def _check_texts(message: Greeting | Reply) -> None:
    """They reach logs and terminals: nothing in them may begin a line or move a cursor."""
    for name, longest in _LONGEST.items():
        text = getattr(message, name, "")
        if not isinstance(text, str) or len(text) > longest or not text.isprintable():
            raise MessageError(
                f"{name} must be at most {longest} printable characters, got {shown(text, 40)}"
            )


def dump(message: Greeting | Reply) -> str:
    return json.dumps(to_tree(message))


def parse(cls: type[T], text: object) -> T:
    """Read a ``Greeting`` or ``Reply`` strictly.

    Raises:
        MessageError: not such a message, or another protocol; says which.
    """
    if not isinstance(text, str):
        raise MessageError("a connection opens with a text message, got a binary one")
    if len(text) > MAX_GREETING_BYTES:
        raise MessageError(f"a greeting of {len(text)} characters is above {MAX_GREETING_BYTES}")
    try:
        tree = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"a connection opens with JSON, got {text[:60]!r}") from error
    protocol = tree.get("protocol") if isinstance(tree, dict) else None
    if protocol != PROTOCOL:
        raise MessageError(
            f"the other side speaks protocol {shown(repr(protocol), 40)}, this release {PROTOCOL}"
        )
    try:
        return from_tree(cls, tree)
    except (RobopolicyError, TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"cannot read the {cls.__name__.lower()}: {shown(error)}") from error


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
