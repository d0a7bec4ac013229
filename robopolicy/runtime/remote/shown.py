"""What the other side wrote, fit for a log and a terminal."""

from __future__ import annotations


def shown(text: object, limit: int = 200) -> str:
    """One line of at most ``limit`` characters; newlines, escapes and the like as ``repr`` shows them."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."
