"""Every run says what made it, and none replaces another."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from robopolicy.core.errors import RunExistsError
from robopolicy.core.horizons import Horizons
from robopolicy.core.provenance import create_run, git_revision, package_versions, write_json


def test_a_run_holds_its_config_and_what_produced_it(tmp_path):
    run = create_run(tmp_path / "deep" / "run", Horizons(), seed=7)
    assert json.loads((run / "config.json").read_text()) == {"observation": 2, "prediction": 16, "action": 8}
    facts = json.loads((run / "provenance.json").read_text())
    assert facts["seed"] == 7
    assert {"python", "numpy", "robopolicy"} <= set(facts["versions"])
    assert facts["command"] and "git_revision" in facts


def test_an_empty_folder_may_become_a_run(tmp_path):
    create_run(tmp_path, {})
    assert (tmp_path / "config.json").is_file()


@pytest.mark.parametrize("content", ["a file inside", "the path is a file"])
def test_a_run_never_overwrites(tmp_path, content):
    path = tmp_path / "run"
    if content == "a file inside":
        path.mkdir()
        (path / "precious").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(RunExistsError, match=re.escape(str(path))):
        create_run(path, {})
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(left) == 1 and left[0].read_text() == "mine"


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"mean": np.float32(0.5), "rows": np.arange(3), "where": tmp_path})
    before = path.read_bytes()
    assert json.loads(before) == {"mean": 0.5, "rows": [0, 1, 2], "where": str(tmp_path)}
    with pytest.raises(TypeError, match="not JSON"):
        write_json(path, {"unknown": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_versions_and_revision_are_text():
    assert all(isinstance(v, str) and v for v in package_versions().values())
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", git_revision())
