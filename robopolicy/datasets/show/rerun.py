"""Episodes in the Rerun viewer or in a ``.rrd`` file, one recording per episode."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from robopolicy.core.errors import ConfigError, MissingDependencyError, StoreError
from robopolicy.datasets.show import viewer
from robopolicy.datasets.store import EpisodeStore


def log_store(store: EpisodeStore, names: Iterable[str], sink: Path | None) -> list[str]:
    """Show episodes in Rerun.

    Memory holds the states of one episode and a few frames of one camera at a time; joining many episodes
    in one file is ``_merge``'s matter.

    Args:
        names: episodes, as in ``store.names``.
        sink: the ``.rrd`` file to write, replaced whole when it exists; None opens the viewer, which listens
            on 127.0.0.1 only and stays open.
    Returns:
        what could not be shown, one line per signal.
    Raises:
        MissingDependencyError: rerun-sdk is not installed; ConfigError: another suffix, or the viewer did not
        start; StoreError: no such episode, a damaged one, or the disk refused.
    """
    _require_rerun()
    chosen = list(names)
    for name in chosen:
        store.entry(name)
    if not chosen:
        raise StoreError(f"{store.where}: no episode named; it has {len(store)}")
    if sink is None:
        return _show(store, chosen, viewer.start_viewer().url)
    if sink.suffix != ".rrd":
        raise ConfigError(f"{sink}: Rerun files end in .rrd")
    try:
        return _save(store, chosen, sink)
    except OSError as error:
        raise StoreError(f"cannot write {sink}: {error.strerror or error}") from error


def _require_rerun() -> None:
    try:
        import rerun  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("the viewer needs rerun-sdk: pip install 'robopolicy[view]'") from error


def _show(store: EpisodeStore, names: list[str], url: str) -> list[str]:
    from robopolicy.datasets.show import rerun_episode

    hidden: list[str] = []
    for place, name in enumerate(names):
        with rerun_episode.recording(store, name) as recording:
            recording.connect_grpc(url)
            hidden += rerun_episode.log(recording, store, name, with_layout=place == 0)
    return list(dict.fromkeys(hidden))


def _save(store: EpisodeStore, names: list[str], sink: Path) -> list[str]:
    """Rerun's file sink holds one recording, so every episode is a file first."""
    from robopolicy.datasets.show import rerun_episode

    hidden: list[str] = []
    with tempfile.TemporaryDirectory(prefix=f".{sink.stem}-", dir=sink.parent) as folder:
        parts = []
        for place, name in enumerate(names):
            parts.append(Path(folder) / f"{place}.rrd")
            with rerun_episode.recording(store, name) as recording:  # leaving it writes the file's index
                recording.save(parts[-1])
                hidden += rerun_episode.log(recording, store, name, with_layout=place == 0)
        whole = _merge(parts, Path(folder) / "all.rrd") if len(parts) > 1 else parts[0]
        whole.replace(sink)
    return list(dict.fromkeys(hidden))


def _merge(parts: list[Path], whole: Path) -> Path:
    """All recordings in one indexed file. Rerun holds them in memory meanwhile, as the viewer will.

    ``rerun rrd route`` would stream, but loses the index or panics on such files (rerun-sdk 0.41.0).
    """
    command = [*viewer.command_line(), "rrd", "merge", *map(str, parts), "-o", str(whole)]
    environment = {**os.environ, **viewer.ENVIRONMENT}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise StoreError(f"rerun could not join {len(parts)} episodes: {done.stderr.strip()[-300:]}")
    return whole
