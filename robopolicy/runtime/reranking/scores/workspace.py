"""How far a candidate would take the tool out of a box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.critic import Critic
from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.geometry import Float
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.situation import Situation
from robopolicy.runtime.reranking.tool_path import ToolPath

OVER = ("max", "mean")


@dataclass(frozen=True)
class Config:
    """The box, and what counts.

    Args:
        lower, upper: its corners, (3,) each, in the base frame or that of the commanded poses [m]; far
            away where there is no side; by default the robot file's workspace.
        margin: by which it is drawn in on every side [m].
        over: the "max" of the depths, or their "mean", over the steps.
        executed_only: leave out the steps that are not executed before the policy is asked again.
    """

    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    margin: float = 0.0
    over: str = "max"
    executed_only: bool = True

    def __post_init__(self) -> None:
        if self.over not in OVER:
            raise UnknownNameError("over", self.over, OVER)
        for corner in (self.lower, self.upper):
            if len(corner) not in (0, 3) or not np.isfinite(corner).all():
                raise ConfigError(f"a corner has finite x, y and z [m], got {list(corner)}")
        if not 0 <= self.margin < np.inf:
            raise ConfigError(f"margin must be finite and >= 0 [m], got {self.margin}")


def build(
    config: Config, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> Workspace:
    """ConfigError for action spaces whose tool position is not known, or a box that is none."""
    return Workspace(config, specs, robot)


class Workspace:
    """A ``Score``: minus the depth outside the box [m], 0 for candidates that stay inside.

    -max_k |max(lower - p_k, p_k - upper, 0)| over the executed steps, p the commanded position of the tool
    centre point and | | the Euclidean norm: the distance to the box.

    It makes a policy prefer what the safety filter would let pass, and replaces no part of that: it looks at
    commands at policy rate and at the tool alone, and where all candidates leave, one is taken all the same.
    """

    name = "workspace"
    unit = "m"

    def __init__(self, config: Config, specs: PolicySpecs, robot: Robot | None = None) -> None:
        self._tool = ToolPath(specs.specs, robot)
        lower, upper = (
            self._corner(given, name) for given, name in ((config.lower, "lower"), (config.upper, "upper"))
        )
        self._lower, self._upper = lower + config.margin, upper - config.margin
        if not (self._lower < self._upper).all():
            raise ConfigError(
                f"lower {lower.tolist()} must be below upper {upper.tolist()} by twice the margin, "
                f"{config.margin} [m]"
            )
        horizons = specs.horizons
        stop = horizons.action_stop if config.executed_only else horizons.prediction
        self._steps = slice(horizons.action_start, stop)
        self._over = np.max if config.over == "max" else np.mean

    def _corner(self, given: tuple[float, ...], name: str) -> Float:
        tool = self._tool
        if not given and (tool.robot is None or tool.frame not in ("", tool.robot.base_frame)):
            whose = "no robot is known" if tool.robot is None else f"poses are in {tool.frame!r}"
            raise ConfigError(f"workspace needs {name}=..., x, y and z [m]: {whose}")
        corner: Float = np.array(given or getattr(tool.robot, f"workspace_{name}"), np.float64)
        return corner

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """(batch, n)."""
        point = np.moveaxis(self._tool(candidates[:, :, self._steps]), 0, -1)
        outside = np.maximum(np.maximum(self._lower - point, point - self._upper), 0.0)
        depth = np.sqrt(np.sum(outside**2, axis=-1))
        return 0.0 - np.asarray(self._over(depth, axis=-1))
