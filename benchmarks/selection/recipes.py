"""Tasks, demonstrations and trainings of the reranking grid: fixed before any training."""

from __future__ import annotations

from dataclasses import dataclass

#: Candidates, and how many at most the oracle tries.
COUNTS = (1, 5, 10, 30, 100)
MOST_PLAYED = 30
OBJECTIVES = ("cal_ql", "iql", "monte_carlo")
SELECTORS = (*OBJECTIVES, "random_pick", "oracle")
#: The policy alone, trained on all episodes; and the same trained on the successful ones.
PLAIN, FILTERED = "plain", "bc_successes"
FIRST_SEED = 1_000_000  # of the environment, in every evaluation


@dataclass(frozen=True)
class Task:
    """One task with demonstrations of mixed or of good quality.

    Args:
        env: as ``robopolicy eval --env`` takes it.
        level: of the noisy expert; 0 records the scripted one.
        episodes: recorded with the expert.
        corrupted: of human demonstrations, the share that is executed anew with noise; None records an
            expert.
        noise: of these, its standard deviation [px].
        steps_scale: of trainings, relative to the others: human demonstrations take longer to learn.
        observations: that policy and critic see; all states where empty.
        reward: that critics learn from, as ``robopolicy train-value --reward`` takes it.
    """

    name: str
    env: str
    level: float = 0.5
    episodes: int = 100
    corrupted: float | None = None
    noise: float = 0.0
    steps_scale: float = 1.0
    observations: tuple[str, ...] = ()
    reward: str = "sparse"


#: Half of the human demonstrations of Push-T are executed anew with noise on the agent's targets.
PUSHT = Task(
    "pusht",
    "gym_pusht/PushT-v0",
    corrupted=0.5,
    noise=30.0,
    steps_scale=3.0,
    observations=("state",),
    reward="dense",
)
MIXED = (Task("lift", "lift"), Task("place", "place"), Task("drawer", "drawer"), Task("push", "push"), PUSHT)
CLEAN = tuple(Task(f"{task.name}_clean", task.env, level=0.0) for task in MIXED if task.corrupted is None)
DEFAULT_TASKS = ("lift", "place", "pusht")

COMMON = ("--train.threads", "1", "--train.trackers")
FAST = ("--train.learning-rate", "1e-3", "--train.warmup-steps", "50")
QUICK = ("--train.steps", "3", "--train.batch-size", "16")


@dataclass(frozen=True)
class Recipe:
    """How long to train, and what.

    Args:
        words: further words of ``robopolicy train`` or ``train-value``.
    """

    steps: int
    batch_size: int
    words: tuple[str, ...] = ()

    def training(self, task: Task, quick: bool) -> tuple[str, ...]:
        """Words of the command, but for data, output and seed."""
        steps = str(round(self.steps * task.steps_scale))
        length = ("--train.steps", steps, "--train.batch-size", str(self.batch_size))
        keys = ("--train.keys", *task.observations) if task.observations else ()
        return (*COMMON, *(QUICK if quick else length), *self.words, *keys)


#: Small, with few denoising steps, so that a hundred candidates can be afforded on two cores.
BASE = Recipe(
    1500,
    64,
    (*FAST, "--model.channels", "32", "64", "--model.schedule.denoising-steps", "5"),
)
CRITIC = Recipe(
    3000,
    128,
    ("--train.learning-rate", "3e-4", "--critic.members", "5", "--critic.hidden", "128", "128"),
)
#: Of ``one_critic.py``: family to its training.
FAMILIES = {
    "diffusion_unet": BASE,
    "mode": Recipe(
        800,
        64,
        (*FAST, "--model.dim", "64", "--model.expert-hidden", "128", "--model.schedule.denoising-steps", "5"),
    ),
    "gmm": Recipe(3000, 128, FAST),
}
