"""``robopolicy dataset ...``: each does what it says, and a mistake is a sentence that changes nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import SPECS, hashes, make_store, steps_of
from synthetic import assert_same_episode, make_episode, make_specs

from robopolicy.cli import dataset
from robopolicy.cli.main import commands, main
from robopolicy.datasets import editing
from robopolicy.datasets.recovery import unfinished
from robopolicy.datasets.store import EpisodeStore


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    return make_store(tmp_path / "s.zarr", (9, 12, 5))


@pytest.fixture
def ask(capsys):
    """Run a sub-command; exit status, standard output, standard error; the terminal's line breaks undone."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(["dataset", *map(str, arguments)])
        except SystemExit as stop:  # tyro's own way out
            status = int(stop.code or 0)
        out, error = capsys.readouterr()
        assert "Traceback" not in out + error
        return status, re.sub(r"\s+", " ", out), re.sub(r"\s+", " ", error)

    return run


@pytest.fixture
def done(ask):
    """Standard output of a sub-command that succeeds."""

    def run(*arguments: object) -> str:
        status, out, error = ask(*arguments)
        assert status == 0, out + error
        return out

    return run


def now(store: EpisodeStore) -> EpisodeStore:
    return EpisodeStore.open(store.path)


def damage(store: EpisodeStore, name: str = "000001") -> None:
    """One bit of its actions."""
    file = store.path / "episodes" / name / "action/value/c/0/0"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def leave_unfinished(store: EpisodeStore, seed: int = 77, steps: int = 4) -> None:
    with store.begin(background=False, seed=seed) as writer:
        for name, part in steps_of(make_episode(SPECS, 6, seed), 0, steps):
            writer.add(name, part)


SUBCOMMANDS = set(commands(dataset))


def test_the_sub_commands_are_these(ask):
    wanted = (
        "info check stats delete trim relabel tag log restore recover copy merge split view import export"
    )
    assert set(wanted.split()) == SUBCOMMANDS
    status, out, _ = ask("--help")
    assert status == 0 and all(name in out for name in SUBCOMMANDS)
    assert ask()[0] == 2
    status, _, error = ask("compress")
    assert status == 2 and "unknown command 'compress'; known: check, copy" in error


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_each_explains_itself(ask, name):
    status, out, _ = ask(name, "--help")
    assert status == 0 and f"robopolicy dataset {name}" in out


READING = {
    "info": [],
    "check": [],
    "stats": [],
    "log": [],
    "delete": ["0"],
    "trim": ["0"],
    "relabel": ["0", "--success", "no"],
    "tag": ["v1"],
    "restore": ["0"],
    "recover": [],
    "copy": ["{out}"],
    "merge": ["--output", "{out}"],
    "split": ["a=1", "--output", "{out}"],
    "view": ["--output", "{out}.rrd"],
    "export": ["--output", "{out}", "--format", "robomimic"],
}


@pytest.mark.parametrize("name", sorted(READING))
def test_a_store_that_is_not_there_is_named(ask, tmp_path, name):
    (tmp_path / "[red]empty").mkdir()
    rest = [word.format(out=tmp_path / "out") for word in READING[name]]
    for path, why in (("absent", "no store at"), ("[red]empty", "not a robopolicy store")):
        status, _, error = ask(name, tmp_path / path, *rest)
        assert status == 2 and error.startswith("error: ")
        assert str(tmp_path / path) in error and why in error
    assert [p.name for p in tmp_path.iterdir()] == ["[red]empty"]


@pytest.mark.parametrize("name", ["delete", "trim", "relabel", "check", "copy", "view"])
@pytest.mark.parametrize(("text", "message"), [("9", "no episode '000009'"), ("x", "'x' is no episode")])
def test_an_episode_that_is_not_there_is_named_and_nothing_changes(ask, store, tmp_path, name, text, message):
    words = {
        "delete": ["0", text],
        "trim": [text],
        "relabel": ["0", text, "--success", "no"],
        "check": ["--episodes", "0", text],
        "copy": [tmp_path / "out.zarr", "--episodes", text],
        "view": ["--episodes", text, "--output", tmp_path / "out.rrd"],
    }
    before = hashes(tmp_path)
    status, _, error = ask(name, store.path, *words[name])
    assert status == 2 and error.startswith("error: ") and message in error
    assert hashes(tmp_path) == before


