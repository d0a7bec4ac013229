"""Formulas from text. Nothing is evaluated: a recursive descent over words.

    always[0, 0.8] tool.z > 0.05
    eventually[0, 1] (abs(tool.x - 0.5) < 0.02 and gripper < 0.01)
    (not fr3_joint4 > -0.5) until[0.2, 1] gripper < 0.01

From weakest to strongest: implies (->), or (|), and (&), until[a, b], then not (!), always[a, b] and
eventually[a, b], which take only what stands directly behind them, then comparisons (<, <=, >, >=, also
chained), then + -, * / and abs(). What is compared is linear in signals and in magnitudes of such terms.

Times are seconds from the instant that the formula around it is about, at the outermost from now; without an
interval, as far as the chunk lets it be told. Names with other characters stand in single quotes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from robopolicy.core.errors import ConfigError
from robopolicy.runtime.reranking.logic.formula import (
    Absolute,
    Always,
    Arithmetic,
    Both,
    Either,
    Eventually,
    Formula,
    Interval,
    Not,
    Number,
    Numeric,
    Predicate,
    Signal,
    Until,
)
from robopolicy.runtime.reranking.logic.tokens import Text, Token

_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_NUMERIC = (Number, Signal, Arithmetic, Absolute)
_MOST_WORDS, _DEEPEST = 400, 40
_ROUNDING = 1e-6  # steps, of times that are meant to fall on one


def parse(text: str, *, signals: Mapping[str, str], policy_rate: float, last: int) -> Formula:
    """A formula on steps from its text in seconds.

    Args:
        signals: names it may be about, each with "" or with why it cannot be.
        policy_rate: steps per second [Hz].
        last: the last step that signals have, counted from now.
    Raises:
        ConfigError: it is not a formula, names another signal or looks further ahead; shows the place, and
            what was expected.
    """
    return _Parser(text, signals, policy_rate, last).whole()


class _Parser:
    """One method for each strength; each gives a formula or a number, and the one around it checks which."""

    def __init__(self, text: str, signals: Mapping[str, str], policy_rate: float, last: int) -> None:
        self._text, self._signals, self._rate, self._last = Text(text), signals, policy_rate, last
        self._tokens, self._place, self._depth = self._text.tokens(), 0, 0
        if len(self._tokens) > _MOST_WORDS:
            raise self._text.error(f"longer than {_MOST_WORDS} words", self._tokens[_MOST_WORDS].at)

    def whole(self) -> Formula:
        formula = self._condition(self._implies())
        if self._now.kind != "end":
            raise self._error(f"expected and, or, implies, until or the end, got {self._now}")
        if formula.horizon > self._last:
            raise self._error(
                f"it looks {self._seconds(formula.horizon)} s ahead altogether, the chunk reaches "
                f"{self._seconds(self._last)} s",
                self._tokens[0],
            )
        return formula

    def _implies(self) -> Formula | Numeric:
        left = self._either()
        if self._take("implies") is None:
            return left
        with self._deeper():
            return Either(Not(self._condition(left)), self._condition(self._implies()))

    def _either(self) -> Formula | Numeric:
        left = self._both()
        while self._now.kind == "or":
            left = Either(self._condition(left), self._next(self._both))
        return left

    def _both(self) -> Formula | Numeric:
        left = self._until()
        while self._now.kind == "and":
            left = Both(self._condition(left), self._next(self._until))
        return left

    def _until(self) -> Formula | Numeric:
        left = self._unary()
        if self._now.kind != "until":
            return left
        left = self._condition(left)
        self._take("until")
        interval = self._interval()
        result = Until(left, self._condition(self._unary()), interval)
        if self._now.kind == "until":
            raise self._error("until does not chain: put one of the two in parentheses")
        return result

    def _unary(self) -> Formula | Numeric:
        word = self._take("not", "always", "eventually")
        if word is None:
            return self._comparison()
        interval = None if word.kind == "not" else self._interval()
        with self._deeper():
            of = self._condition(self._unary())
        if word.kind == "not":
            return Not(of)
        return Always(of, interval) if word.kind == "always" else Eventually(of, interval)

    def _interval(self) -> Interval | None:
        if self._take("[") is None:
            return None
        first, start = self._time()
        self._expect(",", "between the times of an interval")
        last, stop = self._time()
        self._expect("]", "after the times of an interval")
        if not first <= last:
            raise self._error(f"an interval ends after it begins, got [{first:g}, {last:g}]", start)
        steps = Interval(math.ceil(first * self._rate - _ROUNDING), math.floor(last * self._rate + _ROUNDING))
        if steps.last > self._last:
            raise self._error(
                f"{last:g} s is past the chunk, which reaches {self._seconds(self._last)} s", stop
            )
        if steps.first > steps.last:
            raise self._error(
                f"no action falls into [{first:g}, {last:g}] s: there is one every {1 / self._rate:g} s",
                start,
            )
        return steps

    def _time(self) -> tuple[float, Token]:
        token = self._expect("number", "of seconds")
        return self._finite(token), token

    def _comparison(self) -> Formula | Numeric:
        start, left = self._now, self._sum()
        found: Formula | None = None
        while sign := self._take("<", "<=", ">", ">="):
            right = self._numeric(self._sum)
            left = self._number(left, start)
            pair = (left, right) if sign.kind in (">", ">=") else (right, left)
            if isinstance(left, Number) and isinstance(right, Number):
                raise self._error("a comparison without a signal is always the same", start)
            found = Both(found, Predicate(*pair)) if found else Predicate(*pair)
            left = right
        if self._now.kind in ("==", "!="):
            raise self._error(
                "motion never meets a number exactly: write abs(x - y) < tolerance, or > tolerance"
            )
        return found or left

    def _sum(self) -> Formula | Numeric:
        start, left = self._now, self._product()
        while sign := self._take("+", "-"):
            left = _joined(sign.kind, self._number(left, start), self._numeric(self._product))
        return left

    def _product(self) -> Formula | Numeric:
        start, left = self._now, self._signed()
        while sign := self._take("*", "/"):
            place, left = self._now, self._number(left, start)
            right = self._numeric(self._signed)
            divides, constant = sign.kind == "/", isinstance(right, Number)
            if (divides and (not constant or right == Number(0.0))) or not (
                constant or isinstance(left, Number)
            ):
                raise self._error("signals are multiplied and divided by numbers only, and not by 0", place)
            left = _joined(sign.kind, left, right)
        return left

    def _signed(self) -> Formula | Numeric:
        sign = self._take("-", "+")
        if sign is None:
            return self._primary()
        with self._deeper():
            of = self._numeric(self._signed)
        return _joined("-", Number(0.0), of) if sign.kind == "-" else of

    def _primary(self) -> Formula | Numeric:
        token = self._take("number", "name", "(", "abs")
        if token is None:
            raise self._error(f"expected a number, a signal or '(', got {self._now}")
        if token.kind == "number":
            return Number(self._finite(token))
        if token.kind == "name":
            return self._signal(token)
        with self._deeper():
            if token.kind == "abs":
                self._expect("(", "after abs")
                of: Formula | Numeric = Absolute(self._numeric(self._sum))
            else:
                of = self._implies()
        self._expect(")", f"to close the one at character {token.at + 1}")
        return of

    @property
    def _now(self) -> Token:
        return self._tokens[self._place]

    def _take(self, *kinds: str) -> Token | None:
        """The next word if it is one of these, and on to the one after."""
        if self._now.kind not in kinds:
            return None
        self._place += 1
        return self._tokens[self._place - 1]

    def _expect(self, kind: str, where: str) -> Token:
        token = self._take(kind)
        if token is None:
            raise self._error(f"expected {kind!r} {where}, got {self._now}")
        return token

    def _next(self, rule: Callable[[], Formula | Numeric]) -> Formula:
        """What follows the word here, as a condition."""
        self._place += 1
        return self._condition(rule())

    def _condition(self, found: Formula | Numeric) -> Formula:
        if isinstance(found, _NUMERIC):
            raise self._error(f"expected <, <=, > or >= behind a number or signal, got {self._now}")
        return found

    def _numeric(self, rule: Callable[[], Formula | Numeric]) -> Numeric:
        start = self._now
        return self._number(rule(), start)

    def _number(self, found: Formula | Numeric, start: Token) -> Numeric:
        if not isinstance(found, _NUMERIC):
            raise self._error("expected a number or a signal, not a condition", start)
        return found

    def _signal(self, token: Token) -> Signal:
        refused = self._signals.get(token.text)
        if refused is None:
            known = ", ".join(name for name, why in self._signals.items() if not why)
            raise self._text.error(f"unknown signal {token.text!r}", token.at, f"known: {known}")
        if refused:
            raise self._error(f"{token.text!r} {refused}", token)
        return Signal(token.text)

    def _finite(self, token: Token) -> float:
        if not math.isfinite(float(token.text)):
            raise self._error(f"{token.text} is too large a number", token)
        return float(token.text)

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"nested more than {_DEEPEST} deep")
        yield
        self._depth -= 1

    def _error(self, said: str, token: Token | None = None) -> ConfigError:
        return self._text.error(said, (token or self._now).at)

    def _seconds(self, steps: int) -> str:
        return f"{steps / self._rate:g}"


def _joined(sign: str, left: Numeric, right: Numeric) -> Numeric:
    """Two numbers are one; a signal keeps them apart."""
    if isinstance(left, Number) and isinstance(right, Number):
        return Number(_ARITHMETIC[sign](left.value, right.value))
    return Arithmetic(sign, left, right)
