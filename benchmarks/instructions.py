"""Does a policy do what it is told, in words that it was not trained on?

python benchmarks/instructions.py [--json FILE] [--quick] [--output FOLDER]

First the text encoder alone: how many of 120 held-out phrasings of 12 tasks lie nearest to their own task,
also misspelt, beside a hashed bag of words. Then ``two_goal_reach``, where only the instruction says which of
two goals is meant: a small policy is trained on demonstrations of both with the phrasings of
data/phrasings/training.yaml, another without them. Both are told, from the same starts: the trained
instruction, the other one (swapped), phrasings of data/phrasings/held_out.yaml, misspelt ones, and nonsense.
Draws the tool's paths.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from wording.nearest import Phrasings, bag_of_words, misspelt, nearest, right
from wording.picture import draw
from wording.reaching import SIDES, Went, demonstrations, go, trained

from robopolicy.core.policy import Policy
from robopolicy.evaluation.statistics import wilson_interval
from robopolicy.runtime.language.choose import load_text_encoder
from robopolicy.training.phrasing import read_phrasings

PHRASINGS = Path(__file__).parents[1] / "data" / "phrasings"
TASKS = {side: f"reach the {side} green goal" for side in SIDES}
NONSENSE = ("bake a chocolate cake", "colourless ideas sleep furiously", "blorp zint quux")
FIRST_SEED = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few steps and episodes: whether it runs")
    parser.add_argument(
        "--output", type=Path, help="folder of stores and policies; runs/instructions by default"
    )
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    parser.add_argument("--encoder", nargs="*", default=[], help="folders of sentence encoders to compare")
    parser.add_argument("--encoders-only", action="store_true", help="no training")
    given = parser.parse_args()
    console = Console(width=140)
    result: dict[str, Any] = {"encoder": encoders(given.encoder, console)}
    if given.encoders_only:
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n")
        return
    root = given.output or Path("runs") / ("instructions_quick" if given.quick else "instructions")
    root.mkdir(parents=True, exist_ok=True)
    stores = demonstrations(root, 4 if given.quick else 60, console)
    steps = given.steps or (4 if given.quick else 1_500)
    starts = 1 if given.quick else 50
    for name, phrasings in (("phrasings", str(PHRASINGS / "training.yaml")), ("instructions alone", "")):
        folder = root / f"{name.replace(' ', '_')}_{steps}_{given.seed}"
        policy = trained(stores, folder, phrasings, steps=steps, seed=given.seed, console=console)
        rows, shown = told(policy, starts, console)
        print_rows(name, rows, console)
        result[name] = rows
        draw(shown, root / f"paths_{name.replace(' ', '_')}.png")
        if given.json:  # after each: the second training takes a while
            given.json.write_text(json.dumps(result, indent=2) + "\n")


def encoders(others: list[str], console: Console) -> list[dict[str, Any]]:
    """Nearest task of every held-out phrasing, by the built-in encoder and by others, given as folders."""
    training, held_out = (read_phrasings(PHRASINGS / f"{n}.yaml") for n in ("training", "held_out"))
    alone = {task: () for task in training}
    wrong = {task: [misspelt(text) for text in texts] for task, texts in held_out.items()}
    table = Table("text encoder", "from the instruction", "and its phrasings", "the same, misspelt")
    rows = []
    known = {name: load_text_encoder(name).encode for name in ("words", *others)}
    for name, encode in {**known, "bag of words": bag_of_words}.items():
        cases: dict[str, tuple[Phrasings, Phrasings]] = {
            "instruction": (alone, held_out),
            "phrasings": (training, held_out),
            "misspelt": (training, wrong),
        }
        found = {case: nearest(encode, texts, asked) for case, (texts, asked) in cases.items()}
        table.add_row(name, *(rate(right(pairs), len(pairs)) for pairs in found.values()))
        missed = [pair for pair in found["phrasings"] if pair[1] != pair[2]]
        counts = {case: right(pairs) for case, pairs in found.items()}
        rows.append({"encoder": name, **counts, "of": len(found["phrasings"]), "missed": missed})
    console.print(table)
    return rows


def told(policy: Policy, starts: int, console: Console) -> tuple[list[dict[str, Any]], dict[str, list[Went]]]:
    """Counts by what was said, and the paths under the trained instructions and the nonsense."""
    held_out = read_phrasings(PHRASINGS / "held_out.yaml")
    cases = [("as trained", side, TASKS[side], starts) for side in SIDES]
    for said, change, part in (("held out", str, 10), ("held out, misspelt", misspelt, 25)):
        texts = [(side, change(text)) for side in SIDES for text in held_out[TASKS[side]]]
        cases += [(said, side, text, max(1, starts // part)) for side, text in texts]
    cases += [("nonsense", "", text, max(1, starts // 5)) for text in NONSENSE]
    orders = [(FIRST_SEED + i, text) for _, _, text, count in cases for i in range(count)]
    went = iter(go(policy, orders, console))
    found = [(case, list(itertools.islice(went, case[3]))) for case in cases]
    rows = [counted(said, asked, text, episodes) for (said, asked, text, _), episodes in found]
    both = sum(one.side == "left" and other.side == "right" for one, other in zip(found[0][1], found[1][1]))
    rows.append({"said": "swapped", "asked": "the other", "text": "", "obeyed": both, "of": starts})
    shown: dict[str, list[Went]] = {}
    for (said, _, text, _), episodes in found:
        if said in ("as trained", "nonsense"):
            shown.setdefault(text if said == "as trained" else said, []).extend(episodes)
    return rows, shown


def counted(said: str, asked: str, text: str, went: list[Went]) -> dict[str, Any]:
    sides = Counter(one.side or "neither" for one in went)
    row: dict[str, Any] = {"said": said, "asked": asked, "text": text, "of": len(went), **sides}
    return {**row, "obeyed": sides[asked]} if asked else row


def print_rows(name: str, rows: list[dict[str, Any]], console: Console) -> None:
    """All phrasings of a kind and side together; those that were not always obeyed by themselves."""
    table = Table(f"trained with {name}", "asked", "obeyed", "left", "right", "neither")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["said"], row["asked"]), []).append(row)
    for (said, asked), members in groups.items():
        total = sum(row["of"] for row in members)
        obeyed = rate(sum(row["obeyed"] for row in members), total) if asked else ""
        sides = [str(sum(row.get(key, 0) for row in members)) for key in (*SIDES, "neither")]
        table.add_row(said, asked, obeyed, *(sides if said != "swapped" else ["", "", ""]))
    console.print(table)
    for row in rows:
        if row["asked"] and row["obeyed"] < row["of"] and row["text"]:
            console.print(f"  {row['obeyed']}/{row['of']} {row['text']!r}")


def rate(count: int, total: int) -> str:
    low, high = wilson_interval(count, total)
    return f"{count}/{total} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