def test_info_counts_and_names_the_version(done, store):
    editing.tag(store, "first")
    out = done("info", store.path)
    assert "3 episodes, 26 steps at 10.0 Hz, lengths 5..12; 3 succeeded, 0 failed, 0 not judged" in out
    assert f"version 3 [first], data {store.digest[:16]}" in out
    assert "observation" not in out and "goal" in out and "m rad" in out and "lossless" in out
    assert "1 episodes, 9 steps" in done("info", store.path, "--version", "1")
    editing.delete(store, store.names)
    assert "0 episodes, 0 steps" in done("info", store.path)
    assert "3 episodes, 26 steps" in done("info", store.path, "--version", "first")


def test_info_refuses_a_version_that_is_not_there(ask, store):
    status, _, error = ask("info", store.path, "--version", "17")
    assert status == 2 and "no version 17" in error and "the newest is 3" in error
    status, _, error = ask("info", store.path, "--version", "best")
    assert status == 2 and "no tag 'best'; known: none" in error


def test_info_writes_a_page_that_stands_alone(done, store, tmp_path):
    page = tmp_path / "page.html"
    assert f"wrote {page}" in done("info", store.path, "--html", page)
    text = page.read_text()
    assert "<html" in text and "goal" in text and "000002" in text
    assert not re.search(r"""(src|href)=["']https?:""", text)


def test_check_finds_nothing_in_a_sound_store_and_says_so(ask, store, tmp_path):
    status, out, _ = ask("check", store.path, "--json", tmp_path / "found.json")
    assert "3 episodes checked: 0 damaged" in out
    tree = json.loads((tmp_path / "found.json").read_text())
    assert tree["damages"] == []
    assert status == int(any(finding["severity"] == "error" for finding in tree["findings"]))


def test_check_names_damage_and_fails(ask, store, tmp_path):
    damage(store)
    status, out, _ = ask("check", store.path, "--json", tmp_path / "found.json")
    assert status == 1
    assert "damaged 000001 action/value c/0/0" in out and "checksum does not match" in out
    assert "3 episodes checked: 1 damaged" in out
    (found,) = json.loads((tmp_path / "found.json").read_text())["damages"]
    assert (found["episode"], found["key"], found["chunk"]) == ("000001", "action/value", "c/0/0")
    _, out, _ = ask("check", store.path, "--episodes", "0", "2")
    assert "2 episodes checked: 0 damaged" in out
    assert ask("check", store.path, "--episodes", "1")[0] == 1


def test_check_names_a_damaged_version_file(ask, tmp_path):
    """Behind the newest checkpoint, where opening does not look."""
    store = make_store(tmp_path / "s.zarr", (2,) * 33)
    (store.path / "versions/00000003.json").write_text("{}")
    status, out, _ = ask("check", store.path)
    assert status == 1 and "damaged versions/00000003.json" in out and "33 episodes checked" in out


def test_check_mentions_unfinished_episodes(ask, store):
    leave_unfinished(store)
    _, out, _ = ask("check", store.path)
    assert f"1 unfinished episodes of recorders that died: robopolicy dataset recover {store.path}" in out


