"""Environments by name: our tasks through entry points, anything else by Gymnasium id."""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import MissingDependencyError, SpecError, UnknownNameError
from robopolicy.core.specs import PolicySpecs

ENVIRONMENTS = "robopolicy.environments"
EXPERTS = "robopolicy.experts"


def known(group: str) -> list[str]:
    """Names registered by installed packages under an entry-point group."""
    return sorted({point.name for point in entry_points(group=group)})


def load_entry(group: str, kind: str, name: str) -> Any:
    """The class registered as NAME; UnknownNameError lists the known ones."""
    points: list[EntryPoint] = [p for p in entry_points(group=group) if p.name == name]
    if not points:
        raise UnknownNameError(kind, name, known(group))
    try:
        return points[0].load()
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{kind} {name!r} needs the package {error.name!r}: pip install 'robopolicy[sim]'"
        ) from error


def make_env(name: str, **options: Any) -> Any:
    """An environment ready to reset.

    Args:
        name: a task ("lift"), or a Gymnasium id as "NAMESPACE/Name-vN", whose module is imported first.
        options: passed to its constructor (``render_mode``, ``observation_mode``, ...).
    Raises:
        UnknownNameError: neither; MissingDependencyError: its package is not installed.
    """
    if name in known(ENVIRONMENTS):
        return load_entry(ENVIRONMENTS, "environment", name)(**options)
    if "/" in name:
        module = name.split("/")[0]
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"environment {name!r}: no package {module!r} installed") from error
    import gymnasium  # late: `doctor` lists the tasks on machines that lack it

    try:
        return gymnasium.make(name, **options)
    except gymnasium.error.Error as error:
        raise UnknownNameError(
            "environment", name, [*known(ENVIRONMENTS), "or a registered Gymnasium id"]
        ) from error


def make_env_for(name: str, specs: PolicySpecs, **options: Any) -> Any:
    """The environment, configured to give what the policy observes.

    Our tasks take an observation mode; gym-pusht names its own. Other environments are made as asked.
    """
    cameras = any(spec.kind == "image" for spec in specs.specs.observation.values())
    if name in known(ENVIRONMENTS):
        space = next(part.space for part, _ in specs.specs.action.slices())
        options = {
            "observation_mode": "all" if cameras else "state",
            "action_space": space,
            "policy_rate": specs.specs.policy_rate,
            **options,
        }
    elif name.startswith("gym_pusht/"):
        options = {"obs_type": "pixels_agent_pos" if cameras else "state", **options}
        with warnings.catch_warnings():
            # pygame imports pkg_resources, which setuptools has deprecated; not ours to mend
            warnings.simplefilter("ignore")
            return make_env(name, **options)
    return make_env(name, **options)


def named_observation(raw: Any, specs: PolicySpecs) -> dict[str, NDArray[Any]]:
    """An environment's observation under the policy's names.

    A bare array goes to the only observation there is.

    Raises:
        SpecError: a name is missing; both sides are listed.
    """
    wanted = specs.specs.observation
    if not isinstance(raw, dict):
        if len(wanted) != 1:
            raise SpecError(f"the environment gives one array, the policy wants {sorted(wanted)}")
        raw = {next(iter(wanted)): raw}
    missing = sorted(set(wanted) - set(raw))
    if missing:
        raise SpecError(f"the environment gives {sorted(raw)}, the policy wants {sorted(wanted)}")
    named = {}
    for name, spec in wanted.items():
        value = np.asarray(raw[name])
        spec.check(name, value)  # before any cast: a float image must not turn black unnoticed
        named[name] = value.astype(spec.dtype, copy=False)
    return named
