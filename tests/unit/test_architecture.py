"""The layers of docs, held by import-linter: imports go down only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_hold():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    if not tool.get("importlinter", {}).get("contracts"):
        pytest.skip("pyproject.toml configures no import-linter contracts")
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