def test_stats_of_every_signal(done, store, tmp_path):
    out = done("stats", store.path, "--json", tmp_path / "stats.json")
    assert "goal" in out and "action" in out and "rad" in out
    tree = json.loads((tmp_path / "stats.json").read_text())
    goals = np.concatenate([e.observation["goal"].value for e in store.episodes(("goal",))])
    (key,) = [key for key in tree["signals"] if key.endswith("goal")]
    np.testing.assert_allclose(tree["signals"][key]["mean"], goals.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_delete_says_how_to_take_it_back(done, store):
    out = done("delete", store.path, "0", "2")
    assert f"{store.path} is at version 4, 1 episodes" in out
    assert f"to undo: robopolicy dataset restore {store.path} 3" in out
    assert now(store).names == ["000001"]
    done("restore", store.path, "3")
    assert now(store).digest == store.digest and now(store).version == 5


@pytest.mark.parametrize("words", [["delete"], ["relabel", "--success", "no"]])
def test_no_episode_at_all_is_a_mistake(ask, store, words):
    before = hashes(store.path)
    status, _, error = ask(words[0], store.path, *words[1:])
    assert status == 2 and error
    assert hashes(store.path) == before


def test_trim_keeps_a_span(done, store):
    out = done("trim", store.path, "1", "--start", "2", "--stop", "7")
    assert "is at version 4, 3 episodes" in out
    assert len(now(store).read("000001")) == 5
    done("trim", store.path, "000001", "--start", "1")
    assert (now(store).entry("000001").start, now(store).entry("000001").stop) == (3, 7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["1", "--stop", "13"], "episode 000001 has steps 0..12; cannot keep 0..13"),
        (["1", "--start", "12"], "cannot keep 12..12"),
        (["1", "--start", "-1"], "cannot keep -1..12"),
        (["0-1"], "one episode at a time; '0-1' are 2"),
    ],
)
def test_a_trim_that_cannot_be_is_shown(ask, store, words, message):
    before = hashes(store.path)
    status, _, error = ask("trim", store.path, *words)
    assert status == 2 and message in error
    assert hashes(store.path) == before


def test_relabel_changes_words_and_verdict(done, store):
    done("relabel", store.path, "0-1", "--instruction", "fold the towel", "--success", "unknown")
    facts = [(e.instruction, e.success) for e in now(store).entries.values()]
    assert facts == [("fold the towel", None), ("fold the towel", None), ("do it", True)]


def test_relabelling_needs_a_label_that_exists(ask, store):
    before = hashes(store.path)
    status, _, error = ask("relabel", store.path, "0")
    assert status == 2 and "nothing to relabel: give an instruction, a success, or both" in error
    status, out, error = ask("relabel", store.path, "0", "--success", "maybe")
    assert status == 2 and "maybe" in out + error
    assert hashes(store.path) == before


def test_tags_are_given_and_listed(ask, done, store):
    assert f"paper is version 3 of {store.path}" in done("tag", store.path, "paper")
    done("delete", store.path, "0")
    done("tag", store.path, "small", "--version", "1")
    assert done("tag", store.path) == "paper: version 3 small: version 1 "
    before = hashes(store.path)
    for words, message in (
        (["paper"], "tag 'paper' is version 3; tags never move"),
        (["2nd"], "'2nd' is no tag"),
        (["x", "--version", "99"], "no version 99"),
    ):
        status, _, error = ask("tag", store.path, *words)
        assert status == 2 and message in error
    assert hashes(store.path) == before
    done("restore", store.path, "paper")
    assert now(store).digest == store.digest


def test_restore_refuses_what_is_not_there(ask, store):
    before = hashes(store.path)
    for version in ("9", "nope", "../zarr"):
        status, _, error = ask("restore", store.path, version)
        assert status == 2 and version in error
    assert hashes(store.path) == before


def test_the_log_shows_the_newest_first(done, store):
    editing.tag(store, "all")
    editing.delete(store, ["000001"])
    out = done("log", store.path)
    assert out.index("delete 000001") < out.index("record 000002") < out.index("create")
    assert re.search(r"record 000002\W+all", out)
    out = done("log", store.path, "--limit", "2")
    assert "record 000001" not in out and "and 3 older ones; --limit 0 shows all" in out
    assert "create" in done("log", store.path, "--limit", "0")


def test_recover_makes_episodes_or_throws_them_away(ask, done, store):
    assert "has no unfinished episode" in done("recover", store.path)
    leave_unfinished(store, 77)
    assert "episode 000003: 4 steps, success unknown" in done("recover", store.path)
    assert [entry.seed for entry in now(store).entries.values()] == [0, 1, 2, 77]
    leave_unfinished(now(store), 78)
    assert re.search(r"discarded \w+ \(0\.0 MB\)", done("recover", store.path, "--discard"))
    assert unfinished(store) == [] and len(now(store)) == 4


