"""Samples that break the specs are refused one by one; the rest of the episode is none the worse."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import assert_same_episode
from writing import EPISODE, FACTS, MODES, RANGE, WRIST, new_store

from robopolicy.core.errors import NonFiniteValueError, RobopolicyError, ShapeError, SpecError
from robopolicy.datasets.episode import Signal


def goal(value, time_ns) -> Signal:
    return Signal(np.asarray(value), np.asarray(time_ns))


BAD = {
    "a double beyond float32": (
        "observation/goal", goal([[1.0, 1e39]], [0]), NonFiniteValueError, "frame 0: non-finite value",
    ),
    "NaN later in a block": (
        "observation/goal", goal([[0.0, 0], [np.nan, 0]], [0, 1]), NonFiniteValueError, "frame 1: non-finite",
    ),
    "NaN in an extra": ("extra/x", goal([np.nan], [0]), NonFiniteValueError, "extra/x, frame 0"),
    "infinite half": ("extra/x", goal(np.array([np.inf], np.float16), [0]), NonFiniteValueError, "extra/x"),
    "an integer beyond its range": (
        "observation/counts", goal([[0, 40_000]], [0]), SpecError, "int64 values beyond the range of int16",
    ),
    "floats for integers": ("observation/counts", goal([[0.0, 1]], [0]), SpecError, "float64 .* int16"),
    "time backwards in a block": (
        "observation/goal", goal(np.zeros((3, 2)), [0, 5, 4]), SpecError, "frame 2: time does not increase",
    ),
    "time stands still": (
        "observation/goal", goal(np.zeros((2, 2)), [3, 3]), SpecError, "frame 1: time does not increase",
    ),
    "seconds for nanoseconds": (
        "observation/goal", goal(np.zeros((2, 2)), [0.5, 1.5]), SpecError, "whole nanoseconds, got float64",
    ),
    "fewer times than samples": ("observation/goal", goal(np.zeros((2, 2)), [0]), ShapeError, r"\(2,\) and"),
    "another shape": ("observation/goal", goal(np.zeros((1, 3)), [0]), ShapeError, r"frames of \(2,\)"),
    "a sample without its axis": ("observation/goal", goal([0.0, 0], 0), ShapeError, r"got \(2,\) and \(\)"),
    "a bare number": ("extra/x", goal(1.0, 0), ShapeError, "extra/x"),
    "an unknown observation": ("observation/nose", goal([[0.0]], [0]), SpecError, "no signal .*'action'"),
    "an unknown kind": ("goal", goal([[0.0, 0]], [0]), SpecError, "no signal 'goal'; there are"),
    "an extra without a name": ("extra/", goal([0.0], [0]), SpecError, "no signal 'extra/'"),
    "an extra with a path": ("extra/../../x", goal([0.0], [0]), SpecError, "may hold letters"),
    "an extra of text": ("extra/x", goal(["a"], [0]), SpecError, "'x' is <U1, .* not one of bool, int8"),
    "an extra of objects": ("extra/x", goal(np.array([{}], object), [0]), SpecError, "'x' is object"),
    "complex numbers": ("extra/x", goal([1j], [0]), SpecError, "'x' is complex128"),
    "dates": ("extra/x", goal(np.array(["2020-01-01"], "M8[ns]"), [0]), SpecError, "'x' is datetime64"),
    "an image as floats": (
        "observation/wrist", goal(np.zeros((1, *WRIST.shape)), [0]), SpecError, "float64 .* uint8",
    ),
    "an image as booleans": (
        "observation/wrist", goal(np.zeros((1, *WRIST.shape), bool), [0]), SpecError, "bool .* uint8",
    ),
    "an image upright": (
        "observation/wrist", goal(np.zeros((1, 5, 6, 3), np.uint8), [0]), ShapeError, r"\(6, 5, 3\)",
    ),
    "depth as floats of metres": (
        "observation/range", goal(np.zeros((1, *RANGE.shape), np.float32), [0]), SpecError, "uint16",
    ),
    "depth in 8 bit": (
        "observation/range", goal(np.zeros((1, *RANGE.shape), np.uint8), [0]), SpecError, "uint8 .* uint16",
    ),
}  # fmt: skip


@MODES
@pytest.mark.parametrize("case", sorted(BAD))
def test_samples_that_break_the_specs_are_refused_and_leave_nothing(tmp_path, background, case):
    """The writer goes on: what is right is kept as if the other had never been there."""
    name, block, error, message = BAD[case]
    store = new_store(tmp_path)
    with store.begin(where="episode 7", background=background, **FACTS) as episode:
        with pytest.raises(error, match=message):
            episode.add(name, block)
        for good, signal in EPISODE.signals():
            episode.add(good, signal)
        with pytest.raises(error):
            episode.add(name, Signal(block.value, np.asarray(block.time_ns) + 10**12))
        episode.commit()
    assert_same_episode(store.read("000000"), EPISODE)


@MODES
def test_time_must_increase_from_one_add_to_the_next(tmp_path, background):
    store = new_store(tmp_path)
    with store.begin(background=background) as episode:
        episode.add("observation/goal", goal([[0.0, 0], [1, 1]], [10, 20]))
        for late in (20, 19, -5):
            with pytest.raises(SpecError, match="observation/goal, frame 2: time does not increase"):
                episode.add("observation/goal", goal([[2.0, 2]], [late]))
        episode.add("observation/goal", goal([[2.0, 2]], [21]))
        episode.add("observation/joints", goal([[2.0, 2]], [1]))  # each signal has a time of its own


@pytest.mark.parametrize("change", [lambda v: v[:, :1], lambda v: v.astype(np.complex64)])
def test_an_extra_keeps_the_shape_and_dtype_it_began_with(tmp_path, change):
    store, force = new_store(tmp_path), np.ones((1, 6))
    with store.begin() as episode:
        episode.add("extra/force", goal(force, [0]))
        with pytest.raises(RobopolicyError, match="extra/force"):
            episode.add("extra/force", goal(change(force), [1]))
