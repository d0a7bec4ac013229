"""What an export may be asked for, and the trained policy with another number of denoising steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from robopolicy import policies
from robopolicy.core.errors import ConfigError
from robopolicy.export.onnx import OPSET
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.runtime.bundle.manifest import PRECISIONS

FORMS = ("auto", "unrolled", "step")
#: Largest difference from torch, in normalised action units (1 is half the range seen in the data). What
#: was measured on the default policy is less than half of these, see docs/export.md.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-1}


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        form: of the denoising loop: "unrolled" in one graph, one "step" that the runtime repeats, or "auto"
            for the faster of the two here (see ``choice.choose_form``).
        precision: "fp32", "fp16" (for GPUs) or "int8" (weights alone), see ``precision.with_precision``.
        denoising_steps: inference iterations; 0 is as trained.
        opset: version of ONNX's operator set.
        threads: of the CPU that is measured on.
        candidates: how many at once, for parity and measurement.
        tolerance: largest difference from torch, in normalised action units; None takes ``TOLERANCES``.
    """

    form: str = "auto"
    precision: str = "fp32"
    denoising_steps: int = 0
    opset: int = OPSET
    threads: int = 1
    candidates: tuple[int, ...] = (1, 16)
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"form {self.form!r} is not one of {FORMS}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r} is not one of {PRECISIONS}")
        if self.denoising_steps < 0 or self.threads < 1:
            raise ConfigError(
                f"denoising_steps must be >= 0 and threads >= 1, got {self.denoising_steps}, {self.threads}"
            )
        if not self.candidates or min(self.candidates) < 1:
            raise ConfigError(f"candidates must be counts >= 1, got {self.candidates}")

    @property
    def largest_difference(self) -> float:
        """The tolerance that applies."""
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance


def with_denoising_steps(policy: TorchPolicy, family: str, count: int) -> TorchPolicy:
    """The same weights with another number of inference iterations; 0 leaves the policy as it is.

    Raises:
        ConfigError: the family has no such number, or its noise schedule does not allow it.
    """
    if count == 0 or len(policy.module.steps) == count:
        return policy
    config = getattr(policy.module, "config", None)
    if not hasattr(getattr(config, "schedule", None), "denoising_steps"):
        raise ConfigError(f"policies of the family {family!r} have no denoising_steps to change")
    changed = dataclasses.replace(
        config, schedule=dataclasses.replace(config.schedule, denoising_steps=count)
    )
    module: PolicyModule = policies.family(family).build(changed, policy.policy_specs)
    with torch.no_grad():
        module.load_state_dict(policy.module.state_dict(), strict=True)
    return TorchPolicy(module, policy.normalisers, policy.device, policy.digest, policy.text_encoder)
