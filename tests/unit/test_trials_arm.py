"""Guided trials on a simulated arm: in this process on a fake clock, and the whole command in a terminal."""

from __future__ import annotations

import dataclasses
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_runtime_support import tiny_graphs

from robopolicy import robots
from robopolicy.core.errors import ConfigError, SpecError, UnknownNameError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import make_env
from robopolicy.evaluation.stored import PolicyRecord, StoppingRule, read_evaluation
from robopolicy.evaluation.trials.arm import check_name, make_arm, starts_for
from robopolicy.evaluation.trials.protocol import Protocol, open_log
from robopolicy.evaluation.trials.session import Session
from robopolicy.evaluation.trials.simulated import SimulatedArm
from robopolicy.evaluation.trials.unblind import unblind
from robopolicy.runtime import LocalClient, Producer, write_bundle
from robopolicy.runtime.control.preconditions import check_names


@pytest.fixture(scope="module")
def specs() -> PolicySpecs:
    env = make_env("lift")
    try:
        return PolicySpecs(env.specs, Horizons(2, 16, 8), (1,))
    finally:
        env.close()


class FakeTime:
    def __init__(self) -> None:
        self.now_ns = 10**15

    def clock(self) -> int:
        return self.now_ns

    def sleep_until(self, deadline_ns: int) -> None:
        self.now_ns = max(self.now_ns, deadline_ns)


class Drift:
    """Moves every joint by ``rate`` [rad/step] from where it is."""

    def __init__(self, specs: PolicySpecs, rate: float) -> None:
        self.policy_specs, self._rate = specs, rate

    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        joints = observation["joint_position"][:, -1]
        grip = observation["gripper_opening"][:, -1]
        now = np.concatenate([joints, grip], axis=1)[:, None, None]
        steps = np.arange(16)[:, None] * np.array([self._rate] * joints.shape[1] + [0.0])
        return np.broadcast_to(now + steps, (*noise.shape[:2], 16, now.shape[-1])).astype(np.float32)


def make_simulated(specs: PolicySpecs, *rates: float, **more: object) -> SimulatedArm:
    clock = FakeTime()
    clients = [LocalClient(Drift(specs, rate), clock.clock) for rate in rates]
    return SimulatedArm(
        "lift", clients, duration_s=0.5, clock=clock.clock, sleep_until=clock.sleep_until, **more
    )


def test_each_policy_runs_from_the_start_its_seed_stands_for(specs: PolicySpecs) -> None:
    with make_simulated(specs, 0.0, 0.05) as arm:
        first, moved, again, other = (arm.run(*key) for key in ((0, 7), (1, 7), (0, 7), (0, 8)))
        assert first == again and first.reason == "duration" and first.seconds == 0.5 and first.steps == 5
        assert len({first.action_hash, moved.action_hash, other.action_hash}) == 3
        assert not first.fault and len(first.inference_ms) >= 1
        arm.prepare(7)
        picture = arm.read()
        arm.prepare(8)
        changed = arm.read()
        if picture is not None and changed is not None:  # None where nothing can be drawn
            assert picture.dtype == np.uint8 and picture.shape[2] == 3 and (picture != changed).any()
    with make_simulated(specs, 0.0, stop=lambda: True) as arm:
        assert arm.run(0, 7).reason == "stopped"
        assert arm.run(0, 7).steps == 0


def test_a_signal_while_the_arm_brakes_ends_the_session(specs: PolicySpecs) -> None:
    with make_simulated(specs, 0.05) as arm:
        plant, count = arm._plants[0], [0]
        command = plant.command

        def late(position: np.ndarray) -> None:
            command(position)
            count[0] += 1
            if count[0] == 52:  # it runs for 50
                signal.raise_signal(signal.SIGTERM)

        plant.command = late
        with pytest.raises(KeyboardInterrupt):
            arm.run(0, 7)
        assert count[0] >= 52


def test_joints_in_another_order_are_refused(specs: PolicySpecs) -> None:
    parts = specs.specs.action.parts
    turned = dataclasses.replace(parts[0], names=parts[0].names[::-1])
    action = dataclasses.replace(specs.specs.action, parts=(turned, *parts[1:]))
    other = PolicySpecs(dataclasses.replace(specs.specs, action=action), specs.horizons, (1,))
    robot = robots.load("fr3")
    check_names(specs, robot)
    with pytest.raises(SpecError, match=r"'fr3_joint7', 'fr3_joint6'.* takes \('fr3_joint1', 'fr3_joint2'"):
        check_names(other, robot)
    with pytest.raises(SpecError, match="'fr3_joint7', 'fr3_joint6'"):
        make_simulated(other, 0.0)


