"""A dataset as one self-contained HTML page: what is in it, how it looks, what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robopolicy.core.errors import MissingDependencyError, StoreError
from robopolicy.datasets.show import sections, thumbs
from robopolicy.datasets.show.facts import gather
from robopolicy.datasets.store import EpisodeStore

OUTCOMES = {True: "success", False: "failure", None: "not judged"}


def write_page(
    store: EpisodeStore,
    output: Path,
    *,
    findings: Iterable[Any] | None = None,
    stats: Mapping[str, Mapping[str, Any]] | None = None,
    max_episodes: int = 200,
) -> None:
    """Write the page; an older one is replaced when the new one is whole.

    Args:
        findings: with ``severity``, ``check``, ``episode``, ``key`` and ``message``; None: nobody looked.
        stats: signal to statistic ("mean", "std", ...) to one number per element, shown as tables.
        max_episodes: table rows, and episodes whose signals are read; evenly spread when there are more.
    Raises:
        MissingDependencyError: jinja2 or pillow is not installed; StoreError: an episode is damaged, or the
        disk refused.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError("pages need jinja2: pip install 'robopolicy[viz]'") from error
    facts = gather(store, max_episodes)
    cameras = thumbs.strips(store, [row.name for row in facts.rows])
    environment = Environment(
        loader=PackageLoader("robopolicy.datasets.show", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("dataset.html").render(
        title=store.where.rstrip("/").rsplit("/", 1)[-1],
        identity=[("version", str(store.version)), ("digest", store.digest)],
        tiles=sections.tiles(store.specs, facts),
        instructions=sections.instructions(facts),
        signals=sections.signal_rows(store.specs, facts),
        lengths=sections.length_histogram(facts),
        dimensions=sections.action_cards(store.specs, facts.action),
        hidden_dimensions=max(store.specs.action.dim - sections.MAX_DIMENSIONS, 0),
        planes=sections.plane_plots(facts),
        cameras=cameras,
        rows=sections.episode_rows(facts),
        total=len(facts.every),
        findings=None if findings is None else sections.finding_rows(list(findings)),
        stats=sections.stats_tables(store.specs, stats or {}),
        metadata=json.dumps(dict(store.metadata), indent=2, default=str),
        outcomes=OUTCOMES,
    )
    try:
        partial = output.with_name(output.name + ".partial")
        partial.write_text(page, encoding="utf-8")
        partial.replace(output)
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror or error}") from error
