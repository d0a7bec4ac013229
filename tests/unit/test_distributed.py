"""Two processes on CPUs (gloo) train as one does: same gradients, same run, one of them writes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import two_processes
from safetensors.torch import load_file
from training_runs import lines, make_store, quick

from robopolicy.core.errors import ConfigError
from robopolicy.policies._saved import load_policy
from robopolicy.training.distributed import Processes, join
from robopolicy.training.shared_draws import SharedDraws

pytestmark = pytest.mark.usefixtures("one_thread")
TESTS = Path(__file__).parents[1]
TRAIN = (
    "--policy", "diffusion_unet", "--train.steps", "12", "--train.batch-size", "16", "--train.warmup-steps",
    "3", "--train.learning-rate", "3e-3", "--train.horizons.prediction", "8", "--train.horizons.action", "4",
    "--train.threads", "1", "--train.device", "cpu", "--train.save-every", "5", "--model.channels", "8", "16",
    "--model.step-embedding", "8", "--model.schedule.training-steps", "20",
    "--model.schedule.denoising-steps", "4", "--train.log-every", "4", "--train.accumulate", "2",
    "--train.trackers",
)  # fmt: skip


def torchrun(*words: str | Path) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    return [sys.executable, *start, "--master-port", str(port), *map(str, words)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(*words: str | Path) -> None:
    done = subprocess.run(
        torchrun(*words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run(TESTS / "two_processes.py", folder)
    return folder


@pytest.mark.parametrize("case", two_processes.CASES)
def test_gradients_and_updates_are_those_of_one_process(folder, case):
    expected = two_processes.gradients(case, Processes())
    first, second = (load_file(folder / f"{case}_{rank}.safetensors") for rank in range(2))
    assert set(first) == set(expected)
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        if not name.startswith("weight."):  # AdamW makes steps of rounding errors where a gradient is zero
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6, msg=name)
    norms = {n: v.norm() for n, v in expected.items() if n.startswith("gradient.")}
    assert max(norms.values()) > 1e-2
    vision = [norm for name, norm in norms.items() if "vision" in name]
    assert max(vision) > 1e-4


def test_only_the_main_process_writes_and_its_failure_is_everybodys(folder):
    assert (folder / "written_by_0").exists() and not (folder / "written_by_1").exists()
    assert (folder / "refused_0").read_text() == "the disk is full"
    assert (folder / "refused_1").read_text() == "the main process failed: the disk is full"


@contextlib.contextmanager
def stopped_after_checkpoint(run: Path, command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 200
        while not list(run.glob("checkpoints/step_*")):
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.02)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_training_of_two_processes_killed_and_resumed_is_that_of_one(tmp_path):
    store = make_store(tmp_path / "store.zarr")
    quick(store, tmp_path / "one", accumulate=2)
    two = tmp_path / "two"
    command = ("-m", "robopolicy.cli.main", "train")
    words = [*command, "--store", store.path, "--output", two, *TRAIN]
    with stopped_after_checkpoint(two, torchrun(*words)):
        pass
    if not (two / "train.json").exists():  # as good as always
        run(*command, "--resume", two)
    expected, found = lines(tmp_path / "one"), lines(two)
    assert [line["step"] for line in found] == [4, 8, 12]
    for one, other in zip(expected, found):
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-3)
    load_policy(two)


def draws(rows: int, generator: torch.Generator) -> list[torch.Tensor]:
    images = torch.zeros(3 * rows, 2)
    odds = torch.ones(rows, 4)
    return [
        torch.randn((rows, 5, 2), generator=generator),
        torch.randn(rows, 5, generator=generator),
        torch.randint(100, (rows,), generator=generator),
        torch.rand(images.shape, generator=generator, device=images.device),
        torch.rand_like(images, generator=generator),
        torch.multinomial(odds, 2, generator=generator),
    ]


def test_shares_of_draws_are_cut_from_the_whole_and_leave_the_generator_in_the_same_state():
    generator = torch.Generator().manual_seed(1)
    whole, after = draws(8, generator), generator.get_state()
    for rank in range(2):
        generator = torch.Generator().manual_seed(1)
        with SharedDraws(4, rank, 2):
            parts = draws(4, generator)
        assert torch.equal(generator.get_state(), after)
        for all_rows, part in zip(whole, parts):
            count = len(part)
            assert torch.equal(part, all_rows[rank * count : (rank + 1) * count])


def test_draws_that_are_not_per_row_come_out_alike_and_others_are_left_alone():
    outside = torch.rand(3, generator=torch.Generator().manual_seed(1))
    for rank in range(2):
        with SharedDraws(4, rank, 2):
            assert torch.equal(torch.rand(3, generator=torch.Generator().manual_seed(1)), outside)
            assert torch.rand(4).shape == (4,)  # no generator: none of its business


def test_draws_that_would_be_this_process_s_alone_are_refused():
    generator = torch.Generator()
    with SharedDraws(4, 1, 2):
        for draw in (
            lambda: torch.randperm(4, generator=generator),
            lambda: torch.normal(0.0, 1.0, (4,), generator=generator),
            lambda: torch.zeros(4).normal_(generator=generator),
        ):
            with pytest.raises(
                NotImplementedError, match=r"draws for this process alone; use one of \['bern"
            ):
                draw()


def test_one_process_needs_no_launcher_and_nothing_of_accelerate(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes = join("cpu")
    assert processes == Processes(0, 1, "cpu", None) and processes.main
    assert processes.average({"loss": 2.5}) == {"loss": 2.5} and processes.any(True)
    ran = []
    processes.on_main(lambda: ran.append(1))
    assert ran == [1]
    with pytest.raises(ZeroDivisionError):
        processes.on_main(lambda: 1 / 0)


def test_batches_are_shared_evenly_or_refused():
    rows = list(range(12))
    parts = [[rows[i] for i in Processes(rank, 3).share(12)] for rank in range(3)]
    assert [row for part in parts for row in part] == rows
    with pytest.raises(ConfigError, match="batch_size 10 cannot be shared by 3 processes"):
        Processes(0, 3).share(10)
    shares = [Processes(rank, 2).share(8, parts=2).tolist() for rank in range(2)]
    assert shares == [[0, 1, 4, 5], [2, 3, 6, 7]]  # a part of one process's batch is both processes' part
