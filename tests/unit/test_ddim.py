"""Our one-table DDIM against diffusers, step by step."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from robopolicy.models.ddim import ddim_update
from robopolicy.models.noise_schedule import NoiseSchedule, ScheduleConfig

OUR_NAME = {"v_prediction": "velocity"}


def ddim_steps(schedule: DDIMScheduler, count: int) -> torch.Tensor:
    """Our table for a schedule of diffusers."""
    prediction = schedule.config["prediction_type"]
    training = schedule.config["num_train_timesteps"]
    config = ScheduleConfig("squared_cosine", OUR_NAME.get(prediction, prediction), "ddim", training, count)
    return NoiseSchedule(config).rows()


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("training", "inference"), [(100, 1), (100, 4), (100, 5), (100, 10), (100, 100), (50, 25)]
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
    assert table.shape == (inference, 8)
    if inference >= 10:  # with fewer it begins too late, but steps as far
        assert table[:, 0].tolist() == schedule.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    chunk = torch.randn(3, 16, 2, generator=generator)
    for row in table:
        predicted = torch.randn(chunk.shape, generator=generator)
        expected = schedule.step(predicted, int(row[0]), chunk, eta=0.0).prev_sample
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


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_a_bound_step_goes_the_way_the_prefix_itself_is_noised(prediction):
    """Where the weight is 1, x stays s * prefix + n * noise with the noise it began with, at every level."""
    schedule = DDIMScheduler(
        100, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, set_alpha_to_one=True
    )
    generator = torch.Generator().manual_seed(0)
    noise, prefix = (torch.randn(2, 8, 3, generator=generator).clamp(-1, 1) for _ in range(2))
    weight = torch.tensor([1.0] * 3 + [0.5] * 2 + [0.0] * 3).expand(2, 8)
    table = ddim_steps(schedule, 10)
    alpha = float(schedule.alphas_cumprod[int(table[0, 0])])
    bound = free = alpha**0.5 * prefix + (1 - alpha) ** 0.5 * noise
    for row in table:
        # Outputs in -1..1 for a clean chunk, whatever the network predicts, so that clipping does nothing.
        clean = 0.5 * torch.randn(bound.shape, generator=generator).clamp(-1, 1)
        outputs = [_output_for(clean, chunk, schedule, int(row[0]), prediction) for chunk in (bound, free)]
        bound = ddim_update(bound, outputs[0], row, prefix, weight)
        free = ddim_update(free, outputs[1], row)
        expected = row[5] * prefix + row[6] * noise
        torch.testing.assert_close(bound[:, :3], expected[:, :3], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(bound[:, 5:], free[:, 5:])
    torch.testing.assert_close(bound[:, :3], prefix[:, :3])
    torch.testing.assert_close(bound[:, 3:5], (prefix + clean)[:, 3:5] / 2)


def _output_for(clean, chunk, schedule, level, prediction):
    """What the network says when it takes ``clean`` to be behind ``chunk``."""
    alpha = float(schedule.alphas_cumprod[level])
    s, n = alpha**0.5, (1 - alpha) ** 0.5
    noise = (chunk - s * clean) / n
    return {"sample": clean, "epsilon": noise, "v_prediction": s * noise - n * clean}[prediction]


def test_no_weight_is_no_guidance():
    schedule = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    chunk, out, prefix = (torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(i)) for i in range(3))
    for row in ddim_steps(schedule, 5):
        torch.testing.assert_close(
            ddim_update(chunk, out, row, prefix, torch.zeros(2, 8)), ddim_update(chunk, out, row)
        )


@pytest.mark.parametrize("count", [1, 4, 10])
def test_flow_matching_is_diffusers_euler_step(count):
    ours = NoiseSchedule(ScheduleConfig("flow", "velocity", training_steps=100, denoising_steps=count))
    schedule = FlowMatchEulerDiscreteScheduler(num_train_timesteps=100)
    rows = ours.rows()
    sigmas = [float(ours.noise[int(row[0])]) for row in rows]
    schedule.set_timesteps(sigmas=sigmas)
    generator = torch.Generator().manual_seed(0)
    clean, chunk = (torch.randn(3, 16, 2, generator=generator).clamp(-1, 1) for _ in range(2))
    assert sigmas[0] == 1.0  # it begins with pure noise
    for row, time in zip(rows, schedule.timesteps):
        velocity = (chunk - clean) / ours.noise[int(row[0])]  # the way to a chunk within range
        expected = schedule.step(velocity, time, chunk).prev_sample
        chunk = ddim_update(chunk, velocity, row)
        torch.testing.assert_close(chunk, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chunk, clean)


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [("flow", "velocity"), ("flow", "sample"), ("squared_cosine", "epsilon"), ("squared_cosine", "velocity")],
)
def test_the_target_is_what_leads_back_to_the_clean_chunk(kind, prediction):
    schedule = NoiseSchedule(ScheduleConfig(kind, prediction, training_steps=50, denoising_steps=5))
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 8, 3, generator=generator) * 2 - 1
    noise = torch.randn(1, 8, 3, generator=generator)
    for row in schedule.rows():
        level = row[:1].long()
        out = schedule.target(clean, noise, level)
        noisy = schedule.corrupt(clean, noise, level)
        torch.testing.assert_close(
            ddim_update(noisy, out, row), row[5] * clean + row[6] * noise, atol=1e-4, rtol=1e-4
        )
