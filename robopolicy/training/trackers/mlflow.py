"""MLflow; server and experiment come from its own variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robopolicy.core.errors import MissingDependencyError

IDENTITY = "mlflow_run_id"
PARAMETER_LENGTH = 250  # characters that every MLflow server takes


class MlFlow:
    """One MLflow run per run folder; a resumed training goes on in it."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise MissingDependencyError(
                "MLflow is not installed: pip install 'robopolicy[mlflow]'"
            ) from error
        self._client = mlflow
        identity = run / IDENTITY
        if identity.is_file():
            mlflow.start_run(run_id=identity.read_text().strip())
            return
        started = mlflow.start_run(run_name=run.name)
        identity.write_text(started.info.run_id + "\n")
        mlflow.log_params({name: str(value)[:PARAMETER_LENGTH] for name, value in flat(config)})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._client.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._client.end_run()


def open_tracker(run: Path, *, config: Mapping[str, Any], step: int) -> MlFlow:
    """See ``trackers.open_trackers``."""
    return MlFlow(run, config)


def flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """("train.steps", 10000) and so on of a nested mapping."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
