"""Franka Research 3 with the Franka Hand.

Sources:
    position, velocity and effort limits: Franka Robotics' franka_description, robots/fr3/joint_limits.yaml.
    acceleration 10 rad/s^2 and jerk 5000 rad/s^3, all joints: Franka Control Interface documentation,
        "Robot and interface specifications", limits for Franka Research 3. The velocity limits there
        shrink near the position limits; the constants here are the upper envelope.
    joint origins: franka_description, robots/fer/kinematics.yaml (the FR3 shares the FER's geometry).
    hand: Franka Hand datasheet: stroke 80 mm, 50 mm/s a finger, 70 N continuous force; tool centre
        point 103.4 mm from the flange, turned by -45 degrees.
    gripper acceleration and jerk, home and workspace: chosen here, not the maker's.
"""

from __future__ import annotations

from math import pi

from robopolicy.core.robot import Gripper, Joint, Robot

_ACCELERATION = 10.0  # [rad/s^2]
_JERK = 5000.0  # [rad/s^3]

# name, xyz [m], roll [rad], lower [rad], upper [rad], velocity [rad/s], effort [N m]
_TABLE = (
    ("fr3_joint1", (0.0, 0.0, 0.333), 0.0, -2.7437, 2.7437, 2.62, 87.0),
    ("fr3_joint2", (0.0, 0.0, 0.0), -pi / 2, -1.7837, 1.7837, 2.62, 87.0),
    ("fr3_joint3", (0.0, -0.316, 0.0), pi / 2, -2.9007, 2.9007, 2.62, 87.0),
    ("fr3_joint4", (0.0825, 0.0, 0.0), pi / 2, -3.0421, -0.1518, 2.62, 87.0),
    ("fr3_joint5", (-0.0825, 0.384, 0.0), -pi / 2, -2.8065, 2.8065, 5.26, 12.0),
    ("fr3_joint6", (0.0, 0.0, 0.0), pi / 2, 0.5445, 4.5169, 4.18, 12.0),
    ("fr3_joint7", (0.088, 0.0, 0.0), pi / 2, -3.0159, 3.0159, 5.26, 12.0),
)

ROBOT = Robot(
    name="fr3",
    joints=tuple(
        Joint(name, xyz, (roll, 0.0, 0.0), lower, upper, velocity, _ACCELERATION, _JERK, effort)
        for name, xyz, roll, lower, upper, velocity, effort in _TABLE
    ),
    gripper=Gripper(
        name="gripper_opening", opening_max=0.08, velocity=0.1, acceleration=2.0, jerk=500.0, force=70.0
    ),
    flange_to_tcp_xyz=(0.0, 0.0, 0.107 + 0.1034),
    flange_to_tcp_rpy=(0.0, 0.0, -pi / 4),
    home=(0.0, -pi / 4, 0.0, -3 * pi / 4, 0.0, pi / 2, pi / 4),
    workspace_lower=(0.15, -0.55, 0.0),
    workspace_upper=(0.85, 0.55, 1.0),
    source="Franka Robotics: franka_description and the FCI documentation (see the module's docstring)",
    base_frame="fr3_link0",
    redundant_joint="fr3_joint3",
)
