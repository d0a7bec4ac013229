"""Environments by name: our tasks through entry points, adapted libraries, anything else by Gymnasium id."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, MissingDependencyError, SpecError, UnknownNameError
from robopolicy.core.goals import goal_keys
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation import adapters
from robopolicy.evaluation.adapters._fit import check_fit

ENVIRONMENTS = "robopolicy.environments"
EXPERTS = "robopolicy.experts"


def known(group: str) -> list[str]:
    """Names registered by installed packages under an entry-point group."""
    return sorted({point.name for point in entry_points(group=group)})


def parse_options(texts: Sequence[str], flag: str = "--option") -> dict[str, Any]:
    """NAME=VALUE texts as a mapping, the value in YAML; ConfigError shows the one that is none."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{flag} takes NAME=VALUE, got {text!r}")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag} {name}: {value!r} is no YAML: {error}") from error
    return options


def load_entry(group: str, kind: str, name: str) -> Any:
    """The class registered as NAME, or a library's expert by id; UnknownNameError lists the known ones."""
    if group == EXPERTS and adapters.find(name) is not None:
        return adapters.load_expert(name)
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
        name: a task ("lift"), an id of a library in ``adapters`` ("metaworld/push-v3"), or another Gymnasium
            id as "NAMESPACE/Name-vN", whose module is imported first.
        options: passed to its constructor (``render_mode``, ``observation_mode``, ...).
    Raises:
        UnknownNameError: none of them; MissingDependencyError: its package is not installed.
    """
    if name in known(ENVIRONMENTS):
        return load_entry(ENVIRONMENTS, "environment", name)(**options)
    if (adapter := adapters.find(name)) is not None:
        return adapter.make(name, **options)
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

    Our tasks get the policy's robot, rate, action space and, like the adapted libraries, an observation mode.
    Other environments are made as asked.

    Raises:
        SpecError: policy and library disagree; both sides are printed. Other errors: see ``make_env``.
    """
    cameras = any(spec.kind == "image" for spec in specs.specs.observation.values())
    if name in known(ENVIRONMENTS):
        space = next(part.space for part, _ in specs.specs.action.slices())
        options = {
            "observation_mode": "all" if cameras else "state",
            "action_space": space,
            "policy_rate": specs.specs.policy_rate,
            **({"robot": specs.specs.robot} if specs.specs.robot else {}),
            **options,
        }
    elif (adapter := adapters.find(name)) is not None:
        env = adapter.make(name, **{**adapter.options_for(specs), **options})
        try:
            check_fit(name, env.specs, specs.specs)
        except SpecError:
            env.close()
            raise
        return env
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
        hint = "; goals can come from --goal STORE#EPISODE" if goal_keys(missing) else ""
        raise SpecError(f"the environment gives {sorted(raw)}, the policy wants {sorted(wanted)}{hint}")
    named = {}
    for name, spec in wanted.items():
        value = np.asarray(raw[name])
        spec.check(name, value)  # before any cast: a float image must not turn black unnoticed
        named[name] = value.astype(spec.dtype, copy=False)
    return named


@dataclass(frozen=True)
class EnvRecipe:
    """What to make, so that another process can.

    Args:
        name: as ``make_env`` takes it.
        options: for the environment's constructor.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def bind(self, specs: PolicySpecs) -> Callable[[], Any]:
        """A picklable callable that makes the environment this policy observes."""
        return partial(make_env_for, self.name, specs, **self.options)
