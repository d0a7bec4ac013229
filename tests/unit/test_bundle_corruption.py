"""The quick form of benchmarks/bundle_corruption.py, on bundles made by hand."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from stepping import step_specs, write_step_bundle
from test_runtime_support import tiny_normalisers, tiny_specs, write_tiny_bundle

from robopolicy.core.normalise import Affine

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from bundle_corruption import measure


@pytest.mark.parametrize("form", ["sampler", "step"])
def test_all_damage_is_refused_by_name_and_all_forgery_by_the_digest(tmp_path: Path, form: str) -> None:
    if form == "sampler":
        good, other = (write_tiny_bundle(tmp_path / name, image=True) for name in ("good", "other"))
    else:
        changed = dataclasses.replace(tiny_normalisers(tiny_specs()), action=Affine((0.0,) * 3, (1.0,) * 3))
        good = write_step_bundle(tmp_path / "good", critic=True, measured={"latency_ms.step.k1": 1.5})
        other = write_step_bundle(
            tmp_path / "other", critic=True, normalisers=changed, policy_specs=step_specs()
        )
    found = measure(good.directory, other.directory, tmp_path, flips=2)
    assert found["cases"] > 250 and found["forged"] > 200
    assert found["refused"] == found["named"] == found["cases"], found["kinds"]
    assert found["forged_refused_by_digest"] == found["forged"], found["kinds"]
    assert 0 < found["forged_refused"] < found["forged"]  # what is consistent cannot be told apart
    assert found["load_ms"] > 0
