"""Copy a foreign dataset into a new store: all of it, or nothing."""

from __future__ import annotations

import dataclasses
import shutil
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from robopolicy.core.errors import ImportFormatError, RunExistsError
from robopolicy.datasets import importers
from robopolicy.datasets.importers.source import ImportOptions, Report
from robopolicy.datasets.store import EpisodeStore


def import_dataset(
    source: Path,
    destination: Path,
    options: ImportOptions | None = None,
    *,
    format: str = "auto",
    console: Console | None = None,
    **store_options: Any,
) -> tuple[EpisodeStore, Report]:
    """Copy ``source`` into a new store; nothing is left behind when it fails.

    Args:
        format: a file name of this package, or "auto".
        store_options: passed to ``EpisodeStore.create``.
    Raises:
        ImportFormatError: damaged, of another format, or incomplete; names file, episode and key.
        RunExistsError: the destination exists.
    """
    if destination.exists():
        raise RunExistsError(f"{destination} already exists; choose another path")
    options = options or ImportOptions()
    name = importers.recognise(source) if format == "auto" else format
    partial = destination.with_name(f".{destination.name}-{uuid.uuid4().hex}")
    with importers.load(name).open_source(source, options) as opened:
        if not len(opened):
            raise ImportFormatError(f"{source}: no episode to import")
        facts = {"source": source.name, "format": name, "report": dataclasses.asdict(opened.report)}
        try:
            store = EpisodeStore.create(partial, opened.specs, facts, **store_options)
            for episode in track(
                opened.episodes(), "importing", len(opened), console=console, transient=True
            ):
                where = f"{source.name}, {episode.name}"
                with store.begin(where=where, journalled=False, background=False, **episode.facts) as writer:
                    for key, blocks in episode.signals.items():
                        for block in blocks:
                            writer.add(key, block)
                    writer.commit()
            store.files.rename(partial, destination)
            store.files.sync_folder(destination.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return EpisodeStore.open(destination), opened.report
