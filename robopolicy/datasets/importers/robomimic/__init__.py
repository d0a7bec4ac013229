"""robomimic's HDF5, and robosuite's own, which has states and actions only.

Layout: ``data/demo_N/{obs,next_obs}/KEY`` and ``data/demo_N/{actions,rewards,dones,states}``.

Source: https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError, ImportFormatError, ShapeError
from robopolicy.datasets.importers._boundary import choose_episodes, foreign, leave_out
from robopolicy.datasets.importers._frames import Headers, describe, make_specs
from robopolicy.datasets.importers.mapping import Mapping, load_mapping
from robopolicy.datasets.importers.robomimic import hdf5
from robopolicy.datasets.importers.robomimic.demo import Demo
from robopolicy.datasets.importers.robomimic.layout import derive, mapping_of_specs, own_specs
from robopolicy.datasets.importers.source import ImportOptions, Report, SourceEpisode

SUFFIXES = (".hdf5", ".h5")
NAME = re.compile(r"demo_(\d{1,9})")


def matches(path: Path) -> bool:
    """A file called ``.hdf5`` or ``.h5``."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


@contextlib.contextmanager
def open_source(path: Path, options: ImportOptions) -> Iterator[Robomimic]:
    """Open a robomimic or robosuite file. Mappings name arrays relative to a demonstration: ``obs/object``.

    Raises:
        ImportFormatError: damaged, incomplete, or of another layout; names the demonstration and the array.
        ShapeError: arrays of one demonstration disagree in length; ConfigError: a mapping is needed.
    """
    with hdf5.open_hdf5(path) as file:
        yield Robomimic(file, path, options)


class Robomimic:
    """A Source; see ``source.Source``."""

    def __init__(self, file: Any, path: Path, options: ImportOptions) -> None:
        self._path, self._where = path, str(path)
        data = hdf5.child(file, "data", self._where)
        found = _ordered(hdf5.names(data, f"{path}: data") if data is not None else [], self._where)
        chosen = [found[i] for i in choose_episodes(len(found), options, self._where)]
        demos = [Demo(hdf5.child(data, name, self._where), name, self._where) for name in chosen]
        environment = self._environment(data)
        first = demos[0].headers()
        self.report = Report()
        self._mapping = self._choose_mapping(first, environment, options)
        self.specs = make_specs(self._mapping, first, f"{self._where}, {chosen[0]}")
        self._masks = self._read_masks(file, set(found))
        self._demos = self._complete(demos, first, options)
        self._sparse = self._has_sparse_rewards()
        self._fill_report(first)
        if options.mapping is None and own_specs(environment, self._where) is None:
            self._check_normalised()

    def __len__(self) -> int:
        return len(self._demos)

    def episodes(self) -> Iterator[SourceEpisode]:
        for demo in self._demos:
            facts = {
                "instruction": demo.instruction() or self._mapping.instruction,
                "success": bool(demo.rewards().max() >= 1) if self._sparse else None,
                "clock": "frame_index",
                "metadata": {"source_episode": demo.name, "masks": self._masks.get(demo.name, [])},
            }
            yield SourceEpisode(demo.name, demo.signals(self._mapping), facts)

    def _environment(self, data: Any) -> dict[str, Any]:
        where = f"{self._where}: data"
        environment = hdf5.json_attribute(data, "env_args", where)
        if environment is not None:
            return environment
        keyword = hdf5.json_attribute(data, "env_info", where)  # robosuite's own
        return {} if keyword is None else {"type": 1, "env_kwargs": keyword}

    def _choose_mapping(
        self, headers: Headers, environment: dict[str, Any], options: ImportOptions
    ) -> Mapping:
        kept = {name: header for name, header in headers.items() if name not in options.without}
        if options.mapping is not None:
            mapping = load_mapping(options.mapping)
        elif (specs := own_specs(environment, self._where)) is not None:
            mapping = mapping_of_specs(specs)
        else:
            mapping, self.report.guessed = derive(
                {**kept, "actions": headers["actions"]}, environment, self._where
            )
        return leave_out(mapping, options, list(headers))

    def _complete(self, demos: list[Demo], first: Headers, options: ImportOptions) -> list[Demo]:
        """Those with all that the mapping asks for; others are refused, or left out when asked."""
        kept = []
        for demo in demos:
            try:
                demo.check(self._mapping, first)
            except (ImportFormatError, ShapeError) as error:
                if not options.skip_missing:
                    raise
                self.report.missing.append(str(error))
            else:
                kept.append(demo)
        return kept

    def _has_sparse_rewards(self) -> bool:
        """Whether rewards are 0 and 1 only, with a 1 somewhere: robosuite's sign of success."""
        rewards = [demo.rewards() for demo in self._demos]
        ones = any(len(values) and values.max() == 1 for values in rewards)
        sparse = ones and all(len(values) and np.isin(values, (0, 1)).all() for values in rewards)
        if sparse:
            self.report.guessed.append("success: the sparse reward reached 1")
        return sparse

    def _check_normalised(self) -> None:
        """Derived actions are controller inputs in -1..1; whatever exceeds that is something else."""
        for demo in self._demos:
            actions = demo.array("actions")
            if np.abs(actions.read(0, len(actions))).max() > 1 + 1e-6:
                raise ConfigError(
                    f"{actions.where} exceed -1..1, so are no normalised controller inputs: give --mapping"
                )

    def _read_masks(self, file: Any, known: set[str]) -> dict[str, list[str]]:
        """Filter keys (train, valid, ...) of each demonstration."""
        masks: dict[str, list[str]] = {}
        group = hdf5.child(file, "mask", self._where)
        for mask in [] if group is None else hdf5.names(group, f"{self._where}: mask"):
            where = f"{self._where}: mask/{mask}"
            with foreign(where):
                dataset = group[mask]
                if not hasattr(dataset, "shape") or dataset.size > len(known):
                    raise ImportFormatError(f"{where} is no list of at most {len(known)} demonstrations")
                members = [
                    bytes(name).decode() if isinstance(name, bytes) else str(name) for name in dataset[:]
                ]
            for name in members:
                masks.setdefault(name, []).append(mask)
            strangers = sorted(set(members) - known)
            if strangers:
                self.report.missing.append(f"mask/{mask} names {strangers}, which are not in the file")
        return masks

    def _fill_report(self, headers: Headers) -> None:
        describe(self._mapping, headers, self.report)
        for name, part in self._mapping.observation.items():
            if self._demos and self._demos[0].last_observation(part.source):
                self.report.mapped[name] += f" and the last of next_{part.source}"
        extra = {f"extra/{ours}": theirs for theirs, ours in Demo.EXTRA.items() if theirs in headers}
        self.report.mapped.update(extra)
        self.report.ignored = sorted(set(self.report.ignored) - set(extra.values()))


def _ordered(names: list[str], where: str) -> list[str]:
    """Demonstrations by number, demo_2 before demo_10."""
    strange = [name for name in names if not NAME.fullmatch(name)]
    if strange or not names:
        what = f"holds {strange[:3]}" if strange else "is absent or empty"
        raise ImportFormatError(
            f"{where} is no robomimic or robosuite file: data {what}, not demo_0, demo_1, ..."
        )
    numbers = [int(name.removeprefix("demo_")) for name in names]
    if len(set(numbers)) < len(numbers):
        raise ImportFormatError(f"{where}: two demonstrations have the same number: {sorted(names)}")
    return [name for _, name in sorted(zip(numbers, names))]
