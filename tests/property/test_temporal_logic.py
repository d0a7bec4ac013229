"""Robustness: the fast path is the definition, it says truly what holds, and text means what it says."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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
    is_open,
    signals_of,
)
from robopolicy.runtime.reranking.logic.parse import parse
from robopolicy.runtime.reranking.logic.robustness import robustness
from robopolicy.runtime.reranking.logic.tokens import WORDS

LONGEST = 4  # last step of an interval
NAMES = ("x", "tool.z", "observation.force.0")
KNOWN = dict.fromkeys(NAMES, "")

numbers = st.floats(-9, 9).map(Number)
signals = st.sampled_from(NAMES).map(Signal)
intervals = st.none() | st.tuples(st.integers(0, LONGEST), st.integers(0, LONGEST)).map(
    lambda pair: Interval(min(pair), max(pair))
)
numerics = st.recursive(
    signals | st.builds(Arithmetic, st.just("*"), numbers, signals),
    lambda inner: (
        st.builds(Absolute, inner)
        | st.builds(Arithmetic, st.sampled_from("+-"), inner, inner | numbers)
        | st.builds(Arithmetic, st.just("/"), inner, st.sampled_from([Number(2.0), Number(0.3)]))
    ),
    max_leaves=3,
)
predicates = st.builds(Predicate, numerics, numbers | signals) | st.builds(Predicate, numbers, numerics)
formulas = st.recursive(
    predicates,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Both, inner, inner)
        | st.builds(Either, inner, inner)
        | st.builds(Always, inner, intervals)
        | st.builds(Eventually, inner, intervals)
        | st.builds(Until, inner, inner, intervals)
    ),
    max_leaves=5,
)
seeds = st.integers(0, 2**32 - 1)


def motion(formula: Formula, seed: int, more: int = 3) -> dict[str, np.ndarray]:
    """Signals of (steps, 2, 3), some of them the same for all candidates; rounded, so that ties happen."""
    rng, steps = np.random.default_rng(seed), formula.horizon + 1 + seed % more
    made = {name: np.round(rng.normal(size=(steps, 2, 3)) * 3, int(rng.integers(0, 3))) for name in NAMES}
    return {**made, NAMES[2]: np.broadcast_to(made[NAMES[2]][:1, :, :1], (steps, 2, 1))}


def number_at(number: Numeric, x: dict[str, list[float]], t: int) -> float:
    if isinstance(number, Number):
        return number.value
    if isinstance(number, Signal):
        return x[number.name][t]
    if isinstance(number, Absolute):
        return abs(number_at(number.of, x, t))
    left, right = number_at(number.left, x, t), number_at(number.right, x, t)
    return {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right}.get(
        number.sign, lambda: left / right
    )()


def window(formula: Formula, t: int, steps: int) -> range:
    """The instants of a formula's interval, from t."""
    if formula.interval is not None:
        return range(t + formula.interval.first, t + formula.interval.last + 1)
    inner = [getattr(formula, name) for name in ("of", "left", "right") if hasattr(formula, name)]
    return range(t, steps - max(part.horizon for part in inner))


def rho(formula: Formula, x: dict[str, list[float]], t: int, steps: int) -> float:
    """Robustness of one candidate at one instant, by the definition: Donzé and Maler 2010, section 3."""
    if isinstance(formula, Predicate):
        return number_at(formula.more, x, t) - number_at(formula.less, x, t)
    if isinstance(formula, Not):
        return -rho(formula.of, x, t, steps)
    if isinstance(formula, Both):
        return min(rho(formula.left, x, t, steps), rho(formula.right, x, t, steps))
    if isinstance(formula, Either):
        return max(rho(formula.left, x, t, steps), rho(formula.right, x, t, steps))
    if isinstance(formula, Always):
        return min(rho(formula.of, x, s, steps) for s in window(formula, t, steps))
    if isinstance(formula, Eventually):
        return max(rho(formula.of, x, s, steps) for s in window(formula, t, steps))
    return max(
        min(
            rho(formula.right, x, s, steps),
            min(rho(formula.left, x, before, steps) for before in range(t, s + 1)),
        )
        for s in window(formula, t, steps)
    )


def holds(formula: Formula, x: dict[str, list[float]], t: int, steps: int) -> bool:
    """Boolean satisfaction, by the definition: Maler and Nickovic 2004."""
    if isinstance(formula, Predicate):
        return number_at(formula.more, x, t) > number_at(formula.less, x, t)
    if isinstance(formula, Not):
        return not holds(formula.of, x, t, steps)
    if isinstance(formula, Both):
        return holds(formula.left, x, t, steps) and holds(formula.right, x, t, steps)
    if isinstance(formula, Either):
        return holds(formula.left, x, t, steps) or holds(formula.right, x, t, steps)
    if isinstance(formula, Always):
        return all(holds(formula.of, x, s, steps) for s in window(formula, t, steps))
    if isinstance(formula, Eventually):
        return any(holds(formula.of, x, s, steps) for s in window(formula, t, steps))
    return any(
        holds(formula.right, x, s, steps)
        and all(holds(formula.left, x, before, steps) for before in range(t, s + 1))
        for s in window(formula, t, steps)
    )


def each(x: dict[str, np.ndarray]) -> dict[tuple[int, int], dict[str, list[float]]]:
    """Signals of every candidate, alone."""
    return {
        (row, i): {name: np.broadcast_to(v, (len(v), 2, 3))[:, row, i].tolist() for name, v in x.items()}
        for row, i in np.ndindex(2, 3)
    }


