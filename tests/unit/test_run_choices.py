"""The run's page shows what was chosen and from what; a run without choices has no such part."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from test_run_report import NAMES, arrays_of, write_run

from robopolicy.evaluation.run_choices import choices, pictures
from robopolicy.evaluation.run_files import episode_file, read_run
from robopolicy.evaluation.run_report import write_run_report
from robopolicy.runtime import Response
from robopolicy.runtime.control.decisions import Decisions

K, HORIZON = 12, 16


def decisions(seed: int, *, count: int = 9) -> Decisions:
    """The sixth has no values, the last was cut short by its deadline."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        drawn = 6 if i == count - 1 else K
        steps = np.cumsum(rng.normal(size=(drawn, HORIZON, len(NAMES))) * 0.02, axis=1)
        values = -5 + 0.4 * i + rng.normal(size=drawn)
        values = np.full(drawn, np.nan) if i == 5 else values
        index = 0 if i == 5 else int(values.argmax())
        note = "6 of 12 candidates drawn" if drawn < K else ""
        found.append(
            Response(
                i,
                10**12 + i * 700_000_000,
                steps.astype(np.float32),
                30_000_000,
                index=index,
                values=values,
                asked=K,
                scored=drawn,
                note=note,
                draw_ns=26_000_000 + i * 100_000,
                score_ns=3_000_000,
                deadline_ns=29_750_000,  # the last takes 29.8 ms
            )
        )
    return Decisions.of(found)


def write_choosing_run(folder: Path) -> Path:
    write_run(folder, episodes=2)
    kept = [decisions(0), decisions(1)]
    for number, made in enumerate(kept):
        np.savez(folder / episode_file(number), **arrays_of(700, number), **made.arrays)
    summary = json.loads((folder / "realtime.json").read_text())
    totals = [made.totals for made in kept]
    summary["decisions"] = {name: sum(t[name] for t in totals) for name in totals[0]}
    summary["candidates_mb"] = 0.05
    (folder / "realtime.json").write_text(json.dumps(summary))
    return folder


def test_totals_tell_what_was_cut_short() -> None:
    totals = decisions(0).totals
    assert totals["decisions"] == 9 and totals["candidates_drawn"] == 8 * K + 6
    assert (totals["fewer_drawn"], totals["nan_rows"], totals["fewer_scored"]) == (1, 1, 0)
    assert totals["fall_backs"] == 2 and totals["notes"] == 1


def test_the_page_shows_choices(tmp_path: Path) -> None:
    run = read_run(write_choosing_run(tmp_path / "run"))
    section = choices(run)
    assert section is not None
    rows = dict(section["rows"])
    assert rows["decisions"] == "18, 12 candidates asked for, 11.3 drawn on average"
    assert rows["no candidate with a value: the first sample"] == "2 (11.1%)"
    assert rows["fewer candidates judged, for want of time"] == "never"
    assert rows["later than the deadline all the same"] == "2 (11.1%)"
    assert section["notes"] == ["2 × 6 of 12 candidates drawn"]
    drawn = pictures(run, 0)
    assert [figure.svg.count("var(--accent)") > 0 for figure in drawn] == [True, True]
    assert "12 candidates at" in drawn[1].caption and "in each of 9 decisions" in drawn[0].caption
    page = write_run_report(tmp_path / "run").read_text()
    assert "Choice among candidates" in page and "2 × 6 of 12 candidates drawn." in page
    assert len(page) < 600_000


def test_a_run_that_never_chose_has_no_such_part(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", episodes=1)
    assert choices(read_run(folder)) is None and pictures(read_run(folder), 0) == []
    assert "Choice among candidates" not in write_run_report(folder).read_text()
    single = Decisions.of([Response(1, 10**12, np.zeros((1, HORIZON, 3), np.float32), 5)])
    np.savez(folder / episode_file(0), **arrays_of(700), **single.arrays)
    assert choices(read_run(folder)) is None
