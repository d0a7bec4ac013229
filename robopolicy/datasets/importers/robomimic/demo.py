"""One demonstration of a robomimic file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError, ShapeError
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.importers._frames import Headers, action_values, blocks, observation_values
from robopolicy.datasets.importers._windows import FrameArray
from robopolicy.datasets.importers.mapping import Mapping, ObservationMap
from robopolicy.datasets.importers.robomimic import hdf5

Read = Callable[[int, int], NDArray[Any]]


class Demo:
    """Arrays are named relative to the demonstration: "actions", "obs/object".

    Raises:
        ImportFormatError: it is no group, or has no actions.
    """

    #: Arrays that no policy sees, and our names for them.
    EXTRA: ClassVar[dict[str, str]] = {"rewards": "reward", "dones": "done"}

    def __init__(self, group: Any, name: str, where: str) -> None:
        self.name, self._group = name, group
        self._where = f"{where}, {name}"
        self._names = hdf5.tree_names(group, self._where)  # names only: a file may hold 100 000 datasets
        if "actions" not in self._names:
            raise ImportFormatError(f"{self._where} has no actions; it has {self._names}")
        self._length = len(self.array("actions"))

    def headers(self) -> Headers:
        """Shape and dtype of every dataset, next observations aside; whether they are usable is not asked."""
        nodes = {n: self._node(n) for n in self._names if not n.startswith("next_obs/")}
        return {
            name: (node.shape, node.dtype) for name, node in nodes.items() if getattr(node, "shape", None)
        }

    def array(self, name: str) -> FrameArray:
        """ImportFormatError lists what there is when it is missing."""
        if name not in self._names:
            raise ImportFormatError(f"{self._where} has no {name}; it has {self._names}")
        return hdf5.frame_array(self._node(name), f"{self._where}: {name}")

    def _node(self, name: str) -> Any:
        return hdf5.child(self._group, name, self._where)

    def rewards(self) -> NDArray[Any]:
        """(length,) or empty."""
        if "rewards" not in self._names:
            return np.zeros(0)
        return self.array("rewards").read(0, self._length).reshape(-1)

    def instruction(self) -> str:
        """What was asked, by the convention of RoboCasa: ``lang`` of the episode's metadata."""
        facts = hdf5.json_attribute(self._group, "ep_meta", self._where) or {}
        return facts["lang"] if isinstance(facts.get("lang"), str) else ""

    def last_observation(self, source: str) -> bool:
        """Whether the file keeps where the last action led."""
        return source.startswith("obs/") and f"next_{source}" in self._names

    def check(self, mapping: Mapping, headers: Headers) -> None:
        """Hold the demonstration against the first one.

        Raises:
            ImportFormatError: an array is missing, incomplete or of another kind.
            ShapeError: lengths disagree.
        """
        said = hdf5.attribute(self._group, "num_samples", self._where)
        if said is not None and said != self._length:
            raise ShapeError(f"{self._where} says num_samples {said} and has {self._length} actions")
        extra = [name for name in self.EXTRA if name in self._names]
        for name in (*mapping.sources, *extra):
            array, next_name = self.array(name), f"next_{name}"
            self._check_array(array, len(array), headers.get(name))
            if len(array) != self._length:
                raise ShapeError(f"{array.where} has {len(array)} frames, the actions {self._length}")
            if self.last_observation(name):
                self._check_array(self.array(next_name), self._length, (array.shape, array.dtype))
        if self._actions(mapping) < 1:
            raise ImportFormatError(
                f"{self._where}: too short for an action {mapping.action.ahead} frames ahead"
            )

    def _check_array(self, array: FrameArray, length: int, header: Any) -> None:
        if len(array) != length:
            raise ShapeError(f"{array.where} has {len(array)} frames instead of {length}")
        if header is not None and (array.shape[1:], array.dtype) != (header[0][1:], header[1]):
            raise ImportFormatError(
                f"{array.where} has {array.dtype} frames of {array.shape[1:]}, "
                f"others have {header[1]} of {header[0][1:]}"
            )

    def signals(self, mapping: Mapping) -> dict[str, Iterator[Signal]]:
        """Blocks of every signal, as ``SourceEpisode`` wants them."""
        rate, result = mapping.rate, {}
        for name, part in mapping.observation.items():
            raw, where = self._reader(part.source), f"{self._where}, {name}"
            read = partial(_convert, part, raw, where)
            result[f"observation/{name}"] = blocks(self._frames(part.source), rate, read, part.kind)
        pieces, ahead = mapping.action.pieces, mapping.action.ahead
        readers = [self._reader(piece.source) for piece in pieces]

        def read_action(first: int, last: int) -> NDArray[Any]:
            return action_values(pieces, [read(first + ahead, last + ahead) for read in readers])

        result["action"] = blocks(self._actions(mapping), rate, read_action)
        for theirs, ours in self.EXTRA.items():
            if theirs in self._names:
                result[f"extra/{ours}"] = blocks(self._length, rate, self.array(theirs).read)
        return result

    def _frames(self, source: str) -> int:
        return self._length + self.last_observation(source)

    def _actions(self, mapping: Mapping) -> int:
        """How many steps have an action: fewer than frames when it lies ahead."""
        frames = min(self._frames(piece.source) for piece in mapping.action.pieces)
        return min(self._length, frames - mapping.action.ahead)

    def _reader(self, source: str) -> Read:
        """Frames of an array, and after the last one that of ``next_obs``."""
        array = self.array(source)
        if not self.last_observation(source):
            return array.read
        final = self.array(f"next_{source}")

        def read(first: int, last: int) -> NDArray[Any]:
            if last <= len(array):
                return array.read(first, last)
            tail = final.read(len(array) - 1, len(array))
            return tail if first == len(array) else np.concatenate([array.read(first, len(array)), tail])

        return read


def _convert(part: ObservationMap, raw: Read, where: str, first: int, last: int) -> NDArray[Any]:
    return observation_values(part, raw(first, last), where, first)
