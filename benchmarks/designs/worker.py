"""A process that appends episodes, for parents that run two of them or kill it; told by ``trouble.py``.

python worker.py DESIGN PATH FIRST COUNT [--create | --touch]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from designs import load


def say(text: str) -> None:
    """One line, at once: what was said is true when the parent reads it."""
    os.write(1, f"{text}\n".encode())


def main(design: str, path: str, first: str, count: str, *flags: str) -> None:
    kind = load(design)
    store = kind.create(Path(path)) if "--create" in flags else kind(Path(path))
    act = store.touch if "--touch" in flags else store.append
    say("ready")
    sys.stdin.readline()
    for seed in range(int(first), int(first) + int(count)):
        say(f"committing {seed}")
        act(seed)
        say(f"committed {seed}")
    say(f"conflicts {store.conflicts}")


if __name__ == "__main__":
    main(*sys.argv[1:])
