"""How to train a critic: what ``TrainConfig`` is to a policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from robopolicy.core.errors import ConfigError
from robopolicy.training.config import HeldOutConfig, LoopConfig

UNJUDGED = ("skip", "fail")


@dataclass(frozen=True)
class ValueTrainConfig(LoopConfig):
    """How to train a critic. Failed episodes are always used: they are what values differ by.

    A critic soon knows its few episodes by heart, and then ranks others worse: steps are few, many episodes
    are held out, and the critic of the best measurement is the one that is used.

    Args:
        unjudged: episodes that nobody judged: "skip" leaves them out, "fail" takes them as failed.
        policy_chunks: that are drawn from the policy at each window before the training starts, where
            there is a policy and the objective asks for some.
        policy_stride: draws them at every so many windows of an episode alone; those in between use the
            chunks of the one before.
    Raises:
        ConfigError: names the field.
    """

    steps: int = 1_500
    batch_size: int = 256
    learning_rate: float = 3e-4
    held_out: HeldOutConfig = field(default_factory=lambda: HeldOutConfig(fraction=0.2, every=250))
    unjudged: str = "skip"
    policy_chunks: int = 4
    policy_stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unjudged not in UNJUDGED:
            raise ConfigError(f"unjudged {self.unjudged!r} is not one of {UNJUDGED}")
        for name in ("policy_chunks", "policy_stride"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
