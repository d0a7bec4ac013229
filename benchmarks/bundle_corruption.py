"""Damaged and forged bundles: how many are refused, and whether the refusal names the file.

python benchmarks/bundle_corruption.py [--json FILE] [--quick] [--bundle FOLDER --other FOLDER]

Damage (flipped bits, truncated, swapped, removed, added, edited without the hashes) must be refused whole,
with the file named. Forgeries, whose hashes were made to agree, can only be refused where they contradict
themselves, and always with the digest that was kept elsewhere. Without --bundle two tiny policies with
critics are exported, in both forms.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from corruption.cases import Case, damage, forgeries
from rich.console import Console
from rich.table import Table

from robopolicy.core.errors import RobopolicyError
from robopolicy.runtime.bundle.directory import bundle_digest, load_bundle
from robopolicy.runtime.bundle.policy import BundlePolicy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--other", type=Path, help="another bundle of the same layout, to swap files with")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.bundle is not None:
            pairs = {given.bundle.name: (given.bundle, given.other or given.bundle)}
        else:
            from corruption.bundles import tiny_bundles

            pairs = tiny_bundles(Path(scratch))
        found = {
            name: measure(*pair, Path(scratch), 8 if given.quick else 100) for name, pair in pairs.items()
        }
    totals = {
        key: sum(result[key] for result in found.values()) for key in next(iter(found.values()))["sums"]
    }
    show(found)
    tree = {**totals, "bundles": found}
    if given.json:
        given.json.write_text(json.dumps(tree, indent=2) + "\n")
    complete = totals["cases"] == totals["refused"] == totals["named"]
    raise SystemExit(not (complete and totals["forged_refused_by_digest"] == totals["forged"]))


def measure(good: Path, other: Path, scratch: Path, flips: int) -> dict[str, Any]:
    """Counts over all cases of one bundle, by kind, and how long a good one takes to load."""
    files, others = ({p.name: p.read_bytes() for p in sorted(folder.iterdir())} for folder in (good, other))
    digest = bundle_digest(good)
    kinds: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    for forged, cases in ((False, damage(files, others, flips)), (True, forgeries(files, others))):
        for case in cases:
            if forged and case.files == files:
                continue  # the checksum was changed, and then made right again
            told = refusal(case, good, scratch, None)
            pinned = refusal(case, good, scratch, digest) if forged else told
            row = Counter(
                cases=1,
                refused=int(told is not None),
                named=int(told is not None and case.named(told)),
                refused_by_digest=int(pinned is not None),
            )
            kinds.setdefault(f"forged: {case.kind}" if forged else case.kind, Counter()).update(row)
            counts.update({f"forged_{key}" if forged else key: value for key, value in row.items()})
    sums = {
        "cases": counts["cases"],
        "refused": counts["refused"],
        "named": counts["named"],
        "forged": counts["forged_cases"],
        "forged_refused": counts["forged_refused"],
        "forged_refused_by_digest": counts["forged_refused_by_digest"],
    }
    return {**sums, "sums": list(sums), "kinds": {k: dict(v) for k, v in kinds.items()}, **loading(good)}


def refusal(case: Case, good: Path, scratch: Path, digest: str | None) -> str | None:
    """The message of the refusal; None when the bundle loads."""
    root = scratch / "case"
    folder = root / "bundle"
    folder.mkdir(parents=True)
    try:
        case.write(folder, good)
        load_bundle(folder, digest=digest)
    except RobopolicyError as error:
        return str(error).replace(str(folder), "")
    finally:
        shutil.rmtree(root)
    return None


def loading(good: Path, repeats: int = 9) -> dict[str, float]:
    """Median times: reading and checking; and making the engine's sessions [ms]."""
    load, start = [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        bundle = load_bundle(good)
        load.append(time.perf_counter() - begin)
    for _ in range(3):
        begin = time.perf_counter()
        BundlePolicy(bundle, provider="cpu")
        start.append(time.perf_counter() - begin)
    size = sum(path.stat().st_size for path in good.iterdir())
    return {
        "load_ms": statistics.median(load) * 1e3,
        "start_ms": statistics.median(start) * 1e3,
        "bytes": size,
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    console = Console()
    for name, result in found.items():
        table = Table("altered", "cases", "refused", "file named", "refused by --digest", title=name)
        for kind, row in sorted(result["kinds"].items()):
            values = (row["cases"], row["refused"], row["named"], row["refused_by_digest"])
            table.add_row(kind, *map(str, values))
        console.print(table)
        console.print(
            f"damage: {result['refused']} of {result['cases']} refused, {result['named']} by name; "
            f"forgeries: {result['forged_refused']} of {result['forged']} contradict themselves, "
            f"{result['forged_refused_by_digest']} are refused by --digest; "
            f"{result['bytes'] / 1e6:.1f} MB load in {result['load_ms']:.0f} ms, "
            f"the engine starts in {result['start_ms']:.0f} ms"
        )


if __name__ == "__main__":
    main()
