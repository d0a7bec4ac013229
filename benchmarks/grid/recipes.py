"""The tasks and the trainings of the policy table; nothing is tuned per task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One column of the table.

    Args:
        env: as ``robopolicy eval --env`` takes it.
        peer: lives in the second environment (docs/other_environments.md): bundles are evaluated there.
        record: further words of ``robopolicy record``.
    """

    name: str
    env: str
    peer: bool = False
    record: tuple[str, ...] = ()

    @property
    def store(self) -> str:
        return self.env.replace("/", "_") + ".zarr"


TASKS = (
    Task("lift", "lift"),
    Task("drawer", "drawer"),
    Task("place", "place"),
    Task("push-v3", "metaworld/push-v3", peer=True),
    Task("pick-place-v3", "metaworld/pick-place-v3", peer=True),
    Task("peg-insert-side-v3", "metaworld/peg-insert-side-v3", peer=True),
)
EPISODES_RECORDED = 100
EPISODES_RECORDED_QUICK = 4
#: Words of every training.
COMMON = ("--train.threads", "1", "--train.learning-rate", "1e-3", "--train.warmup-steps", "50")
QUICK = ("--train.steps", "2", "--train.batch-size", "16")


@dataclass(frozen=True)
class Recipe:
    """One row of the table: a family and its training, the same for every task.

    Args:
        steps, batch_size: about 70 processor seconds of training for every family that denoises; the two
            that do not learn faster and are given about 50.
        words: further words of ``robopolicy train``.
    """

    family: str
    steps: int
    batch_size: int
    words: tuple[str, ...] = ()

    def training(self, quick: bool) -> tuple[str, ...]:
        """Words of ``robopolicy train``, but for data, output and seed."""
        length = ("--train.steps", str(self.steps), "--train.batch-size", str(self.batch_size))
        return (*COMMON, *(QUICK if quick else length), *self.words)


RECIPES = (
    Recipe("diffusion_unet", 1200, 64, ("--model.channels", "32", "64", "128")),
    Recipe("diffusion_transformer", 1000, 64, ("--model.dim", "96")),
    Recipe("mode", 800, 64, ("--model.dim", "96", "--model.expert-hidden", "192")),
    Recipe("sdp", 850, 64, ("--model.dim", "96", "--model.expert-hidden", "192")),
    Recipe("gmm", 3000, 128),
    Recipe("behaviour_cloning", 4500, 128),
)
