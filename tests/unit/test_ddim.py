"""Our one-table DDIM against diffusers, step by step."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from robopolicy.models.ddim import ddim_steps, ddim_update


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("training", "inference"), [(100, 1), (100, 5), (100, 7), (100, 10), (100, 100), (50, 16)]
)
def test_every_step_is_diffusers_step(prediction, training, inference):
    schedule = DDIMScheduler(
        num_train_timesteps=training,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        clip_sample=True,
        set_alpha_to_one=True,
    )
    table = ddim_steps(schedule, inference)
    schedule.set_timesteps(inference)
    assert table.shape == (inference, 7)
    generator = torch.Generator().manual_seed(0)
    chunk = torch.randn(3, 16, 2, generator=generator)
    for level, row in zip(schedule.timesteps, table):
        assert row[0] == level
        predicted = torch.randn(chunk.shape, generator=generator)
        expected = schedule.step(predicted, int(level), chunk, eta=0.0).prev_sample
        found = ddim_update(chunk, predicted, row)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        chunk = expected


def test_a_perfect_prediction_gives_the_clean_chunk_at_the_end():
    clean = torch.linspace(-1, 1, 32).reshape(1, 16, 2)
    schedule = DDIMScheduler(
        100, beta_schedule="squaredcos_cap_v2", prediction_type="sample", set_alpha_to_one=True
    )
    chunk = torch.randn(1, 16, 2, generator=torch.Generator().manual_seed(0))
    for row in ddim_steps(schedule, 10):
        chunk = ddim_update(chunk, clean, row)
    torch.testing.assert_close(chunk, clean)
