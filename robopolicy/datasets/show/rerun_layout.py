"""Where things are in the Rerun viewer: cameras on top, below them commands over what was measured."""

from __future__ import annotations

from typing import Any

import rerun as rr
import rerun.blueprint as rrb

from robopolicy.core.specs import Specs
from robopolicy.datasets.show import dimensions

EXECUTED = "executed_action"  # reserved name: what was sent when noise was added to the recorded action
ORANGE, GREY, BLUE = 0xE8762CFF, 0x9A9A9AFF, 0x2F81F7FF  # red, green, blue, alpha


def entity(*parts: str) -> str:
    """The entity path of these names, whatever characters they hold."""
    return str(rr.new_entity_path(list(parts)))


def style(path: tuple[str, ...], name: str) -> rr.SeriesLines:
    """How a curve looks: commands stand out; the rest takes the viewer's colours."""
    colours = {("action",): ORANGE, ("extra", EXECUTED): GREY}
    if path in colours:
        return rr.SeriesLines(names=name, colors=colours[path], widths=1.5)
    return rr.SeriesLines(names=name)


def blueprint(specs: Specs, extras: list[str]) -> rrb.Blueprint:
    """One layout for every episode of a store.

    Args:
        extras: names of the extra signals.
    """
    pictures: list[Any] = [
        rrb.Spatial2DView(origin=entity("observation", key), name=key)
        for key, spec in specs.observation.items()
        if spec.kind != "state"
    ]
    pictures.append(rrb.TextDocumentView(origin="episode", name="episode"))
    states = [
        rrb.TimeSeriesView(origin=entity("observation", key), name=key)
        for key, spec in specs.observation.items()
        if spec.kind == "state"
    ]
    others = [rrb.TimeSeriesView(origin=entity("extra", key), name=key) for key in extras]
    plots = rrb.Tabs(_commands(specs, EXECUTED in extras), *states, *others)
    layout = rrb.Vertical(rrb.Horizontal(*pictures), plots, row_shares=[2, 3])
    panels = (rrb.TimePanel(timeline="time", state="collapsed"), rrb.SelectionPanel(state="collapsed"))
    return rrb.Blueprint(layout, *panels, auto_views=False)


def _commands(specs: Specs, executed: bool) -> rrb.Grid:
    """One plot per action dimension, with the measurement of the same name where there is one."""
    measured = dimensions.measured_by(specs)
    plots = []
    for name, unit in zip(specs.action.names, specs.action.units):
        curves: dict[Any, Any] = {entity("action", name): rr.SeriesLines(names="action", colors=ORANGE)}
        if name in measured:
            path = entity("observation", measured[name], name)
            curves[path] = rr.SeriesLines(names="measured", colors=BLUE)
        if executed:
            curves[entity("extra", EXECUTED, name)] = rr.SeriesLines(names="executed", colors=GREY)
        title = f"{name} [{unit}]"
        plots.append(rrb.TimeSeriesView(origin="/", contents=list(curves), name=title, overrides=curves))
    return rrb.Grid(*plots, name="action and measurement")