def test_recover_tells_what_it_could_not_and_goes_on(ask, store):
    leave_unfinished(store, 77)
    with store.begin(background=False, seed=78):
        pass
    status, out, _ = ask("recover", store.path)
    assert status == 1 and "not recovered:" in out and "nothing was written of ['action'" in out
    assert "episode 000003: 4 steps" in out
    assert len(unfinished(store)) == 1 and len(now(store)) == 4


def test_copy_takes_a_part_or_a_version(ask, done, store, tmp_path):
    assert f"{tmp_path / 'all.zarr'}: 3 episodes" in done("copy", store.path, tmp_path / "all.zarr")
    assert EpisodeStore.open(tmp_path / "all.zarr").digest == store.digest
    done("delete", store.path, "2")
    done("copy", store.path, tmp_path / "old.zarr", "--version", "3", "--episodes", "1-2")
    copied = EpisodeStore.open(tmp_path / "old.zarr")
    assert [entry.seed for entry in copied.entries.values()] == [1, 2]
    assert_same_episode(copied.read("000001"), EpisodeStore.open(store.path, 3).read("000002"))
    before = hashes(tmp_path)
    status, _, error = ask("copy", store.path, tmp_path / "all.zarr")
    assert status == 2 and f"{tmp_path / 'all.zarr'} already exists" in error
    damage(now(store), "000001")
    status, _, error = ask("copy", store.path, tmp_path / "new.zarr")
    assert status == 2 and "episode 000001 is damaged" in error
    damage(now(store), "000001")
    assert hashes(tmp_path) == before


def test_merge_joins_stores_of_the_same_specs(ask, done, store, tmp_path):
    other = make_store(tmp_path / "o.zarr", (3,), first=50)
    out = done("merge", other.path, store.path, "--output", tmp_path / "m.zarr")
    assert "4 episodes of 2 stores" in out
    assert [e.seed for e in EpisodeStore.open(tmp_path / "m.zarr").entries.values()] == [50, 0, 1, 2]
    EpisodeStore.create(tmp_path / "different.zarr", make_specs())
    before = hashes(tmp_path)
    status, _, error = ask("merge", store.path, tmp_path / "different.zarr", "--output", tmp_path / "x.zarr")
    assert status == 2 and "differ in ['observation']; they cannot be one store" in error
    status, _, error = ask("merge", store.path, other.path, "--output", tmp_path / "m.zarr")
    assert status == 2 and "already exists" in error
    assert hashes(tmp_path) == before


def test_split_deals_every_episode_out_once(ask, done, store, tmp_path):
    out = done("split", store.path, "train=0.6", "val=0.4", "--output", tmp_path / "p", "--seed", "3")
    assert "p-train.zarr: 2 episodes" in out and "p-val.zarr: 1 episodes" in out
    parts = [EpisodeStore.open(tmp_path / f"p-{name}.zarr") for name in ("train", "val")]
    assert sorted(e.seed for part in parts for e in part.entries.values()) == [0, 1, 2]
    before = hashes(tmp_path)
    for words, message in (
        (["train=0.6", "val=0.4"], "p-train.zarr already exists"),
        (["train=0.5"], "sum to 1"),
        (["train=x"], "'train=x' is not NAME=SHARE"),
        (["train"], "'train' is not NAME=SHARE"),
        (["=1"], "part '' is empty or given twice"),
        (["a=0.5", "a=0.5"], "part 'a' is empty or given twice"),
        (["a=0.9", "b=0.1"], "3 episodes are too few: ['b'] would stay empty"),
    ):
        status, _, error = ask("split", store.path, *words, "--output", tmp_path / "p")
        assert status == 2 and message in error
    assert hashes(tmp_path) == before


