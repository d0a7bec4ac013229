"""How robustly formulas hold: the space robustness of Donzé and Maler 2010, many signals at once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from robopolicy.core.geometry import Float
from robopolicy.runtime.reranking.logic.formula import (
    Absolute,
    Always,
    Both,
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

_ARITHMETIC = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}


def robustness(formula: Formula, signals: Mapping[str, Float]) -> Float:
    """By how much a formula holds now: above 0 it does, below 0 it does not.

    At instant t, with x(t) the signals:

        rho(f > g, t)        = f(x(t)) - g(x(t))
        rho(not a, t)        = -rho(a, t)
        rho(a and b, t)      = min(rho(a, t), rho(b, t)); or: max
        rho(always_I a, t)   = min over t' in t + I of rho(a, t'); eventually: max
        rho(a until_I b, t)  = max over t' in t + I of min(rho(b, t'), min over t'' in t..t' of rho(a, t''))

    The left of until holds up to t' itself, as in the source; some tools (rtamt) leave t' out. Where signals
    end, an instant whose window reaches past them has no robustness; without an interval they are its end.

    Args:
        signals: each (steps, ...) of one shape or broadcastable to it, steps > ``formula.horizon``.
    Returns:
        (...) at step 0, in the unit that the predicates share; NaN where a sample it depends on is NaN.
    Source: Donzé and Maler 2010, "Robust satisfaction of temporal logic over real-valued signals", section 3.
    """
    result: Float = _over_time(formula, signals)[0]
    return result


def _over_time(formula: Formula, signals: Mapping[str, Float]) -> Float:
    """(steps - horizon, ...) at every instant that it can be told for."""
    inner = partial(_over_time, signals=signals)
    if isinstance(formula, Predicate):
        gap: Float = np.subtract(_value(formula.more, signals), _value(formula.less, signals))
        return gap
    if isinstance(formula, Not):
        return -inner(formula.of)
    if isinstance(formula, (Always, Eventually)):
        return _window(inner(formula.of), formula.interval, lowest=isinstance(formula, Always))
    left, right = inner(formula.left), inner(formula.right)
    steps = min(len(left), len(right))
    left, right = left[:steps], right[:steps]
    if isinstance(formula, Until):
        return _until(left, right, formula.interval)
    pick = np.minimum if isinstance(formula, Both) else np.maximum
    chosen: Float = pick(left, right)
    return chosen


def _value(number: Numeric, signals: Mapping[str, Float]) -> Float | float:
    if isinstance(number, Number):
        return number.value
    if isinstance(number, Signal):
        return signals[number.name]
    if isinstance(number, Absolute):
        size: Float = np.abs(_value(number.of, signals))
        return size
    pair = _value(number.left, signals), _value(number.right, signals)
    joined: Float = _ARITHMETIC[number.sign](*pair)
    return joined


def _window(values: Float, interval: Interval | None, *, lowest: bool) -> Float:
    pick = np.minimum if lowest else np.maximum
    if interval is None:
        to_the_end: Float = pick.accumulate(values[::-1], axis=0)[::-1]
        return to_the_end
    steps = len(values) - interval.last
    result: Float = values[interval.first : interval.first + steps]
    for offset in range(interval.first + 1, interval.last + 1):
        result = pick(result, values[offset : offset + steps])
    return result


def _until(left: Float, right: Float, interval: Interval | None) -> Float:
    first, last = (interval.first, interval.last) if interval else (0, len(left) - 1)
    steps = len(left) - (last if interval else 0)
    best: Float = np.full((steps, *np.broadcast_shapes(left.shape[1:], right.shape[1:])), -np.inf)
    held = np.full_like(best, np.inf)
    for offset in range(last + 1):
        rows = min(steps, len(left) - offset)  # without an interval, later instants have shorter windows
        held[:rows] = np.minimum(held[:rows], left[offset : offset + rows])
        if offset >= first:
            best[:rows] = np.maximum(best[:rows], np.minimum(held[:rows], right[offset : offset + rows]))
    return best
