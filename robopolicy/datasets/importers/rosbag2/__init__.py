"""ROS 2 bags (.mcap, .db3; a file, a folder with metadata.yaml, or a folder of bags) without ROS.

A mapping says which topics and fields are what, see ``mappings/rosbag2_fr3.yaml``. Observations keep their
rates; actions define the policy steps. One bag is one episode unless the mapping cuts it. Source of the
layouts: https://mcap.dev/spec and rosbag2's sqlite3 schema, both as read by the ``rosbags`` library.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy.datasets.importers import MAPPINGS
from robopolicy.datasets.importers.rosbag2.files import METADATA, find_bags, holds_storage, is_storage
from robopolicy.datasets.importers.rosbag2.mapping import load_mapping
from robopolicy.datasets.importers.source import ImportOptions

if TYPE_CHECKING:
    from robopolicy.datasets.importers.rosbag2.source import BagSource


def matches(path: Path) -> bool:
    """A storage file, or a folder that holds some or whose folders do."""
    if not path.is_dir():
        return is_storage(path)
    if (path / METADATA).is_file() or holds_storage(path):
        return True
    return any(holds_storage(child) for child in path.iterdir() if child.is_dir())


@contextlib.contextmanager
def open_source(path: Path, options: ImportOptions) -> Iterator[BagSource]:
    """Survey the bags of ``path`` and offer their episodes.

    Args:
        options: ``mapping`` is required; ``without`` names topics.
    Raises:
        ImportFormatError: no bag, a damaged one, or one that does not hold what the mapping names.
        ConfigError, SpecError, UnknownNameError: the mapping is at fault.
        MissingDependencyError: the rosbags library is not installed.
    """
    try:
        from robopolicy.datasets.importers.rosbag2 import source as bags
        from robopolicy.datasets.importers.rosbag2.survey import without
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"ROS bags need {error.name}: pip install 'robopolicy[formats]'"
        ) from error
    found = find_bags(path)
    if options.mapping is None:
        raise ConfigError(_what_to_map(found))
    mapping = load_mapping(options.mapping)
    source = bags.BagSource(found, without(mapping, options.without), options, str(path))
    try:
        yield source
    finally:
        source.close()


def _what_to_map(found: list[Path]) -> str:
    from robopolicy.datasets.importers.rosbag2.bag import Bag

    with Bag(found[0]) as bag:
        listing = "".join(f"\n  {topic}  {kind}" for topic, kind in bag.topics.items()) or " none"
    shipped = sorted(p.stem for p in MAPPINGS.glob("rosbag2_*.yaml"))
    return f"ROS bags need a mapping, a YAML file or one of {shipped}; topics in {found[0].name}:{listing}"
