"""The words of a formula, and errors that show where."""

from __future__ import annotations

import re
from dataclasses import dataclass

from robopolicy.core.errors import ConfigError

WORDS = ("not", "and", "or", "implies", "until", "always", "eventually", "abs")
#: Other ways to write them.
_SYMBOLS = {"!": "not", "&": "and", "&&": "and", "|": "or", "||": "or", "->": "implies", "=>": "implies"}
_PATTERN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<name>[^\W\d]\w*(?:\.\w+)*)
    | (?P<quoted>'[^']*')
    | (?P<mark><=|>=|==|!=|->|=>|&&|\|\||[-+*/<>()\[\],!&|])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    """One word.

    Args:
        kind: "number", "name", "end", or the word or mark itself.
        text: as it was written, a quoted name without its quotes.
        at: index of its first character.
    """

    kind: str
    text: str
    at: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


class Text:
    """A formula's text."""

    def __init__(self, text: str) -> None:
        self._text = " ".join(text.split())  # one line, so that a mark below it can point

    def error(self, said: str, at: int, more: str = "") -> ConfigError:
        """ConfigError that shows the place."""
        shown = f"formula, character {at + 1}: {said}\n  {self._text}\n  {' ' * at}^"
        return ConfigError(f"{shown}\n{more}" if more else shown)

    def tokens(self) -> list[Token]:
        """All words, "end" last; ConfigError for a character that begins none."""
        found, at = [], 0
        while at < len(self._text):
            match = _PATTERN.match(self._text, at)
            if match is None:
                at += self._text[at] == " "
                raise self.error(f"{self._text[at]!r} is no part of a formula", at)
            kind, text = str(match.lastgroup), match[str(match.lastgroup)]
            if kind == "quoted":
                kind, text = "name", text[1:-1]
            elif kind == "mark" or text in WORDS:
                kind = _SYMBOLS.get(text, text)
            found.append(Token(kind, text, match.start(str(match.lastgroup))))
            at = match.end()
        return [*found, Token("end", "", len(self._text))]
