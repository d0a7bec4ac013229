"""LeRobot datasets v2.1 (a file per episode and camera) and v3.0 (many episodes per file).

Layout: ``meta/`` describes, ``data/`` holds the rows as parquet, ``videos/`` the cameras as mp4 (AV1, H.264).
LeRobot says neither units nor what an action means; a mapping does, or ``report.guessed`` lists the guesses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from robopolicy.core.errors import MissingDependencyError
from robopolicy.datasets.importers.source import ImportOptions, Source


def matches(path: Path) -> bool:
    """A folder with ``meta/info.json``."""
    return (path / "meta" / "info.json").is_file()


@contextlib.contextmanager
def open_source(path: Path, options: ImportOptions) -> Iterator[Source]:
    """An opened dataset; every file's header is checked before the first episode is read.

    Raises:
        ImportFormatError: damaged, incomplete or of another version; names file, episode and key.
        UnknownNameError: ``options.without`` or the mapping's name is not known.
        MissingDependencyError: no ``pyarrow`` or no ``av``.
    """
    try:  # not above: other formats are imported where neither is installed
        from robopolicy.datasets.importers.lerobot.checks import check_sources
        from robopolicy.datasets.importers.lerobot.layout import read_layout
        from robopolicy.datasets.importers.lerobot.mapping import make_plan
        from robopolicy.datasets.importers.lerobot.source import LeRobotSource
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"LeRobot datasets need pyarrow and av (no {error.name}): pip install 'robopolicy[formats]'"
        ) from error
    layout = read_layout(path)
    plan = make_plan(layout, options)
    episodes = check_sources(layout, plan, options)
    with contextlib.closing(LeRobotSource(layout, plan, episodes)) as source:
        yield source
