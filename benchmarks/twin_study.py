"""Sim-to-sim: does identification make the simulator predict a twin that plays the real robot?

python benchmarks/twin_study.py [--json FILE] [--quick] [--output FOLDER]

The twin is the same task under hidden effects (``robopolicy_sim/twins/effects.py``), some of which the
identifier has no parameters for. Policies spread from poor to good run on the same seeds on the twin
("real"), in the simulation as it is ("before"), and in the simulation with what was identified from the
twin's logs ("after"). Every stage is kept in the output folder; a second run continues where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from twin import analysis
from twin.logs import identified
from twin.policies import POLICIES, QUICK, train
from twin.worlds import WORLDS, outcomes

from robopolicy.core.provenance import write_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="three policies, ten episodes: whether it runs")
    parser.add_argument("--output", type=Path, help="folder of cached stages; runs/twin_study by default")
    parser.add_argument("--episodes", type=int, help="of each policy in each world; 100, or 10 with --quick")
    given = parser.parse_args()
    console = Console(width=120)
    root = given.output or Path("runs") / ("twin_study_quick" if given.quick else "twin_study")
    count = given.episodes or (10 if given.quick else 100)
    policies = QUICK if given.quick else POLICIES
    parameters = identified(root, quick=given.quick, console=console)
    found: dict[str, dict[str, dict[int, bool]]] = {world: {} for world in WORLDS}
    for policy in policies:
        run = train(policy, root)
        for world in WORLDS:
            won = outcomes(policy, world, run, parameters, root / "outcomes", count)
            found[world][policy.name] = won
            console.print(f"{policy.name:32} {world:8} {sum(won.values())}/{count}", highlight=False)
    result = analysis.compare(found)
    tree = analysis.as_tree(found, result)
    analysis.scatter(found, result, root / "twin_study.png")
    console.print(analysis.table(found))
    for key, value in tree.items():
        if key != "policies" and not key.endswith("_interval"):
            interval = tree.get(f"{key}_interval")
            shown = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            console.print(
                f"{key:28} {value if isinstance(value, str) else f'{value:.3f}'}{shown}", highlight=False
            )
    console.print(f"plot: {root / 'twin_study.png'}")
    if given.json:
        write_json(given.json, tree)


if __name__ == "__main__":
    main()
