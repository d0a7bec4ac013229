"""How to train: one frozen tree of options, read from the command line and saved beside the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import MODES
from robopolicy.datasets.goals import GoalConfig
from robopolicy.training.extend import ExtendConfig
from robopolicy.training.finetune import FinetuneConfig
from robopolicy.training.optimiser import OptimiserConfig

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class HeldOutConfig:
    """The loss on episodes that are not trained on.

    Args:
        fraction: of each store's episodes to hold out, whole episodes by chance; 0 trains on all.
        every: steps between measurements.
        windows: at most so many of the held-out ones, the same each time.
    Raises:
        ConfigError: names the field.
    """

    fraction: float = 0.0
    every: int = 1_000
    windows: int = 4_096

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise ConfigError(f"held_out.fraction must lie in [0, 1), got {self.fraction}")
        if self.every < 1 or self.windows < 1:
            raise ConfigError(f"held_out.every and windows must be >= 1, got {self.every} and {self.windows}")


@dataclass(frozen=True)
class RolloutConfig:
    """Episodes in simulation during training, with the averaged weights.

    Args:
        env: task names or Gymnasium ids, several for a policy of several tasks; empty runs none.
        option: of every environment, as NAME=VALUE, the value in YAML.
        every: steps between them.
        episodes: in each environment each time, on the same seeds.
        seed: the first of them; final evaluations begin at 1,000,000, so these stay apart.
        workers: processes for the environments; 0 keeps them in this one.
    Raises:
        ConfigError: names the field.
    """

    env: tuple[str, ...] = ()
    option: tuple[str, ...] = ()
    every: int = 5_000
    episodes: int = 20
    seed: int = 500_000
    workers: int = 0

    def __post_init__(self) -> None:
        if self.every < 1 or self.episodes < 1 or self.workers < 0:
            raise ConfigError(
                "rollouts.every and episodes must be >= 1 and workers >= 0, "
                f"got {self.every}, {self.episodes} and {self.workers}"
            )


@dataclass(frozen=True)
class LoopConfig(OptimiserConfig):
    """How anything is trained on demonstrations, a policy or a critic. Begins with the optimiser's options.

    Args:
        steps: optimiser steps.
        batch_size: windows per step, over all processes.
        accumulate: parts that a batch is computed in, one after another; more need less memory.
        seconds: ends the training early when it has computed for so long; 0 does not. The learning rate
            still falls over ``steps``, so that runs repeat; choose ``steps`` to fit.
        precision: "fp32", or autocast to "bf16" or "fp16" (with loss scaling, on a GPU).
        compile: the networks by torch.compile.
        ema_power: how soon the averaged weights forget: decay 1 - (1 + step) ** -power.
        keys: observations to use; empty means every state and no image. "goal.KEY" is KEY at a later step.
        goal: how those are drawn.
        instruction: text encoder of the episodes' instructions: "words", the built-in one, or the folder of
            another; empty ignores instructions.
        phrasings: YAML file of other ways to say each instruction, one of them drawn for every window; empty
            uses instructions as they are.
        normaliser: of observations, "min_max" or "gaussian"; actions always map onto [-1, 1].
        threads: of torch on the CPU; 0 leaves torch's own choice.
        loader_threads: that decode camera frames, where these do not fit in memory.
        memory_gib: demonstrations held in memory; cameras beyond it are decoded when sampled [GiB].
        device: "auto" takes GPUs where there are any; "cpu" and "cuda" insist.
        save_every: steps between checkpoints; the last step is always saved.
        keep: newest checkpoints that stay on the disk.
        log_every: steps between lines of ``metrics.jsonl``.
        trackers: that get the metrics: "tensorboard", "wandb", "mlflow"; "auto" is TensorBoard where it is
            installed; none at all when empty.
    Raises:
        ConfigError: names the field.
    """

    steps: int = 10_000
    batch_size: int = 128
    accumulate: int = 1
    seconds: float = 0.0
    precision: str = "fp32"
    compile: bool = False
    ema_power: float = 0.75
    keys: tuple[str, ...] = ()
    goal: GoalConfig = field(default_factory=GoalConfig)
    instruction: str = ""
    phrasings: str = ""
    horizons: Horizons = field(default_factory=Horizons)
    normaliser: str = "min_max"
    seed: int = 0
    threads: int = 0
    loader_threads: int = 2
    memory_gib: float = 2.0
    device: str = "auto"
    save_every: int = 1_000
    keep: int = 2
    log_every: int = 50
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    trackers: tuple[str, ...] = ("auto",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r} is not one of {PRECISIONS}")
        if self.normaliser not in MODES:
            raise ConfigError(f"normaliser {self.normaliser!r} is not one of {MODES}")
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "loader_threads",
            "save_every",
            "keep",
            "log_every",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.phrasings and not self.heeds_instructions:
            raise ConfigError("phrasings need an instruction encoder, 'words' for instance")
        for name in ("seconds", "memory_gib"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if not 0 < self.ema_power < math.inf:
            raise ConfigError(f"ema_power must be positive and finite, got {self.ema_power}")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"batch_size {self.batch_size} does not fall into accumulate {self.accumulate}")

    @property
    def heeds_instructions(self) -> bool:
        return bool(self.instruction)


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """How to train a policy.

    Args:
        include_failures: train also on episodes that are marked as failed.
    """

    include_failures: bool = False
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    extend: ExtendConfig = field(default_factory=ExtendConfig)

    @property
    def heeds_instructions(self) -> bool:
        return bool(self.instruction or self.extend.run)
