"""MJCF of each robot: ROBOT.xml belongs to robopolicy/robots/ROBOT.py and must agree with it."""

from __future__ import annotations

from pathlib import Path

from robopolicy.core.errors import UnknownNameError


def names() -> list[str]:
    """Robots that can be simulated: the MJCF files in this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.xml"))


def mjcf_path(name: str) -> Path:
    """Path of a robot's MJCF; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("simulated robot", name, names())
    return Path(__file__).with_name(f"{name}.xml")
