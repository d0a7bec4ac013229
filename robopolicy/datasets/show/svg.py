"""Small plots as inline SVG: coloured by the page's style sheet, and so in light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import MissingDependencyError

MAX_MARKS = 400  # start and end points in one plot; beyond that they hide one another


def number(value: float) -> str:
    """Three significant digits, as short as they go."""
    return f"{value:.3g}"


def bars(counts: Sequence[int] | NDArray[np.int64], width: int = 160, height: int = 48) -> str:
    """A histogram without axes, one path: (bins,) counts, the tallest reaches the top."""
    top = max(int(max(counts)), 1)
    step = width / len(counts)
    path = "".join(
        f"M{place * step:.1f} {height}v{-max(count / top * height, 1):.1f}h{max(step - 1, 1):.1f}V{height}z"
        for place, count in enumerate(counts)
        if count
    )
    return (
        f'<svg class="bars" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img">'
        f'<path d="{path}"/></svg>'
    )


def line(values: NDArray[np.floating], width: int = 120, height: int = 22) -> str:
    """A sparkline of (count,) values in 0..1."""
    if len(values) < 2:
        return ""
    across = np.linspace(0, width, len(values))
    down = height - 1 - np.clip(values, 0, 1) * (height - 2)
    points = " ".join(f"{x:.0f},{y:.1f}" for x, y in zip(across, down))
    return (
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-hidden="true"><polyline points="{points}"/></svg>'
    )


def density(
    points: NDArray[np.floating],
    starts: NDArray[np.floating],
    ends: NDArray[np.floating],
    *,
    y_down: bool,
    bins: int = 56,
) -> str:
    """Where positions were, with where each episode began (rings) and ended (dots); both axes to one scale.

    Args:
        points: (count, 2), starts, ends: (episodes, 2) x and y, in one unit.
        y_down: y grows downwards, as in images.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    span = float(max((high - low).max(), 1e-6))
    low, high = low - 0.03 * span, high + 0.03 * span
    extent = np.maximum(high - low, 0.15 * float((high - low).max()))
    low = (low + high - extent) / 2
    cell = float(extent.max()) / bins
    across, up = np.maximum(np.ceil(extent / cell).astype(int), 1)
    columns = np.clip(((points - low) / cell).astype(int), 0, (across - 1, up - 1))
    counts = np.zeros((up, across))
    np.add.at(counts, (columns[:, 1], columns[:, 0]), 1)
    picture = _heat(counts if y_down else counts[::-1])
    width, height = 280.0, 280.0 * up / across
    if height > 280:
        width, height = 280.0 * across / up, 280.0
    scale = width / (across * cell)

    def place(position: NDArray[np.floating]) -> tuple[float, float]:
        x, y = (position - low) * scale
        return float(x), float(y if y_down else height - y)

    marks = []
    for kind, positions, radius in (("start", starts, 2.6), ("end", ends, 1.8)):
        for x, y in map(place, positions[:MAX_MARKS]):
            marks.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')
    return (
        f'<svg class="density" viewBox="-1 -1 {width + 2:.0f} {height + 2:.0f}" '
        f'style="max-width:{width:.0f}px" role="img">'
        f'<image href="data:image/png;base64,{picture}" width="{width:.1f}" height="{height:.1f}" '
        f'preserveAspectRatio="none"/><rect class="frame" width="{width:.1f}" height="{height:.1f}"/>'
        f"{''.join(marks)}</svg>"
    )


def _heat(counts: NDArray[np.floating]) -> str:
    """(rows, columns) counts as a PNG of one colour; opacity is logarithmic. Base64."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("pictures need pillow: pip install 'robopolicy[viz]'") from error
    strength = np.log1p(counts) / max(float(np.log1p(counts).max()), 1e-9)
    pixels = np.zeros((*counts.shape, 4), np.uint8)
    pixels[..., :3] = (47, 129, 247)
    pixels[..., 3] = np.where(counts > 0, 40 + 215 * strength, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
