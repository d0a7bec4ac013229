"""The benchmark's comparisons: what is counted, what is equal, what is drawn."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from experts.networks import DEFAULT, Size, bank_megabytes, flops, inputs, megabytes, uncached
from experts.usage import LEVELS, draw, usage_map

from robopolicy.models.edm import EdmConfig

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Size(
    "tiny",
    dataclasses.replace(
        DEFAULT.config, dim=16, layers=2, expert_hidden=8, schedule=EdmConfig(denoising_steps=5)
    ),
)


def counted(module, rows: int = 1) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):  # which torch counts
        module.sample(*inputs(TINY, rows))
    return counter.get_total_flops()


def test_the_formula_is_what_torch_counts():
    built = TINY.build()
    for name in ("mode", "dense_active", "dense_total"):
        expected = flops(built[name].config, TINY.specs, cached=True)
        assert counted(built[name].inference_form()) == expected, name
    assert counted(built["mode"].inference_form(), rows=3) == 3 * flops(TINY.config, TINY.specs, cached=True)
    assert counted(uncached(built["mode"])) == flops(TINY.config, TINY.specs, cached=False)


def test_active_work_is_equal_and_total_weights_are():
    built = {name: module.inference_form() for name, module in TINY.build().items()}
    assert counted(built["mode"]) == counted(built["dense_active"]) < counted(built["dense_total"])
    one = 3 * 16 * 8 * 4 / 1e6  # an expert
    assert bank_megabytes(built["dense_active"]) == pytest.approx(2 * 2 * one)
    assert bank_megabytes(built["dense_total"]) == pytest.approx(2 * 4 * one)
    assert megabytes(torch.nn.Linear(3, 5)) == pytest.approx(20 * 4 / 1e6)


def test_routes_differ_between_steps_and_cached_is_uncached():
    policy = TINY.build()["mode"]
    form = policy.inference_form()
    assert min(len(set(block.experts.sets)) for block in form.denoiser.blocks) > 1
    with torch.inference_mode():
        for rows in (1, 7):
            expected = uncached(policy).sample(*inputs(TINY, rows))
            torch.testing.assert_close(form.sample(*inputs(TINY, rows)), expected, rtol=0, atol=1e-5)


def test_the_usage_map_has_the_weights_of_two_experts_a_level(tmp_path):
    policy = TINY.build()["mode"]
    sigma, shares = usage_map(policy)
    assert sigma[0] == pytest.approx(0.001) and sigma[-1] == pytest.approx(80, rel=1e-4)
    assert shares.shape == (2, LEVELS, 4)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    assert ((shares > 0).sum(-1) == 2).all()
    draw(policy, tmp_path / "map.png", "tiny")
    assert (tmp_path / "map.png").stat().st_size > 10_000
