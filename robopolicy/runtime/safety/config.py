"""What the safety filter checks, and how strictly."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robopolicy.core.errors import ConfigError
from robopolicy.core.robot import Robot

Triple = tuple[float, float, float]
_ANYWHERE = (math.inf, math.inf, math.inf)
_TRACKING_FLOOR = 0.05  # [rad] steady error of a servo that does not know its load
_TRACKING_LAG_S = 0.05  # [s] what a servo may lag behind a ramp


@dataclass(frozen=True)
class SafetyConfig:
    """Without arguments only the limits of each joint are kept; ``for_robot`` gives the full set of checks.

    Args:
        position_margin: kept from the position limits [rad, m], one per dimension; empty means none.
        tracking_error: measured distance from the last command that trips the filter [rad, m], one per
            dimension; empty means none. A gripper that holds something never arrives: leave it at infinity.
        observation_age_s: older observations brake the arm [s].
        robot: whose tool and capsules are watched; None leaves out all that follows.
        tool_speed: of the tool centre point [m/s].
        link_clearance: between parts of the arm, and from parts other than fingers to the walls [m].
        tool_clearance: from the fingers' capsules to the walls [m].
        enclosure_lower, enclosure_upper: walls for every part but the base, in the base frame [m]; a table is
            the lower one of z. The tool centre point also keeps the robot file's workspace.
    Raises:
        ConfigError: a number is negative or NaN, or a wall is none.
    """

    position_margin: tuple[float, ...] = ()
    tracking_error: tuple[float, ...] = ()
    observation_age_s: float = math.inf
    robot: Robot | None = None
    tool_speed: float = 1.0
    link_clearance: float = 0.01
    tool_clearance: float = 0.0
    enclosure_lower: Triple = (-math.inf, -math.inf, -math.inf)
    enclosure_upper: Triple = _ANYWHERE

    def __post_init__(self) -> None:
        numbers = (*self.position_margin, self.link_clearance, self.tool_clearance)
        positive = (*self.tracking_error, self.observation_age_s, self.tool_speed)
        if not all(n >= 0 for n in numbers) or not all(n > 0 for n in positive):
            raise ConfigError(
                f"margins and clearances must be >= 0, thresholds and tool_speed positive, got {self}"
            )
        if not all(a < b for a, b in zip(self.enclosure_lower, self.enclosure_upper)):
            raise ConfigError(
                f"enclosure_lower {self.enclosure_lower} is not below upper {self.enclosure_upper} [m]"
            )

    @classmethod
    def for_robot(cls, robot: Robot, joint_margin: float = 0.01, table_height: float = 0.0) -> SafetyConfig:
        """All checks. Other choices by ``dataclasses.replace``.

        Args:
            joint_margin: at every joint [rad]; none at the gripper, which must be able to close.
            table_height: in the base frame [m].
        """
        lag = (_TRACKING_FLOOR + _TRACKING_LAG_S * joint.velocity for joint in robot.joints)
        return cls(
            position_margin=(*(joint_margin for _ in robot.joints), 0.0),
            tracking_error=(*lag, math.inf),
            observation_age_s=0.5,
            robot=robot,
            enclosure_lower=(-math.inf, -math.inf, table_height),
        )
