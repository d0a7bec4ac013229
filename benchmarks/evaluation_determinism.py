"""Whether an evaluation gives the same actions, bit for bit, however many environments run where.

python benchmarks/evaluation_determinism.py [--json FILE] [--quick] [--policy FOLDER ...] [--env NAME]

Every policy is evaluated with 1, 4 and 16 environments, in this process and spread over two others; each run
is one SHA-256 over the hashes of all episodes' actions. Without --policy: the default network with random
weights, in torch and as an ONNX bundle; equality does not depend on training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.policies import save_untrained
from rich.console import Console
from rich.table import Table

from robopolicy.cli.eval import load_any
from robopolicy.evaluation.environments import EnvRecipe, make_env
from robopolicy.evaluation.rollout import evaluate

SETTINGS = ((1, "inline", 1), (4, "inline", 1), (16, "inline", 1), (4, "processes", 2), (16, "processes", 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="6 episodes instead of 40")
    parser.add_argument("--policy", type=Path, nargs="*", default=[], help="trained runs or bundles")
    parser.add_argument("--env", default="lift")
    given = parser.parse_args()
    episodes = 6 if given.quick else 40
    console = Console()
    table = Table("policy", "environments", "executor", "seconds", "hash of all actions")
    equal, runs = True, []
    for name, policy in policies(given.policy, given.env):
        hashes = set()
        for num_envs, executor, workers in SETTINGS:
            start = time.perf_counter()
            found = evaluate(
                policy,
                EnvRecipe(given.env),
                range(1_000_000, 1_000_000 + episodes),
                num_envs=num_envs,
                executor=executor,
                workers=workers,
                console=console,
            )
            seconds = time.perf_counter() - start
            digest = hashlib.sha256("".join(r.action_hash for r in found).encode()).hexdigest()
            hashes.add(digest)
            row = {"policy": name, "num_envs": num_envs, "executor": executor, "hash": digest}
            runs.append({**row, "successes": sum(r.success for r in found), "seconds": seconds})
            table.add_row(name, str(num_envs), f"{executor} ({workers})", f"{seconds:.1f}", digest[:16])
        equal &= len(hashes) == 1
    console.print(table)
    console.print(f"episodes {episodes}, hashes_equal {equal}")
    if given.json:
        tree = {"hashes_equal": equal, "episodes": episodes, "environment": given.env, "runs": runs}
        given.json.write_text(json.dumps(tree, indent=2) + "\n")
    raise SystemExit(0 if equal else 1)


def policies(folders: list[Path], env_name: str) -> Iterator[tuple[str, Any]]:
    """The ones that were named, or an untrained one in torch and as a bundle."""
    for folder in folders:
        yield folder.name, load_any(folder)
    if folders:
        return
    from robopolicy.export.bundle import export_bundle

    with tempfile.TemporaryDirectory() as scratch:
        env = make_env(env_name)
        saved = save_untrained(Path(scratch) / "policy", env, tuple(env.specs.observation))
        env.close()
        yield "torch", load_any(saved)
        export_bundle(saved, Path(scratch) / "bundle")
        yield "bundle", load_any(Path(scratch) / "bundle")


if __name__ == "__main__":
    main()
