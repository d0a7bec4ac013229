"""The policies of the twin study, spread on purpose from poor to good; trained through ``robopolicy``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console

from robopolicy.core.provenance import provenance
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import EXPERTS, load_entry, make_env
from robopolicy_sim.motion import MotionLimits

SMALL = ("--train.learning-rate", "1e-3", "--train.threads", "1", "--model.channels", "32", "64", "128")


@dataclass(frozen=True)
class Demonstrations:
    """What one store holds.

    Args:
        task: recorded with its scripted expert, in the nominal simulation.
        episodes: how many.
        noise: executed while the clean action is recorded [rad].
        action_space: of the recorded actions.
        speed: factor on the expert's limits of velocity, acceleration and jerk.
    """

    task: str = "lift"
    episodes: int = 100
    noise: float = 0.005
    action_space: str = "joint_position"
    speed: float = 1.0

    @property
    def name(self) -> str:
        speed = "" if self.speed == 1.0 else f"_speed_{self.speed:g}"
        return f"{self.task}_{self.episodes}_{self.action_space}_{self.noise:g}{speed}"


@dataclass(frozen=True)
class StudyPolicy:
    """One policy: its demonstrations and how it differs in training.

    Args:
        steps: of 128 windows.
        options: further words of ``robopolicy train``.
        execute: actions executed of each chunk, of another policy's training named by ``run``.
        run: folder of the training; the policy's own name unless given.
    """

    name: str
    demonstrations: Demonstrations
    steps: int = 600
    options: tuple[str, ...] = ()
    execute: int = 8
    run: str = ""

    @property
    def task(self) -> str:
        return self.demonstrations.task

    @property
    def folder(self) -> str:
        return self.run or self.name


_LONG = ("--train.horizons.prediction", "32", "--train.horizons.action", "31")  # almost open loop
_LIFT, _PLACE = Demonstrations(), Demonstrations("place")
POLICIES = (
    StudyPolicy("lift_steps_450", _LIFT, 450),
    StudyPolicy("lift_steps_600", _LIFT, 600),
    StudyPolicy("lift_steps_600_chunks_of_15", _LIFT, 600, execute=15, run="lift_steps_600"),
    StudyPolicy("lift_steps_600_chunks_of_2", _LIFT, 600, execute=2, run="lift_steps_600"),
    StudyPolicy("lift_steps_1200", _LIFT, 1200),
    StudyPolicy("lift_steps_1200_chunks_of_15", _LIFT, 1200, execute=15, run="lift_steps_1200"),
    StudyPolicy("lift_demonstrations_15", Demonstrations(episodes=15), 800),
    StudyPolicy("lift_demonstrations_30", Demonstrations(episodes=30), 800),
    StudyPolicy("lift_clean", Demonstrations(noise=0.0)),
    StudyPolicy("lift_noisy", Demonstrations(noise=0.015)),
    StudyPolicy("lift_joint_delta", Demonstrations(action_space="joint_delta")),
    StudyPolicy("lift_ee_pose", Demonstrations(action_space="ee_pose")),
    StudyPolicy("lift_one_observation", _LIFT, options=("--train.horizons.observation", "1")),
    StudyPolicy("lift_slow", Demonstrations(speed=0.6)),
    StudyPolicy("lift_fast", Demonstrations(speed=2.0)),
    StudyPolicy("lift_chunks_of_31", _LIFT, 800, _LONG, execute=31),
    StudyPolicy("lift_fast_chunks_of_31", Demonstrations(speed=2.0), 800, _LONG, execute=31),
    StudyPolicy("place_steps_600", _PLACE, 600),
    StudyPolicy("place_steps_1200", _PLACE, 1200),
    StudyPolicy("place_steps_1200_chunks_of_15", _PLACE, 1200, execute=15, run="place_steps_1200"),
    StudyPolicy("place_demonstrations_40", Demonstrations("place", episodes=40), 800),
)

_FEW = Demonstrations(episodes=30)
_LIGHT = ("--train.batch-size", "64", "--model.channels", "32", "64")
QUICK = tuple(StudyPolicy(f"lift_quick_{steps}", _FEW, steps, options=_LIGHT) for steps in (100, 200, 400))


def demonstrate(wanted: Demonstrations, root: Path) -> Path:
    """The store of these demonstrations, recorded unless it is there whole.

    As ``robopolicy record`` does, which has no option for the expert's speed.
    """
    path, done = root / f"{wanted.name}.zarr", root / f"{wanted.name}.done"
    if done.is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    env = make_env(wanted.task, action_space=wanted.action_space)
    limits = None
    if wanted.speed != 1.0:
        usual = MotionLimits()
        limits = MotionLimits(**{f.name: wanted.speed * getattr(usual, f.name) for f in fields(usual)})
    noise = wanted.noise if wanted.action_space == "joint_position" else 0.0
    expert = load_entry(EXPERTS, "expert", wanted.task)(noise=noise, limits=limits)
    store = EpisodeStore.create(path, env.specs, provenance(demonstrations=wanted))
    try:
        record(env, expert, store, range(wanted.episodes), Console(quiet=True))
    finally:
        env.close()
    done.touch()
    return path


def train(policy: StudyPolicy, root: Path) -> Path:
    """The finished run of this policy; an interrupted one begins again."""
    run = root / "policies" / policy.folder
    if not (run / "train.json").is_file():
        store = demonstrate(policy.demonstrations, root / "demonstrations")
        shutil.rmtree(run, ignore_errors=True)
        _robopolicy(
            "train", "--store", str(store), "--output", str(run), "--train.steps", str(policy.steps),
            *SMALL, *policy.options,  # the later word counts
        )  # fmt: skip
    return run


def _robopolicy(*words: str) -> None:
    """One command line, as a reader of the results would type it."""
    command = [sys.executable, "-c", "from robopolicy.cli.main import main; raise SystemExit(main())", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
