"""Deal the episodes of a store out to new ones, for training and holding out."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import progress
from robopolicy.core.errors import ConfigError, RunExistsError
from robopolicy.datasets import copying
from robopolicy.datasets.storage import is_url
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """Into what.

    Args:
        store: path or URL.
        parts: NAME=SHARE, for example train=0.9 val=0.1.
        output: new stores are OUTPUT-NAME.zarr.
        seed: of the draw.
    """

    store: tyro.conf.Positional[str]
    parts: tyro.conf.Positional[tuple[str, ...]]
    output: str
    seed: int = 0


def run(args: Args) -> int:
    console, store = Console(), EpisodeStore.open(args.store)
    parts = copying.split(store, _shares(args.parts), seed=args.seed)
    outputs = {part: f"{args.output}-{part}.zarr" for part in parts}
    for path in outputs.values():
        if not is_url(path) and copying.Path(path).exists():
            raise RunExistsError(f"{path} already exists; choose another --output")
    for part, names in parts.items():
        with progress(part, console) as report:
            copying.merge([(store, names)], outputs[part], report)
        console.print(f"{outputs[part]}: {len(names)} episodes", markup=False, soft_wrap=True)
    return 0


def _shares(parts: tuple[str, ...]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for text in parts:
        name, _, share = text.partition("=")
        try:
            value = float(share)
        except ValueError as error:
            raise ConfigError(f"{text!r} is not NAME=SHARE, for example val=0.1") from error
        if not name or name in shares:
            raise ConfigError(f"part {name!r} is empty or given twice")
        shares[name] = value
    return shares
