"""What had been commanded at the older instants of an observation, found by time."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from reranked import ACTION, rerank_specs

from robopolicy.core.horizons import Horizons
from robopolicy.runtime.control.past import past_actions

TICK, PERIOD = 10_000_000, 100_000_000


def specs(reached: str):
    inner = dataclasses.replace(rerank_specs().specs, action=dataclasses.replace(ACTION, reached=reached))
    return rerank_specs(specs=inner, horizons=Horizons(observation=4, prediction=8, action=2))


@pytest.mark.parametrize("reached", ["end", "start"])
@pytest.mark.parametrize("jitter", [0, 3_000_000, -3_000_000])
def test_the_command_that_was_due_then(reached: str, jitter: int) -> None:
    """A tick's command is reached at its end: that of deadline t is what holds at t + tick."""
    ticks = np.arange(100) * TICK
    commands = [np.array([tick + TICK, -1.0]) for tick in ticks]  # named by when it is reached
    observed = 700_000_000 + jitter
    past = past_actions(specs(reached), observed, ticks.tolist(), commands, TICK)
    due = np.array([400, 500, 600]) * 1_000_000 + (PERIOD if reached == "end" else 0)
    np.testing.assert_array_equal(past[:, 0], due.astype(np.float32))


def test_before_the_run_there_is_nothing() -> None:
    past = past_actions(specs("end"), 110_000_000, [0, TICK], [np.ones(2), np.full(2, 2.0)], TICK)
    assert np.isnan(past[0]).all() and np.isnan(past[1]).sum() == 0
    np.testing.assert_array_equal(past[1:], [[1.0, 1.0], [2.0, 2.0]])
    assert np.isnan(past_actions(specs("start"), 0, [], [], TICK)).all()
    single = rerank_specs(horizons=Horizons(observation=1, prediction=8, action=2))
    assert past_actions(single, 0, [], [], TICK).shape == (0, 2)
