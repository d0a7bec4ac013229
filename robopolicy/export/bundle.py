"""Training run in, checked deployment bundle out."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import numpy as np

from robopolicy.core.errors import RunExistsError
from robopolicy.core.provenance import git_revision, package_versions
from robopolicy.datasets.store import EpisodeStore
from robopolicy.export.onnx import export_graphs
from robopolicy.export.parity import TOLERANCE, Parity, compare, random_observations, recorded_observations
from robopolicy.policies._saved import DESCRIPTION, load_policy
from robopolicy.runtime.bundle import load_bundle, write_bundle
from robopolicy.runtime.manifest import Producer
from robopolicy.runtime.policy import BundlePolicy

WINDOWS_COMPARED = 8


def export_bundle(
    run: Path, output: Path, *, store: Path | None = None, tolerance: float = TOLERANCE, seed: int = 0
) -> Parity:
    """Export a trained policy and hold it against torch; the bundle appears only when they agree.

    Args:
        run: training run, or a saved policy's folder.
        store: demonstrations to compare on; None compares on random observations alone.
    Raises:
        RunExistsError: output exists; ParityError: the graphs disagree; RobopolicyError: no policy.
    """
    if output.exists():
        raise RunExistsError(f"{output} already exists; choose another path")
    policy = load_policy(run, device="cpu")
    folder = run if (run / DESCRIPTION).is_file() else run / "policy"
    family = json.loads((folder / DESCRIPTION).read_text())["family"]
    opened = None if store is None else EpisodeStore.open(store)  # before the slow part
    graphs = export_graphs(policy.module)
    unchecked = output.with_name(f".{output.name}-{uuid.uuid4().hex}")
    try:
        write_bundle(
            unchecked,
            policy_specs=policy.policy_specs,
            normalisers=policy.normalisers,
            graphs=graphs,
            policy=family,
            denoising_steps=len(policy.module.steps),
            producer=Producer(run.name, git_revision(), package_versions(), {"policy_digest": policy.digest}),
        )
        exported = BundlePolicy(load_bundle(unchecked))
        scale = np.asarray(policy.normalisers.action.scale)
        windows = random_observations(policy.policy_specs, policy.normalisers, WINDOWS_COMPARED, seed)
        if opened is not None:
            windows += recorded_observations(opened, policy.policy_specs, WINDOWS_COMPARED)
        parity = compare(policy, exported, windows, scale, seed=seed, tolerance=tolerance)
        unchecked.rename(output)
    finally:
        shutil.rmtree(unchecked, ignore_errors=True)
    return parity
