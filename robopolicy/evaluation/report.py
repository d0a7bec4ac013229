"""A self-contained HTML page: figures, plots and videos inside one file."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

from robopolicy.core.errors import MissingDependencyError


@dataclass(frozen=True)
class Figure:
    """A picture with a caption."""

    png: bytes
    caption: str

    @property
    def data(self) -> str:
        return base64.b64encode(self.png).decode()


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
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError("reports need jinja2: pip install 'robopolicy[viz]'") from error
    loader = PackageLoader("robopolicy.evaluation", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html").render(
        title=title, lead=lead, tiles=tiles, sections=sections, footer=footer
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
