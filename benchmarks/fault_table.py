"""Each fault on an injected clock: when it is detected, how long the arm takes to stop, what is reported.

python benchmarks/fault_table.py [--json FILE] [--quick]

Runs tests/unit/test_faults_reaction.py: an arm at 1 rad/s under a 100 Hz loop and a 10 Hz policy.
"detected" counts from the signal that failed, in its own periods, to the first braking command; "stop" is in
times of the quickest that the joint limits allow (ruckig's velocity interface), in ticks of 10 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "tests" / "unit"))


def main() -> None:
    from fault_rig import AT, TICK, quickest_stop_s, stopping_ticks
    from test_faults_reaction import CASES, react

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    given = parser.parse_args()
    table, rows = Table("fault", "detected", "stopped", "reason"), []
    for name, case in CASES.items():
        rig, result = react(case)
        took, _ = stopping_ticks(rig.plant.sent, result.ticks)
        took_s, quickest_s = took * TICK * 1e-9, quickest_stop_s(rig.plant.sent, result.ticks)
        after_ns = max(int(result.time_ns[result.ticks]) - case.since(rig), 0)
        if case.kind == "clock_jump":  # no clock spans it, but it is the next tick
            after_ns = (result.ticks - AT) * TICK
        row = {
            "fault": name,
            "kind": case.kind,
            "detected_ms": after_ns * 1e-6,
            "periods": after_ns / case.period,
            "stopped_ms": took_s * 1e3,
            "times_the_quickest": took_s / quickest_s,
            "reason": result.reason,
        }
        rows.append(row)
        detected = f"{row['detected_ms']:.0f} ms = {row['periods']:.1f} periods"
        stopped = f"{row['stopped_ms']:.0f} ms = {row['times_the_quickest']:.2f} x"
        table.add_row(name, detected, stopped, result.reason)
    Console().print(table)
    if given.json:
        worst = {key: max(row[key] for row in rows) for key in ("periods", "times_the_quickest")}
        given.json.write_text(json.dumps({**worst, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
