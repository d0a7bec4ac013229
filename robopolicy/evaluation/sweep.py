"""One condition of the environment at several values, everything else alike: the same seeds and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robopolicy.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from robopolicy.evaluation.comparison import Report

DELAYS = ("observation", "inference", "actuation")
Value = float | int | str


@dataclass(frozen=True)
class Setting:
    """One value of what is swept, and the environment's options with it."""

    value: Value
    label: str
    options: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """A name that any file system takes."""
        return "".join(c if c.isalnum() or c in "-+." else "_" for c in self.label)


@dataclass(frozen=True)
class Sweep:
    """Settings of one parameter; the first is what the others are compared with."""

    parameter: str
    settings: tuple[Setting, ...]

    def __post_init__(self) -> None:
        labels = [setting.folder for setting in self.settings]
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ConfigError(f"a sweep needs at least two different values, got {labels}")


def sweep_delay(delays: Sequence[float], of: str, options: Mapping[str, Any]) -> Sweep:
    """Delays [s] of observations, inference or actuation.

    Args:
        options: of the environment; its ``latency`` is kept but for the one that is swept.
    Raises:
        ConfigError, UnknownNameError: fewer than two values, a negative one, or another name.
    """
    if of not in DELAYS:
        raise UnknownNameError("delay", of, DELAYS)
    if any(delay < 0 for delay in delays):
        raise ConfigError(f"delays must be >= 0 s, got {list(delays)}")
    trees = [with_entries(options, "latency", {of: delay}) for delay in delays]
    settings = [Setting(delay, f"{delay * 1000:g} ms", tree) for delay, tree in zip(delays, trees)]
    return Sweep(f"delay of {of} [ms]", tuple(settings))


def sweep_parameter(text: str, options: Mapping[str, Any]) -> Sweep:
    """A randomisation parameter at fixed values, from "NAME=VALUE,VALUE,...".

    Args:
        options: of the environment; whatever else its ``randomisation`` draws stays.
    Raises:
        ConfigError: not of that form, or fewer than two values.
    """
    name, equals, listed = text.partition("=")
    try:
        values = [yaml.safe_load(value) for value in listed.split(",") if value.strip()]
    except yaml.YAMLError:
        values = []
    if not equals or not name or not values or not all(isinstance(v, (int, float, str)) for v in values):
        raise ConfigError(f"--vary takes NAME=VALUE,VALUE,..., got {text!r}")
    settings = [Setting(v, f"{v}", with_entries(options, "randomisation", {name: v})) for v in values]
    return Sweep(name, tuple(settings))


def with_entries(options: Mapping[str, Any], option: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Options with some entries of one of them replaced; a name there stands for a preset."""
    given = options.get(option) or {}
    if isinstance(given, (str, Path)):
        given = {"preset": str(given)}
    if not isinstance(given, Mapping):
        raise ConfigError(f"the option {option} is a mapping or a preset's name, got {given!r}")
    return {**options, option: {**given, **entries}}


def draw_curve(path: Path, sweep: Sweep, report: Report) -> None:
    """A PNG of the success rates with their intervals; values that are names stand side by side.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("curves need matplotlib: pip install 'robopolicy[viz]'") from error
    rows = report.policies
    numbers = [s.value for s in sweep.settings if not isinstance(s.value, str)]
    numeric = len(numbers) == len(rows)
    scale = 1000.0 if sweep.parameter.endswith("[ms]") else 1.0
    x = [scale * float(v) for v in numbers] if numeric else [float(i) for i in range(len(rows))]
    rates = [row.rate for row in rows]
    below = [row.rate - row.interval[0] for row in rows]
    above = [row.interval[1] - row.rate for row in rows]
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style: dict[str, Any] = {"marker": "o", "capsize": 4, "color": "#2b6cb0"}
    axes.errorbar(x, rates, yerr=[below, above], linestyle="-" if numeric else "none", **style)
    if not numeric:
        axes.set_xticks(x, [setting.label for setting in sweep.settings])
    axes.set(xlabel=sweep.parameter, ylabel="success rate", ylim=(-0.03, 1.03))
    axes.set_title(f"{rows[0].count} episodes each, same seeds; {report.confidence:.0%} Wilson", fontsize=10)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
