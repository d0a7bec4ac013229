"""Time series of one real-time episode as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 420, 128
LEFT, RIGHT, TOP, BOTTOM = 54, 6, 6, 18
LANE = 16
_DETAIL = 0.25  # units of the drawing: a point nearer to the line than this cannot be seen


@dataclass(frozen=True)
class Span:
    """Seconds from ``start`` to ``stop``."""

    start: float
    stop: float


def spans(seconds: NDArray[Any], active: NDArray[np.bool_], tick_s: float) -> list[Span]:
    """Runs of ticks, each lasting to the next tick's deadline; (n,) and (n,)."""
    edges = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return [Span(float(seconds[a]), float(seconds[b]) + tick_s) for a, b in zip(starts, stops)]


def series(
    seconds: NDArray[Any],
    command: NDArray[Any],
    reference: NDArray[Any],
    shaded: Sequence[Span],
    joins: Sequence[float],
) -> str:
    """One joint: the command as a broad line, the reference thin on top of it, (n,) each.

    Args:
        shaded: times of interventions.
        joins: times at which a chunk was taken up, as marks along the time axis [s].
    """
    end = max(float(seconds[-1]), 1e-9)
    both = np.concatenate([command, reference])
    low, high = float(both.min()), float(both.max())
    margin = max(0.05 * (high - low), 1e-4)
    low, high = low - margin, high + margin

    def x(values: Any) -> Any:
        return LEFT + np.asarray(values) / end * (WIDTH - LEFT - RIGHT)

    def y(values: Any) -> Any:
        return TOP + (high - np.asarray(values)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    floor = HEIGHT - BOTTOM
    parts = [_shade(span, x, TOP, floor) for span in shaded]
    for value in (low + margin, high - margin):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text x="{LEFT - 4}" y="{y(value) + 3.5:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    marks = "".join(f"M{x(time):.1f} {floor}v-6" for time in joins)
    parts.append(f'<path class="join" d="{marks}"/>')
    parts.append(_time_axis(end, x, floor))
    for name, values in (("command", command), ("reference", reference)):
        parts.append(f'<polyline class="{name}" points="{_points(x(seconds), y(values))}"/>')
    return f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'


def lanes(rows: Sequence[tuple[str, Sequence[Span]]], end: float) -> str:
    """One line for each reason, with bars where it was active."""
    end, left = max(end, 1e-9), 110
    floor = LANE * len(rows) + 2

    def x(value: Any) -> Any:
        return left + np.asarray(value) / end * (2 * WIDTH - left - RIGHT)

    parts = []
    for place, (name, found) in enumerate(rows):
        top = place * LANE + 3
        parts.append(f'<path class="grid" d="M{left} {top + 5}H{2 * WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{left - 6}" y="{top + 9}" text-anchor="end">{_escape(name)}</text>')
        parts += [_bar(span, x, top) for span in found]
    parts.append(_time_axis(end, x, floor, count=9))
    return f'<svg class="lanes" viewBox="0 0 {2 * WIDTH} {floor + BOTTOM}">{"".join(parts)}</svg>'


def _shade(span: Span, x: Any, top: float, floor: float) -> str:
    width = max(float(x(span.stop) - x(span.start)), 1.0)  # one tick must be seen
    return (
        f'<rect class="shade" x="{x(span.start):.1f}" y="{top}" width="{width:.1f}" height="{floor - top}"/>'
    )


def _bar(span: Span, x: Any, top: float) -> str:
    width = max(float(x(span.stop) - x(span.start)), 1.5)
    return f'<rect class="bar" x="{x(span.start):.1f}" y="{top}" width="{width:.1f}" height="10"/>'


def _time_axis(end: float, x: Any, floor: float, count: int = 5) -> str:
    step = next(s * 10.0**e for e in range(-3, 6) for s in (1, 2, 5) if end / (s * 10.0**e) <= count)
    times = np.arange(0.0, end + 1e-9, step)
    labels = "".join(
        f'<text x="{x(time):.1f}" y="{floor + 13}" text-anchor="middle">{_short(float(time))}</text>'
        for time in times
        if end - time > 0.06 * end or time == 0
    )
    line = f"M{x(0.0):.1f} {floor}H{x(end):.1f}" + "".join(f"M{x(t):.1f} {floor}v3" for t in times)
    last = f'<text x="{x(end):.1f}" y="{floor + 13}" text-anchor="end">{_short(end)} s</text>'
    return f'<path class="axis" d="{line}"/>{labels}{last}'


def _points(x: NDArray[Any], y: NDArray[Any]) -> str:
    kept = _visible(x, y)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[kept], y[kept]))


def _visible(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the points that make a difference to the eye.

    Source: Douglas and Peucker 1973, with vertical distances, since x grows.
    """
    keep = np.zeros(len(x), dtype=np.bool_)
    keep[[0, -1]] = True
    pending = [(0, len(x) - 1)]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        inner = slice(first + 1, last)
        slope = (y[last] - y[first]) / max(float(x[last] - x[first]), 1e-12)
        distance = np.abs(y[inner] - y[first] - slope * (x[inner] - x[first]))
        worst = int(distance.argmax())
        if distance[worst] > _DETAIL:
            middle = first + 1 + worst
            keep[middle] = True
            pending += [(first, middle), (middle, last)]
    return np.flatnonzero(keep)


def _short(value: float) -> str:
    """At most seven characters, for the margin."""
    tiny = 0 < abs(value) < 1e-3
    text = f"{value:.1e}".replace("e-0", "e-") if tiny else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
