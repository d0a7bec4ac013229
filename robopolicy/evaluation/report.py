"""A self-contained HTML page: figures, plots and videos inside one file."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robopolicy.core.errors import MissingDependencyError

SCALE = 1.25  # CSS pixels per unit of a drawing


@dataclass(frozen=True)
class Figure:
    """A drawing of ``plots`` with a caption, which is also what a screen reader says."""

    svg: str
    caption: str

    @property
    def width(self) -> int:
        """On a wide screen, so that the text of every drawing has one size [px]."""
        return round(float(self.svg.split('"', 2)[1].split()[2]) * SCALE)


@dataclass(frozen=True)
class Video:
    """An MP4 with a caption."""

    path: Path
    caption: str

    @property
    def data(self) -> str:
        return base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Section:
    """A heading with text, a table, pictures and videos, in this order."""

    title: str
    text: str = ""
    rows: list[tuple[str, str]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)


def write_report(
    path: Path,
    title: str,
    lead: str,
    tiles: list[tuple[str, str, bool]],
    sections: list[Section],
    footer: str,
) -> None:
    """Render the page.

    Args:
        tiles: (label, value, whether the target is met) shown large at the top.
    """
    page = render("report.html", title=title, lead=lead, tiles=tiles, sections=sections, footer=footer)
    write_page(path, page)


def render(template: str, **values: Any) -> str:
    """A page from one of ``templates/``; whatever it shows is escaped unless marked as drawn here.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError("reports need jinja2: pip install 'robopolicy[viz]'") from error
    environment = Environment(
        loader=PackageLoader("robopolicy.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def write_page(path: Path, page: str) -> None:
    """Replace a page, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
