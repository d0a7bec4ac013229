"""Weights & Biases; project, entity and mode come from its own environment variables (WANDB_PROJECT, ...)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopolicy.core.errors import MissingDependencyError


class WeightsAndBiases:
    """One run there per run folder; a resumed training goes on in it."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingDependencyError(
                "Weights & Biases is not installed: pip install 'robopolicy[wandb]'"
            ) from error
        identity = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            dir=str(run), name=run.name, id=identity, config=dict(config), resume="allow", save_code=False
        )
        # its own counter only grows, and a resumed run repeats steps: ours is the axis
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


def open_tracker(run: Path, *, config: Mapping[str, Any], step: int) -> WeightsAndBiases:
    """See ``trackers.open_trackers``."""
    return WeightsAndBiases(run, config)