def test_view_writes_a_file_without_a_screen(ask, done, store, tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'robopolicy[view]'")
    file = tmp_path / "two.rrd"
    assert "2 of 3 episodes" in done("view", store.path, "--episodes", "0-1", "--output", file)
    assert file.read_bytes()[:3] == b"RRF"
    before = hashes(tmp_path)
    for output, message in ((file, "already exists"), (tmp_path / "x.mp4", "Rerun files end in .rrd")):
        status, _, error = ask("view", store.path, "--output", output)
        assert status == 2 and message in error
    assert hashes(tmp_path) == before


def test_view_without_rerun_names_the_extra(ask, store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    status, _, error = ask("view", store.path, "--output", tmp_path / "x.rrd")
    assert status == 2 and "robopolicy[view]" in error


def replay_buffer(path: Path) -> Path:
    """Two episodes, of 5 and 7 steps, as diffusion_policy keeps them."""
    root = zarr.create_group(path, zarr_format=2)
    rng = np.random.default_rng(0)
    for name, shape in {
        "state": (12, 5),
        "keypoint": (12, 9, 2),
        "action": (12, 2),
        "img": (12, 8, 8, 3),
    }.items():
        value = rng.integers(0, 256, shape)
        root.create_array(f"data/{name}", data=value.astype(np.float32))
    root.create_array("meta/episode_ends", data=np.array([5, 12]))
    return path


def test_import_makes_a_store_that_checks(ask, done, tmp_path):
    source, output = replay_buffer(tmp_path / "rb.zarr"), tmp_path / "new.zarr"
    out = done("import", "--source", source, "--output", output, "--mapping", "pusht")
    assert f"{output}: 2 episodes, 12 steps; next: robopolicy dataset check {output}" in out
    assert "2 episodes checked: 0 damaged" in ask("check", output)[1]
    before = hashes(tmp_path)
    for words, message in (
        (["--output", output], "already exists"),
        (
            ["--output", tmp_path / "x", "--quality", "50"],
            "--quality is for --image-codec jpeg, not lossless",
        ),
        (["--output", tmp_path / "x", "--format", "nope"], "unknown importer 'nope'; known: "),
        (["--output", tmp_path / "x", "--mapping", "nope"], "nope"),
        (
            ["--output", tmp_path / "x", "--mapping", "pusht", "--image-codec", "gif"],
            "unknown codec 'gif'; known: ",
        ),
    ):
        status, _, error = ask("import", "--source", source, *words)
        assert status == 2 and message in error, words
    assert hashes(tmp_path) == before


def test_export_writes_another_format(ask, done, store, tmp_path):
    if importlib.util.find_spec("h5py") is None:
        pytest.skip("h5py is not installed: pip install 'robopolicy[formats]'")
    import h5py

    output = tmp_path / "demos.hdf5"
    done("export", store.path, "--output", output, "--format", "robomimic")
    with h5py.File(output) as file:
        assert sorted(file["data"]) == ["demo_0", "demo_1", "demo_2"]
    before = hashes(tmp_path)
    for words, message in (
        (["--output", output, "--format", "robomimic"], "already exists"),
        (["--output", tmp_path / "x", "--format", "nope"], "unknown exporter 'nope'; known: "),
    ):
        status, _, error = ask("export", store.path, *words)
        assert status == 2 and message in error
    assert hashes(tmp_path) == before


def test_brackets_in_a_path_are_no_markup(ask, done, tmp_path):
    """Rich would take them for a colour and print another path."""
    folder = tmp_path / "[red]mine[bold]"
    folder.mkdir()
    store = make_store(folder / "s.zarr", (3, 3, 3))
    assert str(store.path) in done("info", store.path)
    assert f"dataset restore {store.path} 3" in done("delete", store.path, "0")
    assert str(folder / "c.zarr") in done("copy", store.path, folder / "c.zarr")
    assert str(store.path) in done("tag", store.path, "v1")
    assert str(store.path) in done("recover", store.path)
    assert str(folder / "m.zarr") in done("merge", store.path, "--output", folder / "m.zarr")
    assert str(folder / "p-a.zarr") in done("split", store.path, "a=1", "--output", folder / "p")
    leave_unfinished(now(store))
    assert f"recover {store.path}" in ask("check", store.path)[1]