def test_a_session_on_the_simulated_arm(tmp_path: Path, specs: PolicySpecs) -> None:
    """The person calls a run a success when the arm has moved."""

    class Watcher:
        drain = staticmethod(lambda: "")
        phase = ""

        def __next__(self) -> str:
            if self.phase == "judge":
                return "s" if moved[-1] else "f"
            return " " if self.phase == "set up" else "\n"

    moved: list[bool] = []
    watcher = Watcher()
    records = tuple(PolicyRecord(name, "", specs) for name in ("still", "drifting"))
    with make_simulated(specs, 0.0, 0.05) as arm:
        starts = starts_for("lift", None, blocks=3, repeats=1)
        protocol = Protocol("lift", "the arm moves", records, starts, seed=1, first_seed=7)

        def run(policy: int, seed: int) -> object:
            measured = arm.run(policy, seed)
            env = arm._envs[policy]
            joints = len(env.robot.joints)
            env_now = env.simulation.measured()[:joints]
            env.reset(seed=seed)
            moved.append(float(np.abs(env_now - env.simulation.measured()[:joints]).max()) > 0.05)
            return measured

        log = open_log(tmp_path, protocol)
        session = Session(
            protocol, log, run=run, prepare=arm.prepare, keys=watcher, now=lambda: "2025-03-01T10:00:00Z",
            screens=[lambda view: setattr(watcher, "phase", view.phase)],
        )  # fmt: skip
        assert session.play() == ""
    unblind(tmp_path, protocol, log, stopping=StoppingRule.fixed(3), command=("robopolicy", "eval"))
    still, drifting = (read_evaluation(tmp_path / name) for name in ("1_still", "2_drifting"))
    assert (still.summary.successes, drifting.summary.successes) == (0, 3)
    assert [e.steps for e in still.episodes] == [5, 5, 5] and still.environment.name == "robot:lift"
    assert len({e.action_hash for e in (*still.episodes, *drifting.episodes)}) == 6


def test_what_does_not_fit_is_refused(tmp_path: Path, specs: PolicySpecs) -> None:
    other = PolicySpecs(specs.specs.select(("joint_position",)), specs.horizons, (1,))
    wrong = PolicySpecs(
        type(specs.specs)(
            {"joint_position": type(specs.specs.observation["ee_pose"])((3,))}, specs.specs.action, 10.0
        ),
        specs.horizons,
        (1,),
    )
    make_arm("lift", [LocalClient(Drift(other, 0.0))], duration_s=1.0, stop=lambda: False).close()  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="joint_position"):
        make_arm("lift", [LocalClient(Drift(wrong, 0.0))], duration_s=1.0, stop=lambda: False)
    with pytest.raises(UnknownNameError, match=r"unknown arm 'nope'; known: .*lift \(simulated\)"):
        check_name("nope")
    with pytest.raises(ConfigError, match="from seeds"):
        starts_for("lift", tmp_path, blocks=3, repeats=1)
    with pytest.raises(ConfigError, match="at least one block"):
        starts_for("lift", None, blocks=0, repeats=1)


def write_lift_bundle(folder: Path, specs: PolicySpecs, scale: float) -> None:
    """Stays near the home position of the arm."""
    specs = PolicySpecs(specs.specs, specs.horizons, specs.chunk_shape)
    maps = {
        name: Affine((0.0,) * spec.num_features, (1.0,) * spec.num_features)
        for name, spec in specs.specs.observation.items()
    }
    env = make_env("lift")
    centre = (*env.robot.home, env.robot.gripper.opening_max)
    env.close()
    write_bundle(
        folder,
        policy_specs=specs,
        normalisers=Normalisers(maps, Affine(tuple(map(float, centre)), (0.02,) * len(centre))),
        graphs=tiny_graphs(specs, scale=scale),
        policy="tiny",
        denoising_steps=1,
        producer=Producer("test", "0" * 40, {}),
    )


COMMAND = """
import sys
from pathlib import Path
from robopolicy.cli._trial import TrialArgs, run_trials
folder = Path(sys.argv[1])
policies = (folder / "left", folder / "right")
sys.exit(run_trials(TrialArgs("lift", policies, folder / "out", "it moves", blocks=1, duration_s=0.3)))
"""


def converse(folder: Path, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run the command in a terminal of its own; press a key each time its text appears."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder)],
        stdin=theirs, stdout=theirs, stderr=subprocess.STDOUT, env=environment,
    )  # fmt: skip
    os.close(theirs)
    text, waiting, seen = "", list(answers), 0
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.2)
        try:
            data = os.read(ours, 4096) if ready else b""
        except OSError:  # the other end is closed
            break
        text += data.decode(errors="replace")
        if waiting and waiting[0][0] in text[seen:]:
            seen = text.index(waiting[0][0], seen) + 1
            time.sleep(0.7)  # keys pressed before the question do not count
            os.write(ours, waiting.pop(0)[1].encode())
        if process.poll() is not None and not ready:
            break
    process.kill()
    os.close(ours)
    return process.wait(), text


def test_the_command_in_a_terminal_pauses_and_goes_on(tmp_path: Path, specs: PolicySpecs) -> None:
    for name, scale in (("left", 0.1), ("right", 0.3)):
        write_lift_bundle(tmp_path / name, specs, scale)
    answers = [("trial 1 of 2", " "), ("judge", "n"), ("type a note", "über\n"), ("noted: über", "s")]
    status, text = converse(tmp_path, [*answers, ("trial 2 of 2", "q")])
    assert status == 0, text
    assert "http://127.0.0.1:" in text and "paused" in text
    assert not (tmp_path / "out" / "report.html").exists()
    before_the_end = text[text.index("trial 1 of 2") :]
    assert "left" not in before_the_end and "right" not in before_the_end
    status, text = converse(tmp_path, [("trial 2 of 2", " "), ("judge", "f"), ("no more trials", "\n")])
    assert status == 0, text
    assert "trial 1 of 2" not in text and "report.html" in text
    left, right = (read_evaluation(tmp_path / "out" / name) for name in ("1_left", "2_right"))
    assert left.summary.n_episodes == right.summary.n_episodes == 1
    assert left.summary.successes + right.summary.successes == 1
    assert list({**left.notes, **right.notes}.values()) == ["über"]
    assert left.policy.digest and left.policy.digest != right.policy.digest
