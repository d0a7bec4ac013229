"""One name per number of a signal, and which observation measures what an action commands."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from robopolicy.core.specs import ArraySpec, Specs

LENGTHS = ("m", "px")


def labels(shape: tuple[int, ...], names: tuple[str, ...] = ()) -> list[str]:
    """A distinct name for every element of one sample, in C order.

    Args:
        shape: of one sample; () for a scalar.
        names: of the last axis, may be empty: indices stand for them.
    Returns:
        "joint1" for a vector, "2.x" for row 2 of a (rows, 2) array.
    """
    if not shape:
        return ["value"]
    last = list(names) if names else [str(i) for i in range(shape[-1])]
    if len(set(last)) != len(last):  # specs allow equal names; entities and table rows must differ
        last = [f"{name}_{i}" for i, name in enumerate(last)]
    leading = [range(size) for size in shape[:-1]]
    return [".".join([*map(str, index), name]) for index in itertools.product(*leading) for name in last]


def units(spec: ArraySpec) -> list[str]:
    """The unit of every element of one sample, in C order; "" where the spec gives none."""
    last = spec.units if spec.kind == "state" and spec.units else ("",) * spec.shape[-1]
    count = 1
    for size in spec.shape[:-1]:
        count *= size
    return list(last) * count


def measured_by(specs: Specs) -> dict[str, str]:
    """Action name to the observation key that has a dimension of the same name and unit.

    An increment, or a position relative to the observation, cannot share an axis with a measurement, so those
    are left out. Where several observations qualify ("x" of the hand and of the cube), the one called like
    the action space is taken, else the smallest.
    """
    found = {}
    for part in specs.action.parts:
        if part.reference != "absolute":
            continue
        for name, unit in zip(part.names, part.units):
            fitting = [
                (key != part.space, spec.shape[-1], key)
                for key, spec in specs.observation.items()
                if spec.kind == "state"
                and len(spec.shape) == 1
                and (name, unit) in zip(spec.names, spec.units)
            ]
            if fitting:
                found[name] = min(fitting)[2]
    return found


@dataclass(frozen=True)
class Plane:
    """Two columns of an observation's last axis that are a position in a plane.

    Args:
        title: for people.
        unit: "m" or "px"; in "px" y counts downwards.
    """

    key: str
    columns: tuple[int, int]
    title: str
    unit: str


def planes(specs: Specs) -> list[Plane]:
    """Every x, y pair of lengths among the states: by name ("x" "y", "a_x" "a_y"), else the first two."""
    found = []
    for key, spec in specs.observation.items():
        if spec.kind != "state" or len(spec.units) < 2:
            continue
        pairs = [
            (i, spec.names.index(name[:-1] + "y"))
            for i, name in enumerate(spec.names)
            if name.endswith("x") and name[:-1] + "y" in spec.names
        ]
        for i, j in pairs if spec.names else [(0, 1)]:
            if spec.units[i] == spec.units[j] and spec.units[i] in LENGTHS:
                stem = spec.names[i][:-1].strip("_.-") if spec.names else ""
                found.append(Plane(key, (i, j), f"{key}: {stem}" if stem else key, spec.units[i]))
    return found
