"""The policy to be trained: new or from another run's weights; and saved with all it needs to be used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robopolicy import policies
from robopolicy.core.normalise import Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.windows import WindowSource
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.policies._saved import TEXT_ENCODER, save_policy
from robopolicy.runtime.language.choose import KNOWN
from robopolicy.training.config import TrainConfig
from robopolicy.training.ema import Ema
from robopolicy.training.extend import read_extended, start_extension
from robopolicy.training.finetune import FinetuneConfig, start_from
from robopolicy.training.inputs import Language
from robopolicy.training.job import Job
from robopolicy.training.lora import plain_weights
from robopolicy.training.source import Source, check_encoder, read_source


@dataclass(frozen=True)
class Built:
    """A module on its device.

    Args:
        language: None for a policy without.
        said: about what was taken from another run.
    """

    module: PolicyModule
    family: str
    policy_config: Any
    normalisers: Normalisers
    language: Language | None
    said: tuple[str, ...]

    def save(self, folder: Path, ema: Ema) -> None:
        """Write the policy with averaged weights, adapters merged into them."""
        weights = plain_weights(self.module, ema.weights)
        save_policy(
            folder,
            family=self.family,
            config=self.policy_config,
            specs=self.module.policy_specs,
            normalisers=self.normalisers,
            weights={name: value.cpu() for name, value in weights.items()},
            text_encoder=self.language.encoder if self.language else None,
        )

    def policy(self, device: str) -> TorchPolicy:
        """To sample from with the weights of the moment."""
        encoder = self.language.encoder if self.language else None
        return TorchPolicy(self.module, self.normalisers, device, text_encoder=encoder)


def read_start(config: TrainConfig, kept: Path | None = None) -> tuple[Source | None, TrainConfig]:
    """The policy to start from, None for a new one; and the options, as that policy asks for them.

    Args:
        kept: a resumed run's own copy of that policy, where it has one; the original may be gone or changed.
    """
    if not (config.extend.run or config.finetune.run):
        return None, config
    if kept is not None and kept.is_dir():
        told = config.instruction
        if told not in ("", *KNOWN) and not Path(told).is_dir():  # it went with the original
            config = replace(config, instruction=str(kept / TEXT_ENCODER))
        part = "extend" if config.extend.run else "finetune"
        moved = replace(config, **{part: replace(getattr(config, part), run=str(kept))})
        source, found = read_start(moved)
        return source, replace(found, **{part: getattr(config, part)})
    if config.extend.run:
        return read_extended(config)
    return read_source(config.finetune.run), config


def _renewed(config: FinetuneConfig) -> bool:
    """Whether what reads the instructions may be new."""
    return bool(config.take) or config.observations == "new"


def build(job: Job, windows: WindowSource, source: Source | None, device: str) -> Built:
    """The untrained module, or one that starts from another run's weights.

    Raises:
        ConfigError, SpecError: the family's options, the data and the other run do not fit together.
    """
    config = job.train
    family, policy_config = policies.family(job.family), job.policy
    language = Language(config) if config.instruction else None
    if config.extend.run and source is not None and language is not None:
        made = start_extension(source, windows, language, config.extend)
        module, normalisers = made.module.to(device), made.normalisers
        return Built(module, job.family, made.policy_config, normalisers, language, made.lines)
    if language is not None and hasattr(family, "with_tasks"):
        policy_config = family.with_tasks(policy_config, windows.instructions, language.phrasings)
    dim = language.encoder.dim if language else 0
    specs = PolicySpecs(windows.specs, config.horizons, instruction_dim=dim)
    normalisers = Normalisers.fit(windows.specs, windows.observation, windows.action, config.normaliser)
    module = family.build(policy_config, specs)
    said: list[str] = []
    if source is not None:
        if language is not None and source.encoder and not _renewed(config.finetune):
            check_encoder(source, language.encoder)
        start = start_from(
            source, module, policy_config=policy_config, normalisers=normalisers, config=config.finetune
        )
        normalisers, said = start.normalisers, start.lines()
    if language is not None and hasattr(module, "set_instructions"):  # last: the run's are of its own tasks
        module.set_instructions(language.tasks(windows))
    return Built(module.to(device), job.family, policy_config, normalisers, language, tuple(said))
