"""A training that is begun, gone on with or found finished: one way for every benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.core.serial import to_tree
from robopolicy.training.config import TrainConfig
from robopolicy.training.job import CONFIG, RESULT
from robopolicy.training.train import resume, train

#: What a training takes from the run that it starts from, whatever was asked for.
TAKEN = ("keys", "horizons", "instruction", "goal")
#: Of a policy's options, what its training adds.
ADDED = ("tasks", "phrasings", "added")


def train_once(
    run: Path,
    stores: Sequence[str],
    config: TrainConfig,
    console: Console,
    family: str = "",
    options: object = None,
) -> Path:
    """Args as of ``train``; without a family it is that of the run to start from.

    Raises:
        RuntimeError: the run was begun by another plan; names what differs.
    """
    if not (run / CONFIG).is_file():
        own = {"family": family, "policy_config": options} if family else {}
        train(stores, run, config=config, console=console, **own)
        return run
    found = json.loads((run / CONFIG).read_text())
    if other := list(_differences(found, [str(s) for s in stores], config, family, options)):
        raise RuntimeError(f"{run} was begun by another plan: {'; '.join(other)}; choose another --output")
    if not (run / RESULT).is_file():
        resume(run, console=console)
    return run


def _differences(
    found: dict[str, Any], stores: list[str], config: TrainConfig, family: str, options: object
) -> Iterator[str]:
    asked = to_tree(config)
    begun = {name: found["train"].get(name) for name in asked}
    if config.extend.run or config.finetune.run:
        asked, begun = ({k: v for k, v in tree.items() if k not in TAKEN} for tree in (asked, begun))
    if family:
        policy = {k: v for k, v in to_tree(options).items() if k not in ADDED}
        asked |= {"family": family, "policy": policy}
        own = {name: found["policy"].get(name) for name in policy}
        begun |= {"family": found["family"], "policy": own}
    asked["stores"], begun["stores"] = stores, found["stores"]
    for name, value in asked.items():
        if begun[name] not in (value, None):  # None: of a release without it
            yield f"{name} {begun[name]} is not {value}"
