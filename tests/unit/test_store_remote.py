"""Stores in an object store: copied there, read from there, trained from there, copied back."""

from __future__ import annotations

import logging
import re
import socket
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from stores import SPECS, hashes, make_store, run_python
from synthetic import assert_same_episode, make_episode

from robopolicy.cli.main import main
from robopolicy.core.errors import MissingDependencyError, RunExistsError, StoreError
from robopolicy.core.horizons import Horizons
from robopolicy.datasets import columns, copying, editing
from robopolicy.datasets.editing import Relabel
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.storage import RemoteStorage
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'robopolicy[cloud]'")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A bucket on this machine that speaks S3; its URL."""
    reason = "moto, flask or s3fs is not installed: pip install 'robopolicy[dev]'"
    pytest.importorskip("flask_cors", reason=reason)
    s3fs = pytest.importorskip("s3fs", reason=reason)
    moto = pytest.importorskip("moto.server", reason=reason)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture(params=["s3", "memory"])
def place(request) -> str:
    """Where a new store can be put."""
    root = request.getfixturevalue("server") if request.param == "s3" else "memory://root"
    return f"{root}/{uuid.uuid4().hex}"


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    """Four episodes, one of them trimmed and one relabelled."""
    store = make_store(tmp_path / "s.zarr", (4, 6, 3, 3))
    editing.trim(store, "000001", 1, 5)
    editing.relabel(store, ["000002"], Relabel("other", "no"))
    return store


def upload(store: EpisodeStore, place: str) -> EpisodeStore:
    return copying.merge([(store, store.names)], place)


def test_a_store_goes_up_and_comes_back_the_same(tmp_path, store, place):
    remote = upload(store, f"{place}/a.zarr")
    assert remote.digest == store.digest and remote.entries == store.entries and remote.specs == SPECS
    again = EpisodeStore.open(f"{place}/a.zarr/")  # a slash at the end is nothing
    for name in store.names:
        assert_same_episode(again.read(name), store.read(name))
    back = copying.merge([(again, again.names)], tmp_path / "back.zarr")
    assert back.digest == store.digest
    assert hashes(back.path / "episodes") == hashes(store.path / "episodes")
    assert verify(again) == [] and verify(back) == []


def test_single_frames_are_fetched_without_the_rest(store, place, monkeypatch):
    remote = upload(store, place)
    asked: list[tuple[str, int, int]] = []
    plain = RemoteStorage.read_ranges
    monkeypatch.setattr(
        RemoteStorage, "read_ranges", lambda self, ranges: asked.extend(ranges) or plain(self, ranges)
    )
    frames = remote.reader("000000").frames("observation/scene")
    picture = frames.read(remote.storage, np.array([2]))
    np.testing.assert_array_equal(picture[0], make_episode(SPECS, 4, 0).observation["scene"].value[2])
    whole = remote.storage.size(frames.file)
    assert len(asked) == 2 and sum(stop - start for _, start, stop in asked) < whole / 2


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_training_windows_are_those_of_the_disk(store, place, memory, threads):
    remote, horizons = upload(store, place), Horizons(2, 4, 2)
    keys = ("goal", "scene")
    ours = Windows(store, horizons, keys, memory_bytes=1 << 30)
    theirs = Windows(remote, horizons, keys, memory_bytes=memory, threads=threads)
    assert isinstance(theirs.columns["scene"], columns.Held if memory else columns.OnDemand)
    batches = list(zip(ours.epoch(4, seed=1, epoch=0), theirs.epoch(4, seed=1, epoch=0)))
    assert len(batches) == len(ours) // 4 == 3
    for mine, other in batches:
        np.testing.assert_array_equal(mine.action, other.action)
        for key in keys:
            np.testing.assert_array_equal(mine.observation[key], other.observation[key])


def test_damage_up_there_is_found(store, place):
    remote = upload(store, place)
    chunk = "episodes/000002/action/value/c/0/0"
    data = remote.storage.read(chunk)
    remote.storage.write(chunk, data[:-1] + bytes([data[-1] ^ 1]))
    (damage,) = verify(EpisodeStore.open(place))
    assert (damage.episode, damage.key, damage.chunk) == ("000002", "action/value", "c/0/0")
    with pytest.raises(StoreError, match=r"000002.*action"):
        EpisodeStore.open(place).read("000002")


