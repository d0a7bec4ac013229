"""Choosing an OpenGL backend, and doing without one."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")

from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy_sim import rendering


def test_egl_then_osmesa_without_a_display(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert rendering.backend_order() == ("egl", "osmesa")
    monkeypatch.setenv("DISPLAY", ":0")
    assert rendering.backend_order() == ("egl", "osmesa", "glfw")


def test_mujoco_gl_decides_alone_and_a_wrong_value_is_named(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.backend_order() == ("osmesa",)
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(ConfigError, match=r"'vulkan'.*'egl', 'osmesa', 'glfw'"):
        rendering.backend_order()


def test_no_backend_names_the_packages_to_install(monkeypatch):
    def refuse(name):
        raise ImportError(f"no {name} here")

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(rendering, "_reset_pyopengl", lambda backend: None)
    with pytest.raises(
        MissingDependencyError, match=r"libegl1 libgl1-mesa-dri[\s\S]*libosmesa6[\s\S]*mujoco.egl"
    ):
        rendering.create_context(8, 8)


def test_state_only_runs_never_touch_opengl():
    code = (
        "import sys; from robopolicy_sim.tasks.lift import LiftEnv; e = LiftEnv(); o, _ = e.reset(seed=0);"
        "e.step(e.simulation.last_command); e.close();"
        "names = ('OpenGL', 'mujoco.egl', 'mujoco.osmesa');"
        "bad = [m for m in sys.modules if m.startswith(names)];"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
