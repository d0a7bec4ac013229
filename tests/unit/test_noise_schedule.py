"""Training levels and targets, the further samplers against diffusers, and which configs are refused."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from robopolicy.core.errors import ConfigError
from robopolicy.models.ddim import ddim_update
from robopolicy.models.noise_schedule import NoiseSchedule, ScheduleConfig
from robopolicy.models.samplers import run_ddpm, run_dpm_solver

DIFFUSERS_NAME = {"velocity": "v_prediction", "sample": "sample", "epsilon": "epsilon"}
PREDICTIONS = sorted(DIFFUSERS_NAME)
KINDS = [*(("squared_cosine", p) for p in PREDICTIONS), ("flow", "velocity"), ("flow", "sample")]
COUNTS = [1, 2, 5, 10, 25, 60]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_range(schedule: NoiseSchedule, chunk: torch.Tensor, level: int, clean: torch.Tensor) -> torch.Tensor:
    """The output that takes ``clean`` to be behind ``chunk``; ``clean`` is such that no clipping happens."""
    s, n = schedule.signal[level], schedule.noise[level]
    return schedule.target(clean, (chunk - s * clean) / n, torch.full((len(chunk),), level))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("count", COUNTS)
def test_ddpm_is_diffusers(prediction, count):
    """Outputs out of range too: both clip the clean chunk and keep the noisy one."""
    ours = NoiseSchedule(ScheduleConfig("squared_cosine", prediction, "ddpm", 100, count))
    theirs = DDPMScheduler(
        100, beta_schedule="squaredcos_cap_v2", prediction_type=DIFFUSERS_NAME[prediction], clip_sample=True
    )
    theirs.set_timesteps(timesteps=ours.levels())
    outputs = random(count, 3, 8, 2, seed=1)
    generator = torch.Generator().manual_seed(2)
    chunk = start = random(3, 8, 2)
    for level, output in zip(theirs.timesteps, outputs):
        chunk = theirs.step(output, int(level), chunk, generator=generator).prev_sample
    generator.manual_seed(2)
    fresh = [torch.randn(3, 8, 2, generator=generator) for _ in range(count - 1)]
    calls = iter(zip(outputs, theirs.timesteps))

    def predict(_, row):
        output, level = next(calls)
        assert row[0] == level
        return output

    found = run_ddpm(predict, ours.rows(), torch.stack([start, *fresh], dim=1))
    torch.testing.assert_close(found, chunk, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
@pytest.mark.parametrize(("kind", "prediction"), KINDS)
@pytest.mark.parametrize("count", COUNTS)
def test_dpm_solver_is_diffusers(kind, prediction, count):
    ours = NoiseSchedule(ScheduleConfig(kind, prediction, "dpm_solver", 100, count))
    theirs = solver_of_diffusers(ours)
    cleans = random(count, 3, 8, 2, seed=1).clamp(-1, 1)
    chunk = start = random(3, 8, 2)
    for level, time, clean in zip(ours.levels(), theirs.timesteps, cleans):
        chunk = theirs.step(in_range(ours, chunk, level, clean), time, chunk).prev_sample
    given = iter(cleans)
    found = run_dpm_solver(
        lambda noisy, row: in_range(ours, noisy, int(row[0]), next(given)), ours.rows(), start
    )
    torch.testing.assert_close(found, chunk, rtol=1e-4, atol=2e-5)


def solver_of_diffusers(ours: NoiseSchedule) -> DPMSolverMultistepScheduler:
    """At our levels: it spaces them differently."""
    prediction, flow = ours.config.prediction, ours.config.kind == "flow"
    name = "flow_prediction" if flow and prediction == "velocity" else DIFFUSERS_NAME[prediction]
    theirs = DPMSolverMultistepScheduler(
        100, beta_schedule="squaredcos_cap_v2", prediction_type=name, use_flow_sigmas=flow
    )
    if flow:
        theirs.set_timesteps(len(ours.levels()))
        theirs.sigmas = torch.tensor([*(float(ours.noise[level]) for level in ours.levels()), 0.0])
    else:
        theirs.set_timesteps(timesteps=ours.levels())
    return theirs


def optimal(schedule: NoiseSchedule, noisy: torch.Tensor, row: torch.Tensor, mean: float, deviation: float):
    """What the best denoiser gives for ``noisy`` chunks of Gaussian numbers."""
    s, n = (values[int(row[0])] for values in (schedule.signal, schedule.noise))
    clean = mean + s * deviation**2 / (s**2 * deviation**2 + n**2) * (noisy - s * mean)
    return schedule.target(clean, (noisy - s * clean) / n, row[:1].long().expand(len(noisy)))


@pytest.mark.parametrize("training", [100, 50, 7, 1])
@pytest.mark.parametrize("kind", ["squared_cosine", "flow"])
def test_levels_fall_from_near_pure_noise_to_near_none(kind, training):
    for count in range(1, training + 1):
        levels = NoiseSchedule(ScheduleConfig(kind, "sample", "ddim", training, count)).levels()
        assert len(levels) == count and levels == sorted(set(levels), reverse=True)
        assert levels[0] == training - 1 if kind == "flow" else 0.85 * training < levels[0] + 1 <= training
        assert 0 <= levels[-1] <= training / count


@pytest.mark.parametrize("kind", ["squared_cosine", "flow"])
def test_the_usual_levels_are_those_of_diffusers(kind):
    theirs = DDPMScheduler(100, timestep_spacing="trailing" if kind == "flow" else "leading")
    for count in (10, 20, 25, 50, 100):
        theirs.set_timesteps(count)
        assert NoiseSchedule(ScheduleConfig(kind, "sample", "ddim", 100, count)).levels() == [
            *theirs.timesteps
        ]


@pytest.mark.parametrize(("kind", "prediction"), KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 10, 51, 60, 99, 100])
def test_the_best_denoiser_ends_in_the_data_with_any_number_of_steps(kind, prediction, count):
    """Few steps give less than the spread, never more of it or another mean."""
    schedule = NoiseSchedule(ScheduleConfig(kind, prediction, "ddim", 100, count))
    chunk = random(500, 8, 2)
    for row in schedule.rows():
        chunk = ddim_update(chunk, optimal(schedule, chunk, row, 0.5, 0.15), row)
    assert chunk.mean() == pytest.approx(0.5, abs=0.02)
    assert chunk.std() < 0.16
    if count >= 50:
        assert chunk.std() > 0.13


@pytest.mark.parametrize(("kind", "deviation"), [("squared_cosine", 0.1), ("flow", 0.3)])
def test_the_second_order_pays(kind, deviation):
    """On a known flow, that of Gaussian chunks, it comes closer to the exact end in as few steps."""

    def end(sampler: str) -> torch.Tensor:
        schedule = NoiseSchedule(ScheduleConfig(kind, "sample", sampler, 100, 10))

        def predict(noisy: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
            return optimal(schedule, noisy, row, 0.0, deviation)

        rows = schedule.rows()
        if sampler == "ddim":  # rows of first order, without a share of the chunk before
            rows = torch.cat([rows, torch.zeros(10, 1)], dim=1)
        return run_dpm_solver(predict, rows, noise)

    noise = random(2, 8, 3).clamp(-2, 2)  # no clean chunk is clipped
    schedule = NoiseSchedule(ScheduleConfig(kind, "sample", training_steps=100, denoising_steps=10))
    s, n = (values[schedule.levels()[0]] for values in (schedule.signal, schedule.noise))
    exact = deviation / (s**2 * deviation**2 + n**2).sqrt() * noise
    first, second = ((end(sampler) - exact).abs().max() for sampler in ("ddim", "dpm_solver"))
    assert second < first / 2


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
def test_a_bound_step_ends_at_its_prefix_and_no_weight_is_no_guidance(sampler, prediction):
    schedule = NoiseSchedule(ScheduleConfig("squared_cosine", prediction, sampler, 100, 5))
    run, shape = (run_ddpm, (2, 5, 8, 3)) if sampler == "ddpm" else (run_dpm_solver, (2, 8, 3))
    noise, prefix, clean = random(*shape), random(2, 8, 3, seed=1), 0.3 * random(2, 8, 3, seed=2).clamp(-3, 3)

    def predict(chunk, row):
        return in_range(schedule, chunk, int(row[0]), clean)

    weight = torch.tensor([1.0, 0.0]).repeat_interleave(4).expand(2, 8)
    bound = run(predict, schedule.rows(), noise, prefix, weight)
    free = run(predict, schedule.rows(), noise)
    torch.testing.assert_close(bound[:, :4], prefix[:, :4])
    torch.testing.assert_close(bound[:, 4:], free[:, 4:])
    assert not torch.allclose(bound[:, :4], free[:, :4])


def test_ddpm_adds_its_fresh_noise():
    schedule = NoiseSchedule(ScheduleConfig("squared_cosine", "sample", "ddpm", 100, 5))
    noise = random(2, 5, 8, 3)
    ends = [
        run_ddpm(lambda chunk, _: 0.5 * chunk, schedule.rows(), other)
        for other in (noise, noise.roll(1, dims=0), torch.cat([noise[:, :1], -noise[:, 1:]], dim=1))
    ]
    assert not torch.allclose(ends[0], ends[2])
    torch.testing.assert_close(ends[0].roll(1, dims=0), ends[1])  # rows keep apart


@pytest.mark.parametrize("kind", ["squared_cosine", "flow"])
def test_levels_are_drawn_evenly_and_only_from_the_generator(kind):
    schedule = NoiseSchedule(ScheduleConfig(kind, training_steps=50))
    levels = schedule.draw_levels(5_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(levels, minlength=50)
    assert len(counts) == 50 and counts.min() > 60 and counts.max() < 140
    assert torch.equal(levels, schedule.draw_levels(5_000, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "linear"}, r"kind 'linear' is not one of \['flow', 'squared_cosine'\]"),
        ({"prediction": "noise"}, r"prediction 'noise' is not one of \['epsilon', 'sample', 'velocity'\]"),
        ({"sampler": "heun"}, r"sampler 'heun' is not one of \['ddim', 'ddpm', 'dpm_solver'\]"),
        ({"kind": "flow", "prediction": "epsilon"}, "prediction 'epsilon' cannot start.*'flow'"),
        ({"kind": "flow", "sampler": "ddpm"}, "sampler 'ddpm' is not defined for kind 'flow'; take 'ddim'"),
        ({"denoising_steps": 0}, r"denoising_steps 0 not in 1\.\.100"),
        ({"denoising_steps": 101}, r"denoising_steps 101 not in 1\.\.100"),
    ],
)
def test_an_impossible_schedule_is_refused_by_field(options, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**options)