def test_the_command_line_takes_urls(store, place, tmp_path, capsys):
    def ask(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["dataset", *map(str, arguments)])
        return status, re.sub(r"\s+", " ", "".join(capsys.readouterr()))

    url = f"{place}/cli.zarr"
    assert ask("copy", store.path, url)[0] == 0
    status, out = ask("info", url)
    assert status == 0 and "4 episodes, 14 steps at 10.0 Hz, lengths 3..4" in out
    assert f"data {store.digest[:16]}" in out
    status, out = ask("log", url)
    assert status == 0 and "copy" in out
    status, out = ask("check", url)
    assert "4 episodes checked: 0 damaged" in out
    assert ask("stats", url)[0] == 0
    assert ask("copy", url, tmp_path / "back.zarr", "--episodes", "1-2")[0] == 0
    assert EpisodeStore.open(tmp_path / "back.zarr").entry("000000").length == 4
    for words in (
        ("delete", url, "0"),
        ("trim", url, "0", "--stop", "2"),
        ("tag", url, "v1"),
        ("recover", url),
    ):
        status, out = ask(*words)
        assert status == 2 and f"{url} is read only" in out and "Traceback" not in out
    assert EpisodeStore.open(url).digest == store.digest


def test_nothing_is_recorded_or_changed_by_url(store, place):
    remote = upload(store, place)
    for change in (
        lambda: remote.append(make_episode(SPECS, 3)),
        lambda: remote.begin(),
        lambda: editing.delete(remote, ["000000"]),
        lambda: editing.tag(remote, "v1"),
    ):
        with pytest.raises(StoreError, match=re.escape(f"{place} is read only; copy it to a disk first")):
            change()
    with pytest.raises(StoreError, match="stores are recorded on a disk"):
        EpisodeStore.create(f"{place}-new", SPECS)
    assert EpisodeStore.open(place).entries == store.entries


def test_nothing_up_there_is_overwritten(store, place):
    upload(store, place)
    with pytest.raises(RunExistsError, match=re.escape(f"{place} already holds something")):
        upload(store, place)
    assert EpisodeStore.open(place).digest == store.digest


def test_a_copy_that_fails_midway_leaves_nothing_and_can_be_repeated(store, place):
    shard = store.path / "episodes/000002/observation/scene/value/c/0/0/0/0"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(StoreError, match="episode 000002 is damaged"):
        upload(store, place)
    assert RemoteStorage(place).list("") == []
    with pytest.raises(StoreError, match="not a robopolicy store"):
        EpisodeStore.open(place)
    shard.write_bytes(data)
    assert upload(EpisodeStore.open(store.path), place).digest == store.digest


def test_what_is_not_there_is_a_sentence(place):
    with pytest.raises(
        StoreError, match=re.escape(f"{place} is not a robopolicy store: it has no zarr.json")
    ):
        EpisodeStore.open(place)


def test_a_missing_version_or_episode_up_there_is_named(store, place):
    remote = upload(store, place)
    with pytest.raises(StoreError, match=r"no version 7 .*newest is 0"):
        EpisodeStore.open(place, 7)
    with pytest.raises(StoreError, match="no tag 'nope'; known: none"):
        EpisodeStore.open(place, "nope")
    with pytest.raises(StoreError, match="no episode '000009'"):
        remote.read("000009")
    remote.storage.remove(["episodes/000001/zarr.json", "episodes/000000/action/value/c/0/0"])
    again = EpisodeStore.open(place)
    with pytest.raises(StoreError, match="episode 000001: 'description' cannot be read"):
        again.read("000001")
    with pytest.raises(StoreError, match="episode 000000: 'action/value' cannot be read"):
        again.read("000000")
    assert [damage.episode for damage in verify(again)] == ["000000", "000001"]


def test_no_such_bucket_is_a_store_error(server, store):
    with pytest.raises(StoreError, match="s3://nobody-has-this/x is not a robopolicy store"):
        EpisodeStore.open("s3://nobody-has-this/x")
    with pytest.raises(StoreError, match=r"cannot write to s3://nobody-has-this/x: .*bucket"):
        upload(store, "s3://nobody-has-this/x")


def test_a_server_that_cannot_be_reached_is_a_store_error(server, monkeypatch):
    """Nobody listens at the endpoint; not an exception of the S3 library."""
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # else it tries again and again for ten seconds
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            with pytest.raises(StoreError, match=r"cannot read s3://bucket/x: .*[Cc]onnect"):
                EpisodeStore.open("s3://bucket/x")
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


def test_an_unknown_kind_of_url_is_named():
    with pytest.raises(StoreError, match="cannot open carrier-pigeon://x/y: Protocol not known"):
        EpisodeStore.open("carrier-pigeon://x/y")


@pytest.mark.parametrize(
    ("package", "error"), [("s3fs", "StoreError"), ("fsspec", MissingDependencyError.__name__)]
)
def test_a_missing_package_names_the_extra_that_brings_it(package, error):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from robopolicy.core.errors import RobopolicyError\n"
        "from robopolicy.datasets.store import EpisodeStore\n"
        "try: EpisodeStore.open('s3://bucket/x')\n"
        "except RobopolicyError as error: print(type(error).__name__, error)\n"
    )
    out = run_python(code)
    assert out.startswith(error) and "robopolicy[cloud]" in out
