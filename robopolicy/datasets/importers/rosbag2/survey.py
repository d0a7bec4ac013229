"""A first pass over all bags: times of every mapped topic, the plan of every episode, and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from robopolicy.core.errors import ConfigError, ImportFormatError, UnknownNameError
from robopolicy.datasets.importers.rosbag2 import times
from robopolicy.datasets.importers.rosbag2.bag import Bag
from robopolicy.datasets.importers.rosbag2.cuts import TEXT, Cut, cut, instruction_at, texts
from robopolicy.datasets.importers.rosbag2.mapping import BagMapping, FieldMap
from robopolicy.datasets.importers.rosbag2.plan import IncompleteEpisodeError, Plan, trim
from robopolicy.datasets.importers.rosbag2.times import Samples, TopicIndex
from robopolicy.datasets.importers.source import ImportOptions, Report

#: Unix times of robots are later than 2001 [ns]; smaller ones are simulated or since boot.
_UNIX_SINCE_NS = 10**18


class Survey:
    """What there is to import.

    Args:
        plans: every episode, in order.
        indices: bag to topic to its times.
    Raises:
        ImportFormatError: a bag cannot be read, lacks a topic (the message lists those there are), or its
            times make no sense.
    """

    def __init__(self, bags: list[Path], mapping: BagMapping, options: ImportOptions) -> None:
        self._mapping, self._skip = mapping, options.skip_missing
        self._fields = dict(_fields(mapping))
        self.report = Report(mapped={name: _describe(field) for name, field in self._fields.items()})
        self.plans: list[Plan] = []
        self.indices: dict[Path, dict[str, TopicIndex]] = {}
        self._seen: set[str] = set()
        self._gaps: dict[str, tuple[int, float]] = {}
        for path in bags:
            self._survey(path)
        if not self.plans:
            raise ImportFormatError(f"no complete episode: {'; '.join(self.report.missing)}")
        used = _topics(mapping)
        self.report.ignored = sorted(self._seen - used)
        for name, (count, longest) in self._gaps.items():
            self.report.missing.append(f"{name}: {count} gaps in time, longest interval {longest:.3g} s")
        if mapping.action.resample:
            steps = mapping.action.resample
            self.report.converted.append(f"action: resampled to {steps.rate:g} Hz, method {steps.method}")
        self.report.converted.append("action: stored as float32")
        scaled = {n: f.scale for n, f in self._fields.items() if f.scale != 1}
        self.report.converted += [f"{name}: multiplied by {scale:g}" for name, scale in scaled.items()]

    def _survey(self, path: Path) -> None:
        with Bag(path, self._mapping.distro, self._mapping.definitions) as bag:
            known = bag.topics
            self._seen |= set(known)
            topics = _topics(self._mapping)
            if lacking := sorted(topics - set(known)):
                listing = ", ".join(f"{topic} ({kind})" for topic, kind in known.items()) or "none"
                message = f"{path}: no messages on {lacking}; topics with messages: {listing}"
                if not self._skip:
                    raise ImportFormatError(message)
                self.report.missing.append(message)
                return
            for topic in sorted(topics):
                promised = bag.promised(topic)
                if promised is not None and promised != bag.count(topic):
                    self.report.missing.append(
                        f"{bag.name}, {topic}: metadata.yaml counts {promised} messages, its files hold "
                        f"{bag.count(topic)}"
                    )
            index = bag.index({field.topic for field in self._fields.values()})
            self.indices[path] = index
            self._plan(path, bag, index)

    def _plan(self, path: Path, bag: Bag, index: dict[str, TopicIndex]) -> None:
        samples = self._choose(bag, index)
        origin = self._origin(bag, index, samples)
        spoken = (
            texts(bag, self._mapping.instruction_topic, (TEXT,)) if self._mapping.instruction_topic else []
        )
        wall = self._wall_minus_clock(bag, origin)
        for span in cut(bag, self._mapping, origin, self.report.guessed):
            try:
                observation, action, steps, dropped = trim(
                    {key: samples[f"observation/{key}"] for key in self._mapping.observation},
                    [samples[_part(number)] for number in range(len(self._mapping.action.parts))],
                    self._mapping.action,
                    span,
                )
            except IncompleteEpisodeError as error:
                if not self._skip:
                    raise
                self.report.missing.append(str(error))
                continue
            if dropped:
                self.report.converted.append(
                    f"{span.name}: {dropped} leading actions dropped, before every signal had a sample"
                )
            words = self._instruction(spoken, span, int(steps[0]))
            self.plans.append(Plan(span.name, path, origin, observation, action, steps, dropped, words, wall))
            self._count_gaps(observation)

    def _choose(self, bag: Bag, index: dict[str, TopicIndex]) -> dict[str, Samples]:
        chosen: dict[str, Samples] = {}
        for name, field in self._fields.items():
            chosen[name], note = times.choose(index[field.topic], field, f"{bag.name}, {field.topic}")
            if note and note not in self.report.converted:
                self.report.converted.append(note)
            used = f"{name}: {chosen[name].stamp} stamps"
            if field.stamp == "" and used not in self.report.guessed:
                self.report.guessed.append(used)
        stamps = {samples.stamp for samples in chosen.values()}
        if self._mapping.episodes.marker or self._mapping.instruction_topic:
            stamps.add("receive")
        offsets = {
            name: times.clock_offset_ns(index[self._fields[name].topic], samples)
            for name, samples in chosen.items()
        }
        times.check_clocks(offsets, stamps, self._mapping.clock, bag.name)
        return chosen

    def _origin(self, bag: Bag, index: dict[str, TopicIndex], samples: dict[str, Samples]) -> int:
        if self._mapping.clock == "simulation":
            return min(int(s.time_ns[0]) for s in samples.values())
        first = min(int(topic.receive_ns.min()) for topic in index.values())
        return bag.start_ns if 0 <= bag.start_ns <= first else first

    def _wall_minus_clock(self, bag: Bag, origin_ns: int) -> int | None:
        if self._mapping.clock == "simulation":
            return None
        if origin_ns < _UNIX_SINCE_NS:
            self.report.guessed.append(f"{bag.name}: begins at {origin_ns / 1e9:.3f} s, no Unix time")
            return None
        return origin_ns

    def _instruction(self, spoken: list[tuple[int, str]], span: Cut, first_ns: int) -> str:
        if not self._mapping.instruction_topic:
            return self._mapping.instruction
        return instruction_at(spoken, span, first_ns, f"{span.name}, {self._mapping.instruction_topic}")

    def _count_gaps(self, observation: dict[str, Samples]) -> None:
        for key, samples in observation.items():
            count, longest = times.gaps(samples)
            if count:
                before = self._gaps.get(f"observation/{key}", (0, 0.0))
                self._gaps[f"observation/{key}"] = (before[0] + count, max(before[1], longest))


def _part(number: int) -> str:
    return f"action/{number}"


def _fields(mapping: BagMapping) -> Iterator[tuple[str, FieldMap]]:
    yield from ((f"observation/{key}", field) for key, field in mapping.observation.items())
    yield from ((_part(number), part) for number, part in enumerate(mapping.action.parts))


def _topics(mapping: BagMapping) -> set[str]:
    marker = mapping.episodes.marker
    others = (mapping.instruction_topic, marker.topic if marker else "")
    return {field.topic for _, field in _fields(mapping)} | {topic for topic in others if topic}


def _describe(field: FieldMap) -> str:
    chosen = field.select or field.columns
    return " ".join(filter(None, (field.topic, field.field, str(list(chosen)) if chosen else "")))


def without(mapping: BagMapping, topics: tuple[str, ...]) -> BagMapping:
    """The same mapping but for the observations of these topics.

    Raises:
        UnknownNameError: no observation uses a topic; ConfigError: none would be left.
    """
    used = {field.topic for field in mapping.observation.values()}
    for topic in topics:
        if topic not in used:
            raise UnknownNameError("observation topic", topic, used)
    kept = {key: field for key, field in mapping.observation.items() if field.topic not in topics}
    if not kept:
        raise ConfigError(f"without {sorted(topics)}: no observation would be left")
    return dataclasses.replace(mapping, observation=kept)
