"""Copy a foreign dataset into a new store."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from robopolicy.core.errors import ConfigError
from robopolicy.datasets.importers.importing import import_dataset
from robopolicy.datasets.importers.source import ImportOptions


@dataclass(frozen=True)
class Args:
    """From where, and what it means.

    Args:
        source: file or folder.
        output: the new store.
        format: a file name in robopolicy/datasets/importers, or "auto" to recognise it.
        mapping: a shipped mapping's name, or a YAML file (see data/README.md); without one, what the source
            does not say is guessed, and the guesses are listed.
        skip_missing: leave out episodes that lack a file, a camera's video for example.
        without: source names to leave out, a camera for example.
        episodes: source episodes to take, by their index; all unless given.
        image_codec: how camera frames are stored: lossless, jpeg or png.
        quality: of JPEG, 1 to 100.
    """

    source: Path
    output: Path
    format: str = "auto"
    mapping: str | None = None
    skip_missing: bool = False
    without: tuple[str, ...] = ()
    episodes: tuple[int, ...] = ()
    image_codec: str = "lossless"
    quality: int | None = None


def run(args: Args) -> int:
    if args.quality is not None and args.image_codec != "jpeg":
        raise ConfigError(f"--quality is for --image-codec jpeg, not {args.image_codec}")
    console = Console()
    options = ImportOptions(args.mapping, args.skip_missing, args.without, args.episodes)
    settings = {} if args.quality is None else {"quality": args.quality}
    store, report = import_dataset(
        args.source,
        args.output,
        options,
        format=args.format,
        console=console,
        image_codec=args.image_codec,
        codec_settings=settings,
    )
    for key, value in dataclasses.asdict(report).items():
        lines = (
            [f"{ours} from {theirs}" for ours, theirs in value.items()] if isinstance(value, dict) else value
        )
        for line in lines:
            console.print(f"{key}: {escape(str(line))}", soft_wrap=True)
    steps = sum(entry.length for entry in store.entries.values())
    console.print(
        f"{args.output}: {len(store)} episodes, {steps} steps; next: robopolicy dataset check {args.output}",
        markup=False,
        soft_wrap=True,
    )
    return 0
