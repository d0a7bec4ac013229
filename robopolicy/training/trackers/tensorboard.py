"""TensorBoard event files in the run's ``tensorboard`` folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopolicy.core.errors import MissingDependencyError


class TensorBoard:
    """Scalars under their own names; ``tensorboard --logdir RUNS`` shows them."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "TensorBoard is not installed: pip install 'robopolicy[train]'"
            ) from error
        # a resumed run repeats what came after its checkpoint: those points of the broken run are dropped
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_tracker(run: Path, *, config: Mapping[str, Any], step: int) -> TensorBoard:
    """See ``trackers.open_trackers``; the configuration is in the run's own files."""
    return TensorBoard(run / "tensorboard", step)
