"""Success of a policy against the delay of its observations or commands, with and without knowing the delay.

python benchmarks/latency_sweep.py --policy FOLDER [--json FILE] [--quick] [--env NAME]

``robopolicy sweep`` does one of these rows with more to say about it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from robopolicy.cli.eval import load_any
from robopolicy.core.policy import Policy
from robopolicy.evaluation.campaign import available_cores
from robopolicy.evaluation.compensation import DelayCompensated
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.rollout import evaluate
from robopolicy.evaluation.statistics import wilson_interval

DELAYS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # [s]
ROWS = (("observation", False), ("actuation", False), ("observation", True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="a trained run or a bundle")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="10 episodes and 4 delays instead of 100 and 10")
    parser.add_argument("--env", default="lift")
    given = parser.parse_args()
    episodes, delays = (10, DELAYS[::3]) if given.quick else (100, DELAYS)
    console, policy = Console(), load_any(given.policy)
    table = Table("delay", *(f"of {of}, compensated" if knows else f"of {of}" for of, knows in ROWS))
    found = []
    for delay in delays:
        cells = []
        for component, knows in ROWS:
            acting: Policy = DelayCompensated(policy, delay) if knows else policy
            recipe = EnvRecipe(given.env, {"latency": {component: delay}})
            seeds = range(1_000_000, 1_000_000 + episodes)
            results = evaluate(
                acting, recipe, seeds, executor="processes", workers=available_cores(), console=console
            )
            won = sum(result.success for result in results)
            low, high = wilson_interval(won, episodes)
            cells.append(f"{won}/{episodes} [{low:.2f}, {high:.2f}]")
            row = {"delay_of": component, "compensated": knows, "delay": delay}
            found.append({**row, "successes": won, "n": episodes, "interval": [low, high]})
        table.add_row(f"{1000 * delay:g} ms", *cells)
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps({"rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