def judge(formula: Formula, x: dict[str, np.ndarray]) -> np.ndarray:
    return np.broadcast_to(robustness(formula, x), (2, 3))


@given(formulas, seeds)
@settings(deadline=None)
def test_the_fast_path_is_the_definition(formula: Formula, seed: int) -> None:
    x = motion(formula, seed)
    values, steps = judge(formula, x), len(x["x"])
    for at, alone in each(x).items():
        assert values[at] == rho(formula, alone, 0, steps)


@given(formulas, seeds)
@settings(deadline=None)
def test_its_sign_says_whether_the_formula_holds(formula: Formula, seed: int) -> None:
    x = motion(formula, seed)
    values, steps = judge(formula, x), len(x["x"])
    for at, alone in each(x).items():
        if values[at] != 0:
            assert holds(formula, alone, 0, steps) == (values[at] > 0)


def only_signals(name: str, bound: float) -> Predicate:
    return Predicate(Signal(name), Number(bound))


plain = st.recursive(
    st.builds(only_signals, st.sampled_from(NAMES), st.floats(-5, 5)),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Both, inner, inner)
        | st.builds(Always, inner, intervals)
        | st.builds(Until, inner, inner, intervals)
    ),
    max_leaves=5,
)


@given(plain, seeds, st.floats(0.01, 0.99))
@settings(deadline=None)
def test_no_smaller_change_of_the_signals_changes_whether_it_holds(
    f: Formula, seed: int, share: float
) -> None:
    x = motion(f, seed)
    values, rng = judge(f, x), np.random.default_rng(seed)
    for at, alone in each(x).items():
        room = share * abs(float(values[at]))
        moved = {n: [v + room * rng.uniform(-1, 1) for v in values_] for n, values_ in alone.items()}
        if room > 1e-9:
            steps = len(x["x"])
            assert holds(f, moved, 0, steps) == holds(f, alone, 0, steps)


@given(formulas, formulas, intervals, seeds)
@settings(deadline=None)
def test_dualities(a: Formula, b: Formula, interval: Interval | None, seed: int) -> None:
    longest = Until(a, b, interval)
    x = motion(longest, seed)
    for left, right in (
        (Not(Both(a, b)), Either(Not(a), Not(b))),
        (Not(Either(a, b)), Both(Not(a), Not(b))),
        (Not(Always(a, interval)), Eventually(Not(a), interval)),
        (Not(Not(a)), a),
    ):
        np.testing.assert_array_equal(judge(left, x), judge(right, x))
    true = Predicate(Number(math.inf), Signal("x"))
    cut = {name: v[: b.horizon + (interval.last if interval else 2) + 1] for name, v in x.items()}
    np.testing.assert_array_equal(judge(Until(true, b, interval), cut), judge(Eventually(b, interval), cut))


@given(formulas, seeds, seeds)
@settings(deadline=None)
def test_a_bounded_formula_looks_no_further_than_its_horizon(f: Formula, seed: int, other: int) -> None:
    x = motion(f, seed, more=1)
    rng = np.random.default_rng(other)
    longer = {name: np.concatenate([v, rng.normal(size=(3, *v.shape[1:]))]) for name, v in x.items()}
    if not is_open(f):
        np.testing.assert_array_equal(judge(f, x), judge(f, longer))
    shuffled = {name: v if name in signals_of(f) else v[::-1] * 7 + 1 for name, v in x.items()}
    np.testing.assert_array_equal(judge(f, x), judge(f, shuffled))


def text_of(part: Formula | Numeric) -> str:
    """With every pair of parentheses, and times in seconds at 10 Hz."""
    if isinstance(part, Number):
        return repr(part.value)
    if isinstance(part, Signal):
        return part.name
    if isinstance(part, Absolute):
        return f"abs({text_of(part.of)})"
    if isinstance(part, Arithmetic):
        return f"({text_of(part.left)} {part.sign} {text_of(part.right)})"
    if isinstance(part, Predicate):
        return f"{text_of(part.less)} < {text_of(part.more)}"
    if isinstance(part, Not):
        return f"not ({text_of(part.of)})"
    if isinstance(part, (Both, Either)):
        return f"({text_of(part.left)}) {'and' if isinstance(part, Both) else 'or'} ({text_of(part.right)})"
    times = part.interval and f"[{part.interval.first / 10}, {part.interval.last / 10}]"
    if isinstance(part, Until):
        return f"({text_of(part.left)}) until{times or ''} ({text_of(part.right)})"
    return f"{type(part).__name__.lower()}{times or ''} ({text_of(part.of)})"


@given(formulas, seeds)
@settings(deadline=None)
def test_text_means_what_it_says(formula: Formula, seed: int) -> None:
    x = motion(formula, seed)
    read = parse(text_of(formula), signals=KNOWN, policy_rate=10.0, last=len(x["x"]) - 1)
    assert read.horizon == formula.horizon
    np.testing.assert_array_equal(judge(read, x), judge(formula, x))


words = st.sampled_from(
    [*WORDS, *NAMES, *"()[],<>+-*/!&|", "<=", "->", "==", "0.2", "1e3", "'x'", "é", "#", " "]
)


@given(st.text(max_size=40) | st.lists(words, max_size=25).map(" ".join) | st.lists(words).map("".join))
def test_any_text_is_a_formula_or_a_typed_error(text: str) -> None:
    try:
        formula = parse(text, signals=KNOWN, policy_rate=10.0, last=6)
    except ConfigError as error:
        assert str(error).startswith("formula, character ")
    else:
        assert signals_of(formula) <= set(NAMES) and formula.horizon <= 6
