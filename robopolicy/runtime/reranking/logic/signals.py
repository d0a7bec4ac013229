"""What a formula may be about: the commands of a chunk, the tool they move, and what is observed now."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.dimensions import kinds
from robopolicy.runtime.reranking.situation import Situation
from robopolicy.runtime.reranking.tool_path import ToolPath

_AXES = ("tool.x", "tool.y", "tool.z")
_GRIPPER = "gripper"


class Signals:
    """Named signals of candidates, one value at each policy step from now.

    Action names, in the action spec's units; "gripper", the one commanded opening [m]; "tool.x", "tool.y",
    "tool.z", the tool centre point's commanded position [m], for an arm commanded in absolute joint positions
    or poses; and, constant over the chunk, "observation.KEY.NAME", or "observation.KEY.INDEX" where a state
    has no names: what it is now, in its own unit. Increments and relative commands are refused: they are no
    positions.

    Step i is i policy periods from now. Where the spec says that a command is reached at the "end" of its
    step, the first counts for one period from now; now itself, which no candidate can change any more, takes
    the same value, so that it neither spoils nor saves all candidates alike.

    Args:
        robot: for the tool; by default the one that the specs name.
    """

    def __init__(self, specs: PolicySpecs, robot: Robot | None = None) -> None:
        horizons, action = specs.horizons, specs.specs.action
        self._start = horizons.action_start
        self._late = 1 if action.reached == "end" else 0
        #: The last step there is.
        self.last = horizons.prediction - self._start - 1 + self._late
        #: Names that a formula may use, those of candidates first, each "", or why it cannot be told.
        self.names: dict[str, str] = {}
        self._columns = {name: i for i, name in enumerate(action.names)}
        for name, kind in zip(action.names, kinds(action)):
            self.names[name] = "" if kind == "absolute" else f"is a {kind} command, no position"
        grips = [name for part in action.parts if part.space == "gripper_opening" for name in part.names]
        if len(grips) == 1 and _GRIPPER not in self._columns:
            self._columns[_GRIPPER], self.names[_GRIPPER] = self._columns[grips[0]], self.names[grips[0]]
        self._tool, unknown = _tool_path(specs, robot)
        self.names.update({name: unknown for name in _AXES if name not in self._columns})
        self._states = {
            f"observation.{key}.{name}": (key, column)
            for key, spec in specs.specs.observation.items()
            if spec.kind == "state" and len(spec.shape) == 1
            for column, name in enumerate(spec.names or range(spec.shape[0]))
        }
        self.names.update(dict.fromkeys(self._states, ""))

    def read(
        self, names: Iterable[str], candidates: Float32, situation: Situation, *, last: int
    ) -> dict[str, Float]:
        """Those of the names, each (last + 1, batch, n), or (last + 1, batch, 1) where it is constant."""
        steps = np.maximum(np.arange(last + 1) - self._late, 0)  # of the first executed action
        coming = np.moveaxis(candidates[:, :, self._start + steps], 2, 0)
        tool: Float | None = None
        found: dict[str, Float] = {}
        for name in names:
            if name in self._columns:
                found[name] = coming[..., self._columns[name]].astype(np.float64)
            elif name in self._states:
                key, column = self._states[name]
                now = situation.observation[key][:, -1:, column].astype(np.float64)
                found[name] = np.broadcast_to(now, (last + 1, *now.shape))
            else:
                assert self._tool is not None
                tool = self._tool(coming) if tool is None else tool
                found[name] = tool[_AXES.index(name)]
        return found


def _tool_path(specs: PolicySpecs, robot: Robot | None) -> tuple[ToolPath | None, str]:
    """With why there is none."""
    try:
        return ToolPath(specs.specs, robot), ""
    except ConfigError as error:
        return None, f"is not known: {error}"
