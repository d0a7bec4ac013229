"""``robopolicy run`` as a process: what it writes, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import tyro
from rich.console import Console
from test_runtime_support import tiny_graphs

from robopolicy.cli._enter_key import EnterKey
from robopolicy.cli.run import Args, run
from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import make_env
from robopolicy.evaluation.run_files import read_run
from robopolicy.runtime import Producer, RunResult, run_realtime, write_bundle
from robopolicy.runtime.control.stop_signals import StopSignals

STATES = ("joint_position", "gripper_opening")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that stays near the home posture, whatever it sees."""
    env = make_env("lift")
    env.reset(seed=0)
    home = env.plant().measured()
    specs = PolicySpecs(env.specs.select(STATES), Horizons(2, 8, 4), noise_shape=(8, len(home)))
    env.close()
    sizes = {name: spec.num_features for name, spec in specs.specs.observation.items()}
    observed = {name: Affine((0.0,) * size, (2.0,) * size) for name, size in sizes.items()}
    action = Affine(tuple(home.tolist()), (1e-3,) * len(home))
    folder = tmp_path_factory.mktemp("run") / "bundle"
    write_bundle(
        folder,
        policy_specs=specs,
        normalisers=Normalisers(observed, action),
        graphs=tiny_graphs(specs),
        policy="tiny",
        denoising_steps=1,
        producer=Producer("test", "0" * 40, {"onnx": onnx.__version__}),
    )
    return folder


def command(bundle: Path, output: Path, *more: str) -> list[str]:
    run = [sys.executable, "-m", "robopolicy.cli.main", "run", "--bundle", str(bundle)]
    return [*run, "--output", str(output), "--priority", "0", *more]


def test_a_run_writes_what_its_report_reads(bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    more = ("--episodes", "2", "--duration-s", "1.0", "--instruction", "lift the cube")
    done = subprocess.run(command(bundle, output, *more), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = read_run(output)
    assert len(stored.episodes) == 2 and stored.summary["faults"] == {}
    first = stored.episodes[0]
    assert first.facts["reason"] == "duration" and first.facts["ticks"] <= 100
    assert len(first.arrays["joins_ns"]) == len(first.arrays["inference_ns"]) >= 1
    braking = 1 << stored.summary["intervention_reasons"].index("brake")
    bits = first.arrays["interventions"]
    assert ((bits & braking) > 0).sum() == first.facts["interventions"].get("brake", 0)
    passed = (first.arrays["references"] == first.arrays["commands"]).all(axis=1)
    assert passed[bits == 0].all() and (bits == 0).sum() > 50


@pytest.mark.usefixtures("hang_up_not_ignored")
@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "terminated"), (signal.SIGHUP, "hung up")])
def test_a_signal_brakes_writes_and_tells_by_its_exit_code(
    bundle: Path, tmp_path: Path, number: signal.Signals, reason: str
) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        command(bundle, output, "--duration-s", "60", "--no-report"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wait_for_worker(process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said.decode()
    assert json.loads((output / "realtime.json").read_text())["reasons"] in ([reason], [])


def test_a_lost_worker_is_a_fault_or_a_restart(bundle: Path, tmp_path: Path) -> None:
    for restarts, code in (("0", 1), ("1", 0)):
        output = tmp_path / restarts
        process = subprocess.Popen(
            command(
                bundle, output, "--no-report", "--duration-s", "5", "--episodes", "1", "--restarts", restarts
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        worker = wait_for_worker(process)
        time.sleep(1.0)  # it may still be starting
        os.kill(worker, signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == code, said.decode()
        summary = json.loads((output / "realtime.json").read_text())
        assert summary["faults"]["worker"] == 1 and summary["restarts"] == int(restarts)
        if restarts == "0":
            assert "ended with status -9" in summary["reasons"][0] and b"fault in episode 0" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--instruction", "x" * 513), "at most 512 bytes"),
        (("--seed", str(2**63)), "2^63 - 1"),
        (("--restarts", "-1"), "max_restarts >= 0"),
        (("--duration-s", "-1"), "duration_s"),
        (("--deadman", "enter"), "stdin is none"),
        (("--deadman", "enter", "--deadman-s", "0"), "timeout must be positive"),
    ],
)
def test_bad_options_are_refused_before_a_folder_is_made(
    bundle: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        run(tyro.cli(Args, args=command(bundle, tmp_path / "out", *more)[4:]))
    assert not (tmp_path / "out").exists()


def test_what_was_run_is_kept_when_the_driver_fails(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [0]

    def fail_in_the_second_episode(*args: object, **options: object) -> RunResult:
        count[0] += 1
        if count[0] == 2:
            raise OSError("the cable is out")
        return run_realtime(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("robopolicy.cli.run.run_realtime", fail_in_the_second_episode)
    more = ("--duration-s", "0.3", "--no-report")
    with pytest.raises(OSError, match="cable"):
        run(tyro.cli(Args, args=command(bundle, tmp_path / "out", *more)[4:]))
    summary = json.loads((tmp_path / "out" / "realtime.json").read_text())
    assert summary["reasons"] == ["duration"] and len(summary["episodes"]) == 1


def test_a_signal_while_an_episode_brakes_begins_no_other(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*args: object, **options: object) -> RunResult:
        with StopSignals():  # as the loop's own
            result = run_realtime(*args, **options)  # type: ignore[arg-type]
            signal.raise_signal(signal.SIGTERM)
        return dataclasses.replace(result, signal="terminated")

    monkeypatch.setattr("robopolicy.cli.run.run_realtime", end)
    more = ("--duration-s", "0.3", "--no-report")
    code = run(tyro.cli(Args, args=command(bundle, tmp_path / "out", *more)[4:]))
    assert code == 128 + signal.SIGTERM
    assert len(json.loads((tmp_path / "out" / "realtime.json").read_text())["episodes"]) == 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of stdin."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield ours
        with contextlib.suppress(OSError):
            os.close(ours)


def test_the_enter_key_is_a_deadman(terminal: int) -> None:
    deadman, text = EnterKey(60.0), io.StringIO()
    os.write(terminal, b"\n\n")
    assert not deadman.held(time.monotonic_ns())
    deadman.begin(Console(file=text), lambda: False)
    assert deadman.held(time.monotonic_ns()) and "press Enter to begin" in text.getvalue()
    os.close(terminal)
    for _ in range(1000):
        if not deadman.held(time.monotonic_ns()):  # the terminal has ended
            return
        time.sleep(0.01)
    raise AssertionError("still held")


def test_a_terminal_that_ends_before_the_first_press_is_said_and_a_signal_ends_the_wait(
    terminal: int,
) -> None:
    deadman, console = EnterKey(60.0), Console(file=io.StringIO())
    deadman.begin(console, lambda: True)
    os.write(terminal, b"\x04")  # Ctrl-D
    with pytest.raises(ConfigError, match="closed before Enter"):
        deadman.begin(console, lambda: False)
    assert not deadman.held(time.monotonic_ns())


def wait_for_worker(process: subprocess.Popen[bytes]) -> int:
    """Process id of its inference worker, once that has been there for a second."""
    for _ in range(3000):
        assert process.poll() is None, process.communicate()[0].decode()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for child in children.read_text().split() if children.exists() else ():
            if b"robopolicy.runtime.inference.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                time.sleep(1.0)
                return int(child)
        time.sleep(0.01)
    raise AssertionError("no worker")
