"""Bags as a ``Source``: what they hold is planned on opening, and read episode by episode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError, NonFiniteValueError
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.importers._boundary import choose_episodes
from robopolicy.datasets.importers.rosbag2.bag import Bag
from robopolicy.datasets.importers.rosbag2.fields import POSE_NAMES, POSE_UNITS, Numbers
from robopolicy.datasets.importers.rosbag2.images import Frames
from robopolicy.datasets.importers.rosbag2.mapping import ActionPartMap, BagMapping, FieldMap, ObservationMap
from robopolicy.datasets.importers.rosbag2.plan import Plan, policy_rate
from robopolicy.datasets.importers.rosbag2.read import Convert, read_blocks, read_values
from robopolicy.datasets.importers.rosbag2.survey import Survey
from robopolicy.datasets.importers.rosbag2.times import Samples, TopicIndex
from robopolicy.datasets.importers.source import ImportOptions, Report, SourceEpisode


class BagSource:
    """See ``source.Source``."""

    def __init__(self, bags: list[Path], mapping: BagMapping, options: ImportOptions, where: str) -> None:
        survey = Survey(bags, mapping, options)
        self.report: Report = survey.report
        self._mapping = mapping
        self._indices = survey.indices
        self._plans = [survey.plans[i] for i in choose_episodes(len(survey.plans), options, where)]
        self._open: Bag | None = None
        try:
            self.specs = self._make_specs()
        finally:
            self.close()

    def __len__(self) -> int:
        return len(self._plans)

    def close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None
        self._open_path: Path | None = None

    def episodes(self) -> Iterator[SourceEpisode]:
        """Each with its signals; observations are generators."""
        for plan in self._plans:
            bag = self._bag(plan)
            signals: dict[str, Any] = {
                f"observation/{key}": self._blocks(bag, plan, self._mapping.observation[key], samples)
                for key, samples in plan.observation.items()
            }
            signals["action"] = self._action(bag, plan)
            facts = {
                "instruction": plan.instruction,
                "clock": self._mapping.clock,
                "wall_minus_clock_ns": plan.wall_minus_clock_ns,
                "metadata": {"source_episode": plan.name},
            }
            yield SourceEpisode(plan.name, signals, facts)

    def _bag(self, plan: Plan) -> Bag:
        if self._open is None or self._open_path != plan.bag:
            self.close()
            self._open = Bag(plan.bag, self._mapping.distro, self._mapping.definitions)
            self._open_path = plan.bag
        return self._open

    def _index(self, plan: Plan, field: FieldMap) -> TopicIndex:
        return self._indices[plan.bag][field.topic]

    def _blocks(self, bag: Bag, plan: Plan, field: FieldMap, samples: Samples) -> Iterator[Signal]:
        convert = converter(field, bag)
        return read_blocks(bag, self._index(plan, field), samples, convert, plan.origin_ns)

    def _first(self, plan: Plan, field: FieldMap, samples: Samples) -> tuple[NDArray[Any], bool]:
        """The first sample's value, and whether it is a pose."""
        bag = self._bag(plan)
        convert = converter(field, bag)
        only = Samples(samples.time_ns[:1], samples.message[:1], samples.stamp)
        value, _ = next(read_values(bag, self._index(plan, field), only, convert))
        return value, isinstance(convert, Numbers) and convert.is_pose

    def _make_specs(self) -> Specs:
        plan, mapping = self._plans[0], self._mapping
        observation = {
            key: _array_spec(mapping.observation[key], *self._first(plan, mapping.observation[key], samples))
            for key, samples in plan.observation.items()
        }
        parts = []
        for number, (part, samples) in enumerate(zip(mapping.action.parts, plan.action)):
            values, is_pose = self._first(plan, part, samples)
            names = part.names or part.select or (POSE_NAMES if is_pose else ())
            if values.shape != (len(names),):
                raise ImportFormatError(
                    f"{plan.name}, {part.topic}: action part {number} has {len(values)} numbers, "
                    f"the mapping names {len(names)}: {names}"
                )
            parts.append(ActionPart(part.space, names, part.reference, part.frame))
        if mapping.action.resample:
            rate = mapping.action.resample.rate
        else:
            rate = policy_rate(self._plans, mapping.action.parts[0].topic)
            self.report.guessed.append(f"policy rate {rate:g} Hz, as actions were recorded")
        return Specs(observation, ActionSpec(tuple(parts), mapping.action.reached), rate, mapping.robot)

    def _action(self, bag: Bag, plan: Plan) -> Iterator[Signal]:
        """All parts side by side at the episode's steps, (n, dim) float32."""
        columns = []
        for part, samples in zip(self._mapping.action.parts, plan.action):
            values = np.concatenate([b.value for b in self._blocks(bag, plan, part, samples)])
            at = np.searchsorted(samples.time_ns, plan.steps_ns, side="right") - 1
            columns.append(_to_float32(values, part, plan)[at])
        yield Signal(np.concatenate(columns, axis=1), plan.steps_ns - plan.origin_ns)


def converter(field: FieldMap, bag: Bag) -> Convert:
    """What turns this topic's messages into samples."""
    msgtype = bag.decoder(field.topic).msgtype
    if isinstance(field, ObservationMap) and field.kind != "state":
        return Frames(field.kind, msgtype, f"{bag.name}, {field.topic}")
    return Numbers(field, msgtype)


def _array_spec(field: ObservationMap, value: NDArray[Any], is_pose: bool) -> ArraySpec:
    units, names = field.units, field.names or field.select
    if is_pose:
        units, names = units or POSE_UNITS, names or POSE_NAMES
    if field.kind == "depth":
        units = units or ("mm",)
    return ArraySpec(value.shape, value.dtype.name, units, names, field.kind, field.angles)


def _to_float32(values: NDArray[Any], part: ActionPartMap, plan: Plan) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    finite = np.isfinite(narrow).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NonFiniteValueError(f"{plan.name}, {part.topic}: sample {row} is too large: {values[row]}")
    return narrow
