"""How noise is mixed into chunks, what the denoiser predicts, and the steps that take it out again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError
from robopolicy.models.ddim import ddim_rows
from robopolicy.models.samplers import SAMPLERS, ddpm_rows, dpm_solver_rows

KINDS = ("squared_cosine", "flow")
PREDICTIONS = ("sample", "epsilon", "velocity")
#: "squared_cosine" with fewer denoising steps starts where it does with so many.
FEWEST = 10


@dataclass(frozen=True)
class ScheduleConfig:
    """Noise levels of training and the steps of inference.

    Args:
        kind: "squared_cosine" (variance preserving, Nichol and Dhariwal 2021), or "flow": straight lines from
            chunk to noise (rectified flow, Liu et al. 2022).
        prediction: what the denoiser gives: "sample" (the clean chunk), "epsilon" (the noise) or "velocity".
        sampler: of inference: "ddim" (of "flow": Euler's steps along the velocity), "dpm_solver"
            (DPM-Solver++ of second order), or "ddpm" (ancestral: fresh noise in every step; not for "flow").
        training_steps: noise levels.
        denoising_steps: inference iterations.
    Raises:
        ConfigError: names the field; "flow" with "epsilon", which says nothing at pure noise, or with "ddpm".
    """

    kind: str = "squared_cosine"
    prediction: str = "sample"
    sampler: str = "ddim"
    training_steps: int = 100
    denoising_steps: int = 10

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("prediction", PREDICTIONS), ("sampler", SAMPLERS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r} is not one of {sorted(known)}")
        if self.kind == "flow" and self.prediction == "epsilon":
            raise ConfigError("prediction 'epsilon' cannot start from the pure noise of kind 'flow'")
        if self.kind == "flow" and self.sampler == "ddpm":
            raise ConfigError("sampler 'ddpm' is not defined for kind 'flow'; take 'ddim' or 'dpm_solver'")
        if not 1 <= self.denoising_steps <= self.training_steps:
            raise ConfigError(f"denoising_steps {self.denoising_steps} not in 1..{self.training_steps}")


class NoiseSchedule(nn.Module):
    """``noisy = signal[level] * clean + noise[level] * epsilon``, level 0 the cleanest.

    Args:
        config: see ``ScheduleConfig``.
    """

    signal: Tensor
    noise: Tensor

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__()
        self.config = config
        if config.kind == "flow":
            noise = torch.arange(1, config.training_steps + 1).double() / config.training_steps
            signal = 1 - noise
        else:
            schedule = DDIMScheduler(
                num_train_timesteps=config.training_steps, beta_schedule="squaredcos_cap_v2"
            )
            power = schedule.alphas_cumprod.double()
            signal, noise = power.sqrt(), (1 - power).sqrt()
        # rows cancel what float32 would have rounded: near the clean end signal is 1 to four digits
        self._exact = signal.tolist(), noise.tolist()
        self.register_buffer("signal", signal.float(), persistent=False)
        self.register_buffer("noise", noise.float(), persistent=False)

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) levels to train on, int64."""
        return torch.randint(
            self.config.training_steps, (count,), generator=generator, device=self.signal.device
        )

    def corrupt(self, clean: Tensor, epsilon: Tensor, level: Tensor) -> Tensor:
        """Noisy chunks (batch, horizon, action_dim) at levels (batch,)."""
        return _rows(self.signal, level) * clean + _rows(self.noise, level) * epsilon

    def target(self, clean: Tensor, epsilon: Tensor, level: Tensor) -> Tensor:
        """What the denoiser should give for ``corrupt`` of the same arguments."""
        if self.config.prediction == "sample":
            return clean
        if self.config.prediction == "epsilon":
            return epsilon
        if self.config.kind == "flow":
            return epsilon - clean
        return _rows(self.signal, level) * epsilon - _rows(self.noise, level) * clean

    def levels(self) -> list[int]:
        """Of each inference iteration, the noisiest first: training_steps / denoising_steps apart, rounded.

        "flow" begins with pure noise, its last level. "squared_cosine" begins one stride below the end, or a
        tenth of all levels if that is less: at the end next to no signal is left to tell the clean chunk by.
        diffusers' "leading" spacing is the same for 10 steps or more that divide ``training_steps``; with
        fewer it takes noise for a chunk with much signal, and with others it leaves out the noisiest levels.
        """
        training, steps = self.config.training_steps, self.config.denoising_steps
        parts = training if self.config.kind == "flow" else max(steps, min(FEWEST, training))
        # training * (1 - 1 / parts - i / steps), rounded down, without the rounding of floats
        return [training * (parts * (steps - i) - steps) // (parts * steps) for i in range(steps)]

    def rows(self) -> Tensor:
        """(denoising_steps, 8 or 9): a row for each inference iteration, as ``ddim`` or ``samplers`` says."""
        make = {"ddim": ddim_rows, "ddpm": ddpm_rows, "dpm_solver": dpm_solver_rows}[self.config.sampler]
        return make(self.levels(), *self._exact, self.config.prediction, self.config.kind)


def _rows(values: Tensor, level: Tensor) -> Tensor:
    return values[level][:, None, None]
