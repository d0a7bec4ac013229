"""Frames of foreign arrays as our signals: what a mapping makes of shape, dtype and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError, NonFiniteValueError
from robopolicy.core.geometry import matrix_from_quat_wxyz, rotation_6d_from_matrix
from robopolicy.core.specs import ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.importers._boundary import IMAGE_BLOCK, STATE_BLOCK
from robopolicy.datasets.importers.mapping import CONVERSIONS, ActionPiece, Mapping, ObservationMap
from robopolicy.datasets.importers.source import Report

Shape = tuple[int, ...]
#: Name of each source array to its shape, frames first, and dtype.
Headers = dict[str, tuple[Shape, np.dtype[Any]]]


def describe(mapping: Mapping, arrays: Headers, report: Report) -> None:
    """Write into the report what the mapping uses, leaves out and converts."""
    report.mapped.update({name: part.source for name, part in mapping.observation.items()})
    pieces = mapping.action.pieces
    report.mapped["action"] = " + ".join(piece.source for piece in pieces)
    report.ignored.extend(sorted(set(arrays) - set(mapping.sources)))
    report.guessed.append(f"times: frame index / {mapping.rate} Hz; the source has none")
    if mapping.action.ahead:
        report.guessed.append(f"action: {report.mapped['action']}, {mapping.action.ahead} frame(s) later")
    for name, part in mapping.observation.items():
        dtype = arrays[part.source][1]
        if part.kind == "image" and dtype != np.uint8:
            report.converted.append(f"{name}: {dtype} 0..255 to uint8, checked equal")
        if part.kind == "depth" and dtype != np.uint16:
            report.converted.append(f"{name}: metres to millimetres, rounded")
        if part.convert:
            report.converted.append(f"{name}: {part.convert}")
    report.converted += [f"action: {piece.source} {piece.convert}" for piece in pieces if piece.convert]
    wide = sorted({piece.source for piece in pieces if arrays[piece.source][1] != np.float32})
    report.converted += [f"action: {name} {arrays[name][1]} to float32" for name in wide]


def rotation_6d_from_axis_angle(axis_angle: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 3) rotation vectors [rad] -> (..., 6), the first two columns of each rotation matrix."""
    vector = np.asarray(axis_angle, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    half = 0.5 * np.sinc(angle / (2 * np.pi))  # sin(angle / 2) / angle, 1/2 at 0
    return rotation_6d_from_matrix(
        matrix_from_quat_wxyz(np.concatenate([np.cos(angle / 2), half * vector], axis=-1))
    )


def make_specs(mapping: Mapping, arrays: Headers, where: str, group: str = "") -> Specs:
    """Specs of what a mapping makes of these source arrays.

    Args:
        arrays: name of each source array to its shape, frames first, and dtype.
        where, group: file and folder in it, for messages.
    Raises:
        ImportFormatError: an array is missing, not of numbers, or too narrow for the mapping.
    """
    missing = [name for name in mapping.sources if name not in arrays]
    if missing:
        raise ImportFormatError(f"{where} has no {', '.join(missing)}; it has {sorted(arrays)}")
    for name in mapping.sources:
        if arrays[name][1].kind not in "biuf" or not arrays[name][0]:
            raise ImportFormatError(
                f"{where}: {group}{name} is {arrays[name][1]} {arrays[name][0]}, not frames of numbers"
            )
    observation = {
        key: _observation_spec(part, *arrays[part.source], f"{where}: {group}{part.source}")
        for key, part in mapping.observation.items()
    }
    action = ActionSpec(mapping.action.parts, mapping.action.reached)
    width = sum(_width(p, arrays[p.source][0], f"{where}: {group}{p.source}") for p in mapping.action.pieces)
    if width != action.dim:
        names = ", ".join(p.source for p in mapping.action.pieces)
        raise ImportFormatError(
            f"{where}: {group}{names} has {width} per frame, the mapping says {action.dim}"
        )
    return Specs(observation, action, mapping.rate, mapping.robot)


def _observation_spec(part: ObservationMap, shape: Shape, dtype: np.dtype[Any], where: str) -> ArraySpec:
    width = _width(part, shape, where)
    name = {"image": "uint8", "depth": "uint16"}.get(part.kind, "float32" if part.convert else dtype.name)
    return ArraySpec((*shape[1:-1], width), name, part.units, part.names, part.kind, part.angles)


def _width(part: ObservationMap | ActionPiece, shape: Shape, where: str) -> int:
    """Of the last axis after columns and conversion; a plain list of numbers is one column."""
    if isinstance(part, ActionPiece) and len(shape) > 2:
        raise ImportFormatError(f"{where} has frames of {shape[1:]}; an action's are a list of numbers")
    columns = shape[-1] if len(shape) > 1 else 1
    if any(not 0 <= column < columns for column in part.columns):
        raise ImportFormatError(f"{where} has {columns} columns, the mapping says {part.columns}")
    before, after = CONVERSIONS[part.convert]
    width = len(part.columns) or columns
    if part.convert and width != before:
        raise ImportFormatError(f"{where}: {part.convert} takes {before} columns, not {width}")
    return after if part.convert else width


def observation_values(
    part: ObservationMap, values: NDArray[Any], where: str, first: int = 0
) -> NDArray[Any]:
    """What the mapping makes of raw frames.

    Args:
        values: (count, ...) as the source has them.
        where, first: the signal and the number of its first frame here, for messages.
    Raises:
        NonFiniteValueError: NaN in an image; ImportFormatError: a pixel that is no whole number in 0..255.
    """
    values = _select(part, values)
    if part.kind == "image" and values.dtype != np.uint8:
        return _pixels(values, where, first)
    if part.kind == "depth" and values.dtype != np.uint16:
        return _millimetres(values, where, first)
    return values


def action_values(pieces: tuple[ActionPiece, ...], values: list[NDArray[Any]]) -> NDArray[np.float32]:
    """(count, action_dim) from the raw frames of each piece; too large for float32 becomes infinite."""
    with np.errstate(over="ignore"):  # the store refuses infinity by episode and frame
        chosen = [_select(piece, v).astype(np.float32, copy=False) for piece, v in zip(pieces, values)]
    return np.concatenate(chosen, axis=-1) if len(chosen) > 1 else chosen[0]


def _select(part: ObservationMap | ActionPiece, values: NDArray[Any]) -> NDArray[Any]:
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.ndim == 1:
        values = values[:, None]
    if part.columns:
        values = values[..., list(part.columns)]
    if part.convert:
        with np.errstate(all="ignore"):  # NaN stays NaN, and the store refuses it by episode and frame
            values = rotation_6d_from_axis_angle(values).astype(np.float32)
    return values


def _pixels(values: NDArray[Any], where: str, first: int) -> NDArray[np.uint8]:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise NonFiniteValueError(f"{where}, frame {first + int(np.argmin(finite))}: non-finite pixel")
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        raise ImportFormatError(f"{where}: image values are not whole numbers in 0..255")
    pixels = values.astype(np.uint8)
    if not np.array_equal(pixels, values):
        raise ImportFormatError(f"{where}: image values are not whole numbers in 0..255")
    return pixels


def _millimetres(values: NDArray[Any], where: str, first: int) -> NDArray[np.uint16]:
    """Metres to millimetres; not finite is "no reading", 0 (REP-118)."""
    if values.dtype.kind != "f":
        raise ImportFormatError(
            f"{where}: depth is uint16 millimetres or floats in metres, not {values.dtype}"
        )
    metres = np.where(np.isfinite(values), values, 0).astype(np.float64)
    outside = ((metres < 0) | (metres >= 65.5355)).reshape(len(values), -1).any(axis=1)
    if outside.any():
        frame = first + int(np.argmax(outside))
        raise ImportFormatError(f"{where}, frame {frame}: depth outside 0 to 65.535 m")
    return np.round(metres * 1000).astype(np.uint16)


def blocks(
    count: int, rate: float, read: Callable[[int, int], NDArray[Any]], kind: str = "state"
) -> Iterator[Signal]:
    """``count`` frames as timed blocks; ``read(first, last)`` gives the values of that range.

    Times are frame index / rate [ns], rounded.
    """
    size = STATE_BLOCK if kind == "state" else IMAGE_BLOCK
    for first in range(0, count, size):
        last = min(first + size, count)
        time_ns = np.round(np.arange(first, last) * (1e9 / rate)).astype(np.int64)
        yield Signal(read(first, last), time_ns)
