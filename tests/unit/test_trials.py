"""Guided trials: balanced, blind until the end, nothing lost, and the same files as any evaluation."""

from __future__ import annotations

import dataclasses
import itertools
import json
import queue
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic import make_policy_specs

from robopolicy.core.errors import ConfigError, RobopolicyError, ShapeError
from robopolicy.evaluation.stored import PolicyRecord, StoppingRule, read_evaluation
from robopolicy.evaluation.trials import stopping
from robopolicy.evaluation.trials.keys import read_line
from robopolicy.evaluation.trials.log import Line, TrialLog
from robopolicy.evaluation.trials.overlay import EDGE, overlay
from robopolicy.evaluation.trials.page import TrialPage
from robopolicy.evaluation.trials.plan import draw_plan, plan_digest
from robopolicy.evaluation.trials.protocol import LOG_NAME, Measured, Protocol, open_log
from robopolicy.evaluation.trials.sealing import seal, unseal
from robopolicy.evaluation.trials.session import JUDGE, RUNNING, SET_UP, Session, StopRule, View
from robopolicy.evaluation.trials.starts import Start, load_starts
from robopolicy.evaluation.trials.unblind import unblind

ALPHA = PolicyRecord("runs/alpha/bundle", "a1" * 32, make_policy_specs())
BETA = PolicyRecord("runs/beta/bundle", "b2" * 32, make_policy_specs())
STARTS = tuple(Start(f"start {i}", positions={"cube": (0.4 + 0.05 * i, 0.1 * (i % 3))}) for i in range(6))


