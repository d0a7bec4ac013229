"""The inference process: answers over shared memory, is watched, ends with its parent, leaves nothing."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
from test_runtime_support import tiny_graphs, tiny_specs, tiny_window, write_tiny_bundle

from robopolicy.core.errors import ConfigError, ShapeError, WorkerError
from robopolicy.core.policy import draw_candidates, keyed_rng
from robopolicy.runtime import Bundle, BundlePolicy, Request, Response, WorkerClient, WorkerConfig
from robopolicy.runtime.inference import worker
from robopolicy.runtime.inference.channel import Channel, Layout
from robopolicy.runtime.inference.client import WorkerRestartError
from robopolicy.runtime.inference.shared_memory import attach, create
from robopolicy.runtime.inference.slot import Slot
from robopolicy.runtime.inference.supervisor import RestartConfig, SupervisedClient

ROOT = Path(__file__).parents[2]
SEGMENTS = Path("/dev/shm")
CONFIG = WorkerConfig(provider="cpu", max_candidates=4, warmup=1)


@pytest.fixture(autouse=True)
def no_segment_left() -> Iterator[None]:
    yield
    assert not segments()


def segments(owner: int | str = os.getpid()) -> set[str]:
    pattern = f"robopolicy-{owner}-*"
    return {path.name for path in SEGMENTS.glob(pattern)} if SEGMENTS.is_dir() else set()


def wait_for(client: WorkerClient, request_id: int) -> Response:
    for _ in range(4000):
        response = client.poll(time.monotonic_ns())
        if response is not None and response.request_id == request_id:
            return response
        time.sleep(0.005)
    raise AssertionError("no answer")


def request(window: dict[str, np.ndarray], step: int = 0, n: int = 1, at_ns: int = 123) -> Request:
    return Request(window, at_ns, (7, 1, step), n)


@pytest.mark.parametrize("image", [False, True])
def test_worker_gives_what_the_policy_gives_here(tmp_path: Path, image: bool) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", image=image)
    policy = BundlePolicy(bundle, provider="cpu")
    window = tiny_window(bundle.policy_specs, np.random.default_rng(0))
    with WorkerClient(bundle, CONFIG) as client:
        for step, n in enumerate((1, 4, 2)):
            response = wait_for(client, client.request(request(window, step, n)))
            expected = draw_candidates(policy, window, n, rng=keyed_rng(7, 1, step))
            assert response.error == "" and response.observation_time_ns == 123
            assert response.inference_ns > 0
            np.testing.assert_array_equal(response.candidates, expected)
        assert client.poll(time.monotonic_ns()) is None
        with pytest.raises(ConfigError, match="5"):
            client.request(request(window, n=5))
        with pytest.raises(ShapeError, match="joints"):
            client.request(request({**window, "joints": np.zeros((2, 2))}))
        with pytest.raises(ShapeError, match=r"\(2, 3\), got \(1, 3\)"):
            client.request(request({**window, "joints": window["joints"][:1]}))


def test_an_error_comes_back_as_text(tmp_path: Path) -> None:
    graphs = tiny_graphs(tiny_specs(), scale=np.nan)
    bundle = write_tiny_bundle(tmp_path / "bundle", graphs=graphs)
    window = tiny_window(bundle.policy_specs, np.random.default_rng(0))
    with WorkerClient(bundle, dataclasses.replace(CONFIG, warmup=0)) as client:
        response = wait_for(client, client.request(request(window)))
        assert response.candidates is None
        assert response.error.startswith("NonFiniteValueError: the sampler gave")
        wait_for(client, client.request(request(window)))  # and it goes on


def test_engines_are_built_for_as_many_rows_as_may_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, given = write_tiny_bundle(tmp_path / "bundle"), {}
    monkeypatch.setattr(worker, "BundlePolicy", lambda bundle, **options: given.update(options))
    text = f"--bundle {bundle.directory} --digest {bundle.digest} --segment s --layout l --max-candidates 7"
    worker._policy(worker._parse(f"{text} --heartbeat-s 1 --request-timeout-s 1".split()))
    assert given["max_rows"] == 7


def test_a_policy_that_fails_in_the_warm_up_is_never_ready(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", graphs=tiny_graphs(tiny_specs(), scale=np.nan))
    with pytest.raises(WorkerError, match=r"(.*\n)*.*the first inference failed: NonFiniteValueError: the s"):
        WorkerClient(bundle, CONFIG)


def test_a_killed_worker_is_noticed(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    window = tiny_window(bundle.policy_specs, np.random.default_rng(0))
    with WorkerClient(bundle, CONFIG) as client:
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended with status -9"):
            wait_for(client, -1)
        with pytest.raises(WorkerError, match="ended"):
            client.request(request(window))


def test_a_frozen_worker_is_noticed(tmp_path: Path) -> None:
    with WorkerClient(write_tiny_bundle(tmp_path / "bundle"), CONFIG) as client:
        os.kill(client.pid, signal.SIGSTOP)
        try:
            with pytest.raises(WorkerError, match="no heartbeat"):
                wait_for(client, -1)
        finally:
            os.kill(client.pid, signal.SIGCONT)


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    (bundle.directory / "sampler.onnx").unlink()
    with pytest.raises(WorkerError, match=r"before it was ready.*(\n.*)*lacks sampler\.onnx"):
        WorkerClient(bundle, CONFIG)
    with pytest.raises(WorkerError, match="no_such_python"):
        WorkerClient(bundle, WorkerConfig(python="no_such_python"))


def test_a_worker_of_another_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    monkeypatch.setattr(Layout, "fingerprint", "0" * 64)
    with pytest.raises(WorkerError, match=r"fingerprint 0{12}, here .*another release of robopolicy"):
        WorkerClient(bundle, CONFIG)


def test_the_fingerprint_tells_layouts_of_one_size_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tiny_specs(), 2)
    assert layout.fingerprint == Layout(tiny_specs(), 2).fingerprint
    assert layout.fingerprint != Layout(tiny_specs(), 3).fingerprint
    kind, offset = layout.status.fields["progress"][:2]
    names = [{"progress": "answered", "answered": "progress"}.get(n, n) for n in layout.status.names]
    offsets = [layout.status.fields[name][1] for name in layout.status.names]
    other = np.dtype(
        {"names": names, "formats": [kind] * 5, "offsets": offsets, "itemsize": layout.status.itemsize}
    )
    assert other.fields["answered"][1] == offset
    before, size = layout.fingerprint, layout.size
    monkeypatch.setattr(Layout, "status", other)
    assert layout.size == size and layout.fingerprint != before


def test_the_worker_ends_with_its_parent(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    script = f"""
        import os
        from robopolicy.runtime import WorkerClient, WorkerConfig, load_bundle
        client = WorkerClient(load_bundle({str(bundle.directory)!r}), WorkerConfig(provider="cpu", warmup=0))
        print(os.getpid(), client.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    ends_too(done.stdout)


def ends_too(pids: bytes) -> None:
    parent, pid = pids.split()
    for _ in range(1000):
        if not is_running(int(pid)) and not segments(parent.decode()):
            return
        time.sleep(0.01)
    os.kill(int(pid), signal.SIGKILL)
    raise AssertionError(f"worker {pid} or its memory outlived its parent")


@pytest.mark.parametrize("where", ["__init__", "sample"])
def test_a_worker_that_hangs_ends_with_its_parent(where: str, tmp_path: Path) -> None:
    """While it loads its engine, and while it computes; neither looks at standard input."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    script = f"""
        import os, pathlib, sys, time
        sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from test_faults_processes import python_that
        from robopolicy.runtime import WorkerClient, WorkerConfig, load_bundle
        python = python_that(pathlib.Path({str(tmp_path)!r}), '''
            import pathlib
            def hang(*_, **__):
                pathlib.Path({str(tmp_path / "hangs")!r}).touch()
                while True:
                    pass
            worker.BundlePolicy.{where} = hang
        ''')
        client = WorkerClient(load_bundle({str(bundle.directory)!r}), WorkerConfig(python=python), wait=False)
        while not os.path.exists({str(tmp_path / "hangs")!r}):
            time.sleep(0.01)
        print(os.getpid(), client.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ends_too(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False, timeout=60).stdout)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_are_left_to_the_parent(number: signal.Signals, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    window = tiny_window(bundle.policy_specs, np.random.default_rng(0))
    with WorkerClient(bundle, CONFIG) as client:
        os.kill(client.pid, number)
        for _ in range(2):
            assert wait_for(client, client.request(request(window))).error == ""


def test_a_worker_that_died_while_it_waited_is_not_ready(tmp_path: Path) -> None:
    with WorkerClient(write_tiny_bundle(tmp_path / "bundle"), CONFIG) as client:
        assert client.is_ready()
        os.kill(client.pid, signal.SIGKILL)
        client._process._process.wait()
        with pytest.raises(WorkerError, match="ended with status -9"):
            client.is_ready()


def supervised(bundle: Bundle, spare: bool, limit: WorkerConfig = CONFIG) -> SupervisedClient:
    return SupervisedClient(bundle, limit, RestartConfig(1, settle_s=0.0, spare=spare))


def lost(client: SupervisedClient) -> str:
    """Kill its worker; what comes of it: "" when a successor took over, else the fault."""
    os.kill(client.pid, signal.SIGKILL)
    seen = 0
    for _ in range(4000):
        try:
            client.poll(time.monotonic_ns())
            if seen:
                return ""
        except WorkerRestartError:
            seen += 1
        except WorkerError as error:
            return str(error)
        time.sleep(0.005)
    raise AssertionError("neither back nor a fault")


def test_a_dead_spare_is_replaced_within_one_restart(tmp_path: Path) -> None:
    with supervised(write_tiny_bundle(tmp_path / "bundle"), spare=True) as client:
        spare = client._spare
        assert spare is not None
        os.kill(spare.pid, signal.SIGKILL)
        spare._process._process.wait()
        assert lost(client) == "" and client.restarts == 1
        assert client._spare is not None and client._spare is not spare


@pytest.mark.parametrize("error", [OSError(28, "No space left"), MemoryError("none")])
def test_a_restart_that_fails_in_any_way_is_a_fault(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(size: int) -> None:
        raise error

    with supervised(write_tiny_bundle(tmp_path / "bundle"), spare=False) as client:
        monkeypatch.setattr("robopolicy.runtime.inference.worker_client.create", fail)
        what = rf"could not be started again: {type(error).__name__}: .*{error.args[-1]}"
        assert re.search(what, lost(client))


def test_a_restart_that_never_ends_is_a_fault(tmp_path: Path) -> None:
    """The dead worker that a driver holds, say: the thread waits, and nothing is there to be asked."""
    with supervised(write_tiny_bundle(tmp_path / "bundle"), spare=False) as client:
        client._patience_s, release = 0.3, threading.Event()
        first, close = client._client, client._client.close
        first.close = lambda *, patience_s=None: (release.wait(), close())
        assert re.search(r"could not be started again: it takes longer than 0\.3 s", lost(client))
        release.set()
        client._patience_s = 60.0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_clean_end_prints_nothing(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    script = f"""
        from robopolicy.runtime import WorkerClient, WorkerConfig, load_bundle
        bundle = load_bundle({str(bundle.directory)!r})
        with WorkerClient(bundle, WorkerConfig(provider="cpu", warmup=0)) as c:
            c.close()
            print(c._process.status)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_slot_gives_the_newest_once_and_never_half_a_record() -> None:
    dtype = np.dtype([("a", "i8"), ("b", "f4", (3,))])
    buffer = memoryview(bytearray(Slot.size(dtype)))
    writer, reader = Slot(buffer, 0, dtype), Slot(buffer, 0, dtype)
    assert reader.read() is None
    for value in (1, 2):
        writer.write(np.array((value, (value,) * 3), dtype=dtype))
    found = reader.read()
    assert found is not None and found[1]["a"] == 2 and found[1]["b"].tolist() == [2, 2, 2]
    assert reader.read(newer_than=found[0]) is None
    buffer[20] ^= 1  # a store that came late
    assert reader.read() is None
    buffer[0] |= 1  # a writer that died half way
    assert reader.read() is None
    writer.write(np.array((3, (3,) * 3), dtype=dtype))
    found = reader.read()
    assert found is not None and found[1]["a"] == 3


def test_channel_keeps_only_the_newest_request() -> None:
    specs = tiny_specs(image=True)
    layout = Layout(specs, 2)
    segment = create(layout.size)
    try:
        there = attach(segment.name, layout.size)
        parent, worker = Channel(segment, layout), Channel(there, layout)
        windows = [tiny_window(specs, np.random.default_rng(seed)) for seed in range(2)]
        for request_id, window in enumerate(windows):
            parent.send_request(request_id, request(window, step=request_id, n=2, at_ns=5))
        received = worker.receive_request()
        assert received is not None and received[0] == 1
        assert (received[1].noise_key, received[1].num_candidates) == ((7, 1, 1), 2)
        for name, value in windows[1].items():
            np.testing.assert_array_equal(received[1].observation[name], value)
        assert worker.receive_request() is None
        worker.send_response(Response(1, 5, None, 10, "x" * 2000))
        response = parent.receive_response()
        assert response is not None and response.candidates is None and len(response.error) == 512
        with pytest.raises(WorkerError, match="are needed"):
            attach(segment.name, segment.size + 1)
        there.close()
    finally:
        segment.close()
        segment.unlink()
    with pytest.raises(WorkerError, match="no shared memory"):
        attach("psm_no_such_segment", 1)


def test_a_segment_without_room_is_refused_before_anyone_writes_to_it() -> None:
    room = os.statvfs(SEGMENTS) if SEGMENTS.is_dir() else None
    if room is None or not 0 < room.f_blocks * room.f_frsize < 1 << 44:
        pytest.skip("needs a /dev/shm with a limit")
    with pytest.raises(WorkerError, match=r"/dev/shm may be full: .*No space left"):
        create(2 * room.f_blocks * room.f_frsize)


def test_create_gives_fresh_memory() -> None:
    segment: SharedMemory = create(64)
    try:
        assert segment.buf is not None and bytes(segment.buf[:64]) == bytes(64)
    finally:
        segment.close()
        segment.unlink()