class Person:
    """A script of keys; ``judge`` answers what the session asks, from what was seen on the table."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._keys: Iterator[str] = iter(keys)

    def __next__(self) -> str:
        try:
            return next(self._keys)
        except StopIteration:
            raise EOFError from None

    def drain(self) -> str:
        return ""


class Table:
    """An arm whose policies succeed by a table of (policy, seed); remembers what it ran."""

    def __init__(self, wins: dict[int, set[int]] | None = None) -> None:
        self.runs: list[tuple[int, int]] = []
        self.prepared: list[int] = []
        self._wins = wins or {}
        self.interrupt_at = -1
        self.fault = ""

    def prepare(self, seed: int) -> None:
        self.prepared.append(seed)

    def run(self, policy: int, seed: int) -> Measured:
        if len(self.runs) == self.interrupt_at:
            self.interrupt_at = -1
            raise KeyboardInterrupt
        self.runs.append((policy, seed))
        if self.fault:
            raise RobopolicyError(self.fault)
        slow = 1 + 3 * policy  # what would tell the policies apart
        return Measured(
            10 * slow, 1.0 * slow, "duration", False, (5.0 * slow,) * slow, f"{policy}{seed:02d}".zfill(64)
        )

    def won(self) -> bool:
        policy, seed = self.runs[-1]
        return seed in self._wins.get(policy, set())


class Judge(Person):
    """Presses space, then s or f by what the table shows; ends at the end."""

    def __init__(self, table: Table, most: int = 10**6) -> None:
        super().__init__()
        self.phase, self._table, self._left = "", table, most

    def see(self, view: View) -> None:
        self.phase = view.phase

    def __next__(self) -> str:
        if self.phase == SET_UP:
            if self._left == 0:
                return "q"
            self._left -= 1
            return " "
        return ("s" if self._table.won() else "f") if self.phase == JUDGE else "\n"


def make_protocol(policies: tuple[PolicyRecord, ...] = (ALPHA, BETA), **changes: object) -> Protocol:
    base = Protocol("bench", "the cube is in the bin", policies, STARTS, seed=4, first_seed=50)
    return dataclasses.replace(base, **changes)


class Clock:
    def __init__(self) -> None:
        self._ticks = itertools.count()

    def __call__(self) -> str:
        tick = next(self._ticks)
        return f"2025-03-01T10:{tick // 60:02d}:{tick % 60:02d}+01:00"


def make_session(
    folder: Path, protocol: Protocol, table: Table, keys: Person | None = None, **more: object
) -> tuple[Session, list[View], TrialLog]:
    views: list[View] = []
    keys = keys or Judge(table)
    screens = [views.append, *([keys.see] if isinstance(keys, Judge) else [])]
    log = open_log(folder, protocol)
    now = more.pop("now", Clock())
    session = Session(
        protocol, log, run=table.run, prepare=table.prepare, keys=keys, screens=screens, now=now, **more
    )
    return session, views, log


def finish(folder: Path, protocol: Protocol, log: TrialLog, kind: str = "fixed") -> Path:
    rule = StoppingRule(kind, 6, "six blocks")
    return unblind(folder, protocol, log, stopping=rule, command=("robopolicy", "eval", "--robot", "bench"))


# The order.


def test_every_block_holds_each_policy_once_from_one_start() -> None:
    plan = draw_plan(policies=3, conditions=5, repeats=4, seed=1, first_seed=100)
    assert [t.number for t in plan] == list(range(1, 61))
    for block in range(20):
        mine = [t for t in plan if t.block == block]
        assert sorted(t.policy for t in mine) == [0, 1, 2]
        assert len({(t.condition, t.seed) for t in mine}) == 1
    assert Counter((t.condition, t.policy) for t in plan) == {(c, p): 4 for c in range(5) for p in range(3)}
    assert sorted({t.seed for t in plan}) == list(range(100, 120))  # no pair of blocks shares a seed
    for repeat in range(4):  # each start once before any comes again
        assert sorted({t.condition for t in plan[15 * repeat : 15 * repeat + 15]}) == list(range(5))


def test_the_order_is_random_but_repeats_with_its_seed() -> None:
    first, again, other = (draw_plan(policies=2, conditions=40, seed=s) for s in (3, 3, 4))
    assert first == again and plan_digest(first) == plan_digest(again) != plan_digest(other)
    leads = sum(t.policy for t in first[::2])
    assert 8 <= leads <= 32  # of 40; neither policy always goes first
    assert [t.condition for t in first[::2]] != sorted(t.condition for t in first[::2])
    with pytest.raises(ConfigError, match="at least one of conditions, got 0"):
        draw_plan(policies=2, conditions=0)


# A sitting from the first trial to the report.


def test_a_whole_session_gives_eval_json_for_each_policy_and_a_report(tmp_path: Path) -> None:
    protocol = make_protocol()
    table = Table({0: {50, 51}, 1: {50, 51, 52, 53, 54}})
    session, views, log = make_session(tmp_path, protocol, table)
    assert session.play() == ""
    assert table.runs == [(t.policy, t.seed) for t in protocol.plan]
    assert table.prepared == [t.seed for t in protocol.plan]
    phases = [(v.number, v.phase) for v in views if v.phase != "over"]
    assert phases == [(n, p) for n in range(1, 13) for p in (SET_UP, RUNNING, JUDGE)]
    assert all(v.total == 12 for v in views)
    page = finish(tmp_path, protocol, log)
    text = page.read_text()
    assert "the cube is in the bin" in text and "alpha" in text and "https://" not in text
    assert "exact McNemar" in text and "+0.500" in text  # 5/6 - 2/6
    alpha, beta = (read_evaluation(tmp_path / name) for name in ("1_alpha_bundle", "2_beta_bundle"))
    assert (alpha.summary.successes, beta.summary.successes) == (2, 5)
    assert alpha.environment.name == "robot:bench" and alpha.policy == ALPHA and beta.policy == BETA
    assert (
        sorted(e.seed for e in alpha.episodes) == sorted(e.seed for e in beta.episodes) == list(range(50, 56))
    )
    for e in beta.episodes:  # the right records came to the right trials
        assert e.seconds == 4.0 and e.steps == 40 and e.action_hash == f"1{e.seed}".zfill(64)
        start = STARTS[e.seed - 50]
        assert e.conditions["start"] == start.name and e.start["cube"] == list(start.positions["cube"])
        assert e.conditions["cube_x"] == start.positions["cube"][0]
    assert beta.timing is not None and beta.timing.inference_ms == (20.0,) * 24
    assert alpha.started.startswith("2025-03-01T10:00") and alpha.stopping.kind == "fixed"
    order = json.loads((tmp_path / "order.json").read_text())
    assert [(o["number"], o["label"]) for o in order][:2] == [
        (t.number, ("alpha/bundle", "beta/bundle")[t.policy]) for t in protocol.plan[:2]
    ]


def test_partial_scores_notes_and_redone_runs_are_kept(tmp_path: Path) -> None:
    protocol = make_protocol(policies=(ALPHA,))
    table = Table()
    keys = [" ", *"nslipped\x7f\x7fed\r", "p", "7", "3"]  # 7 is no score
    keys += [" ", "r", " ", "r", " ", "x", "S"]  # redone twice, a meaningless key, a capital
    keys += [" ", "p", "4", *" f f f", "\n"]
    shown: list[str] = []
    session, _views, log = make_session(tmp_path, protocol, table, Person(keys), echo=shown.append)
    assert session.play() == ""
    finish(tmp_path, protocol, log)
    evaluation = read_evaluation(tmp_path / "1_bundle")
    by_seed = {e.seed: e for e in evaluation.episodes}
    first, second, third = (by_seed[t.seed] for t in protocol.plan[:3])
    assert (first.success, first.max_reward, first.restarts) == (False, 0.75, 0)
    assert (second.success, second.max_reward, second.restarts) == (True, 1.0, 2)
    assert (third.success, third.max_reward) == (True, 1.0)
    assert table.runs[1:4] == [(0, protocol.plan[1].seed)] * 3  # a redo is the same trial again
    assert evaluation.notes == {str(first.seed): "slipped"} and "".join(shown).count("\b \b") == 2
    assert "slipped" in (tmp_path / "report.html").read_text()
    assert evaluation.summary.successes == 2 and len(evaluation.episodes) == 6


def test_a_wrong_key_can_be_taken_back(tmp_path: Path) -> None:
    protocol = make_protocol(policies=(ALPHA,))
    table = Table()
    keys = ["u", *" f", "u", *" s", *" f f f f s", "u", *" f", "\n"]  # the first u has nothing to take back
    session, _views, log = make_session(tmp_path, protocol, table, Person(keys))
    assert session.play() == ""
    finish(tmp_path, protocol, log)
    by_seed = {e.seed: e for e in read_evaluation(tmp_path / "1_bundle").episodes}
    first, last = protocol.plan[0], protocol.plan[-1]
    assert by_seed[first.seed].success and not by_seed[last.seed].success
    assert by_seed[first.seed].restarts == by_seed[last.seed].restarts == 1
    assert sum(e.success for e in by_seed.values()) == 1


# Blindness.


def test_nothing_before_the_end_depends_on_which_policy_is_which(tmp_path: Path) -> None:
    """Swap the policies: what a person can see or read stays the same, byte for byte."""
    seen = []
    for name, policies in (("one", (ALPHA, BETA)), ("two", (BETA, ALPHA))):
        (folder := tmp_path / name).mkdir()
        protocol = make_protocol(policies=policies)
        # policy index p runs at another speed: only sealed records may show that
        table = Table()
        table.run = lambda p, s, t=table, n=name: Table.run(t, p if n == "one" else 1 - p, s)  # type: ignore[method-assign]
        session, views, _log = make_session(folder, protocol, table, Judge(table))
        session.play()
        files = sorted(path.name for path in folder.iterdir())
        lines = (folder / LOG_NAME).read_text().splitlines()
        seen.append((files, views, lines))
    (files, views, lines), (other_files, other_views, other_lines) = seen
    assert files == other_files == [LOG_NAME]
    assert views == other_views
    for line, other in zip(lines[1:], other_lines[1:], strict=True):
        ours, theirs = json.loads(line), json.loads(other)
        sealed, other_sealed = ours.pop("sealed"), theirs.pop("sealed")
        assert ours == theirs
        assert sealed != other_sealed and len(sealed) == len(other_sealed)
        assert set(ours) == {"number", "outcome", "score", "note", "time"}
    body = "\n".join(lines[1:])
    for word in ("alpha", "beta", "a1a1", "b2b2", "inference", "seconds", "policy"):
        assert word not in body
    header = json.loads(lines[0])
    assert header["order_sha256"] == plan_digest(make_protocol().plan)
    assert "plan" not in header and "order" not in header


def test_a_fault_does_not_name_the_policy(tmp_path: Path) -> None:
    table = Table()
    table.fault = (
        "worker of runs/beta/bundle (bundle b2" + "b2" * 31 + ") died: bundles of runs/alpha/bundle live"
    )
    session, views, log = make_session(tmp_path, make_protocol(), table)
    session.play()
    messages = {v.message for v in views if v.phase == JUDGE}
    assert messages == {
        "the run ended by a fault: worker of POLICY (POLICY POLICY) died: bundles of POLICY live"
    }
    assert "died" not in (tmp_path / LOG_NAME).read_text()  # sealed
    finish(tmp_path, make_protocol(), log)
    notes = read_evaluation(tmp_path / "1_alpha_bundle").notes
    assert len(notes) == 6 and all("fault: worker of runs/beta" in text for text in notes.values())


def test_seals_open_with_their_key_alone() -> None:
    tree = {"seconds": 1.5, "reason": "ok"}
    text = seal(tree, "k 1")
    assert unseal(text, "k 1") == tree
    assert len(seal({"inference_ms": [1.0] * 300}, "k 1")) == len(text)
    assert seal(tree, "k 2") != text
    with pytest.raises(ConfigError, match="does not open"):
        unseal(text, "k 2")
    with pytest.raises(ConfigError, match="does not open"):
        unseal(text[4:], "k 1")


# Interruptions.


@pytest.mark.parametrize("at", [0, 5, 11])
def test_an_interrupt_loses_the_trial_under_way_and_no_other(tmp_path: Path, at: int) -> None:
    protocol, table = make_protocol(), Table({0: {50}, 1: {50, 51}})
    table.interrupt_at = at
    clock = Clock()
    session, _, log = make_session(tmp_path, protocol, table, now=clock)
    with pytest.raises(KeyboardInterrupt):
        session.play()
    assert len(open_log(tmp_path, protocol).judged()) == at
    session, views, log = make_session(tmp_path, protocol, table, now=clock)
    assert session.play() == ""
    assert views[0].number == at + 1
    assert table.runs == [(t.policy, t.seed) for t in protocol.plan]
    assert list(log.judged()) == list(range(1, 13)) and len(log.lines) == 12


def test_a_pause_and_a_closed_terminal_keep_what_was_judged(tmp_path: Path) -> None:
    protocol, table = make_protocol(), Table()
    session, _, log = make_session(tmp_path, protocol, table, Judge(table, most=3))
    assert session.play() is None
    session, views, log = make_session(tmp_path, protocol, table, Person([" ", "s", " "]))
    assert session.play() is None  # the terminal went away before the judgement
    assert views[0].number == 4 and len(log.judged()) == 4
    session, _, log = make_session(tmp_path, protocol, table)
    assert session.play() == "" and len(log.judged()) == 12


def test_the_log_survives_being_cut_anywhere_in_its_last_line(tmp_path: Path) -> None:
    protocol, table = make_protocol(), Table()
    session, _, log = make_session(tmp_path, protocol, table, Judge(table, most=2))
    session.play()
    whole = (tmp_path / LOG_NAME).read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for cut in (last, last + 1, last + 40, len(whole) - 1):
        (tmp_path / LOG_NAME).write_bytes(whole[:cut])
        again = open_log(tmp_path, protocol)
        assert list(again.judged()) == [1]
        again.append(log.lines[1])
        assert (tmp_path / LOG_NAME).read_bytes() == whole
    (tmp_path / LOG_NAME).write_bytes(whole[:20])  # not even the header was whole
    assert open_log(tmp_path, protocol).lines == []
    (tmp_path / LOG_NAME).write_bytes(whole.replace(b'"score": 0', b'"score": x', 1))
    with pytest.raises(ConfigError, match=r"trials.jsonl, line 2 is damaged"):
        open_log(tmp_path, protocol)


def test_other_trials_are_not_continued(tmp_path: Path) -> None:
    open_log(tmp_path, make_protocol())
    with pytest.raises(ConfigError, match="belongs to other trials: order_sha256, seed differ"):
        open_log(tmp_path, make_protocol(seed=5))
    changed = dataclasses.replace(ALPHA, digest="cc" * 32)
    with pytest.raises(ConfigError, match="other trials: policies differ"):
        open_log(tmp_path, make_protocol(policies=(changed, BETA)))
    with pytest.raises(ConfigError, match="say what success is"):
        make_protocol(success_predicate=" ")
    with pytest.raises(ConfigError, match=r"no trial in .* has been judged"):
        finish(tmp_path, make_protocol(), open_log(tmp_path, make_protocol()))
    with pytest.raises(ConfigError, match="outcome is one of"):
        open_log(tmp_path, make_protocol()).append(Line(1, "maybe", 0, "", "", ""))


# Stopping early.


def test_the_sequential_rule_stops_between_blocks_and_the_report_says_so(tmp_path: Path) -> None:
    many = tuple(Start(f"start {i}") for i in range(40))
    protocol = make_protocol(starts=many)
    table = Table({1: set(range(50, 90))})  # beta always, alpha never
    rule = stopping.rule(2, 40, True)
    asked: list[int] = []

    def stop(blocks: Sequence[tuple[bool, ...]]) -> str:
        asked.append(len(blocks))
        return rule.stop(blocks)

    session, _views, log = make_session(tmp_path, protocol, table, stop_rule=stop)
    reason = session.play()
    blocks = len(table.runs) // 2
    assert reason == f"all policies told apart after {blocks} blocks" and 5 < blocks < 15
    assert len(table.runs) == 2 * blocks and asked == list(range(1, blocks + 1))
    page = unblind(tmp_path, protocol, log, stopping=rule.declared, command=("x",)).read_text()
    assert "anytime-valid test, alpha 0.05" in page and "betting e-process" in page and "better" in page
    assert read_evaluation(tmp_path / "1_alpha_bundle").stopping.kind == "sequential"


def test_the_sequential_rule_goes_on_while_policies_are_alike() -> None:
    stop: StopRule = stopping.rule(3, 99, True).stop
    assert stop([(True, True, False)] * 50) == ""  # the second is not told apart
    assert stop([(True, False, False)] * 50)
    with pytest.raises(ConfigError, match="at least two policies"):
        stopping.rule(1, 9, True)


def test_the_same_policy_twice_tests_the_protocol_itself(tmp_path: Path) -> None:
    protocol = make_protocol(policies=(ALPHA, ALPHA))
    table = Table({0: {50}, 1: {51}})
    session, _, log = make_session(tmp_path, protocol, table)
    session.play()
    finish(tmp_path, protocol, log)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["1_bundle_1_", "2_bundle_2_"]


# What the person sees.


def test_starts_from_photographs_and_from_positions(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    starts = load_starts(tmp_path)
    assert [s.name for s in starts] == ["a", "b"] and starts[1].photograph == tmp_path / "b.png"
    file = tmp_path / "starts.yaml"
    file.write_text("- {name: left, positions: {cube: [0.5, 0.1]}}\n- {name: right, photograph: a.jpg}\n")
    left, right = load_starts(file)
    assert left.positions == {"cube": (0.5, 0.1)} and right.photograph == tmp_path / "a.jpg"
    digest = right.digest
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((4, 4, 3), 200, np.uint8))
    assert right.digest != digest != left.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {positions: {cube: [1, 2]}}", "entry 1 must be a mapping of name"),
        ("- {name: a, position: {cube: [1, 2]}}", "entry 1 must be a mapping of name"),
        ("- {name: a, positions: {cube: [1]}}", r"entry 1: cube needs \[x, y\]"),
        ("- {name: a, positions: {cube: left}}", "entry 1: cube needs .* got 'left'"),
        ("- {name: a}", "entry 1 needs a photograph or positions"),
        ("- {name: a, photograph: no.png}", "entry 1: no photograph at"),
        ("- {name: a, positions: {c: [1, 2]}}\n- {name: a, positions: {c: [1, 2]}}", r"names \['a'\] occur"),
        ("{a: 1}", "must be a list of starts, got dict"),
        ("[]", "holds no start"),
        ("- [", "cannot be read"),
    ],
)
def test_bad_starts_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "starts.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_starts(tmp_path / "starts.yaml")


def test_no_starts_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no start"):
        load_starts(tmp_path)
    with pytest.raises(ConfigError, match="no folder of photographs"):
        load_starts(tmp_path / "nothing")


def test_the_overlay_blends_and_draws_edges() -> None:
    live = np.full((60, 80, 3), 40, np.uint8)
    wanted = np.full((120, 160, 3), 100, np.uint8)
    wanted[40:80, 60:100] = 250  # a cube, twice as large as it will be shown
    mixed = overlay(live, wanted, blend=0.5)
    assert mixed.shape == live.shape and tuple(mixed[2, 2]) == (70, 70, 70)
    assert tuple(mixed[30, 40]) == (145, 145, 145)
    edges = (mixed == EDGE).all(axis=2)
    rows, columns = np.nonzero(edges)
    assert edges.sum() > 40 and rows.min() in (18, 19, 20, 21) and columns.max() in (48, 49, 50, 51)
    alone = overlay(live, wanted, blend=0.0)
    assert tuple(alone[2, 2]) == (40, 40, 40) and (alone == EDGE).all(axis=2).sum() == edges.sum()
    assert overlay(live, None) is live
    with pytest.raises(ShapeError, match="photograph is 100 x 100, the camera 80 x 60"):
        overlay(live, np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(ShapeError, match="live picture must be uint8"):
        overlay(live.astype(np.float32), wanted)


class Camera:
    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> np.ndarray:
        self.reads += 1
        return np.full((48, 64, 3), 40, np.uint8)


def get(url: str, data: bytes | None = None, host: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=data, headers={"Host": host} if host else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_page_shows_the_overlay_takes_keys_and_keeps_strangers_out(tmp_path: Path) -> None:
    photograph = np.full((96, 128, 3), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), photograph)
    keys: queue.SimpleQueue[str] = queue.SimpleQueue()
    camera = Camera()
    start = Start("left <b>", tmp_path / "a.png", {"cube": (0.5, 0.1)})
    with TrialPage(camera, keys, token="secret") as page:
        assert page.url == f"http://127.0.0.1:{page.port}/secret/"
        base = page.url
        assert get(base)[0] == 200 and b"http" not in get(base)[1].replace(b"http-equiv", b"")
        assert (
            json.loads(get(base + "state")[1])["title"] == "One moment" and get(base + "view.jpg")[0] == 204
        )
        page.show(View(SET_UP, 3, 12, start, (("space", "start"),), "put it there"))
        state = json.loads(get(base + "state")[1])
        assert state["title"] == "Trial 3 of 12" and state["start"] == "left <b>"
        assert state["lines"] == ["cube: x 0.500 m, y 0.100 m"] and state["keys"] == [["space", "start"]]
        status, data = get(base + "view.jpg?blend=0.5")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert status == 200 and picture.shape == (48, 64, 3) and abs(int(picture.mean()) - 120) <= 3
        assert get(base + "keys", b"ns")[0] == 204
        assert [keys.get_nowait(), keys.get_nowait()] == ["n", "s"]
        reads = camera.reads
        page.show(View(RUNNING, 3, 12, start))
        assert get(base + "view.jpg")[0] == 204 and camera.reads == reads  # the policy has the camera
        page.show(View(JUDGE, 3, 12, start))
        assert get(base + "view.jpg?blend=x")[0] == 500
        root = f"http://127.0.0.1:{page.port}/"
        for stranger in (
            root,
            root + "state",
            root + "Secret/state",
            root + "secretstate",
            base + "../state",
        ):
            assert get(stranger)[0] == 404, stranger
        assert get(base + "state", host="evil.example")[0] == 404
        assert get(root + "keys", b"s")[0] == 404 and keys.empty()
        address = page._server.server_address[0]
    assert address == "127.0.0.1"
    with pytest.raises(urllib.error.URLError):
        get(base)


def test_a_line_is_edited_as_typed() -> None:
    shown: list[str] = []
    assert read_line(Person(list("ab\x7f\x7f\x7fcd \x1be\n")), shown.append) == "cd e"
    assert "".join(shown) == "ab\b \b\b \bcd e\n"
