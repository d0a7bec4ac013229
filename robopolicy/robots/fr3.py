"""Franka Research 3 with the Franka Hand.

Sources:
    position, velocity and effort limits: Franka Robotics' franka_description, robots/fr3/joint_limits.yaml.
    acceleration 10 rad/s^2 and jerk 5000 rad/s^3, all joints: Franka Control Interface documentation,
        "Robot and interface specifications", limits for Franka Research 3. The velocity limits there
        shrink near the position limits; the constants here are the upper envelope.
    joint origins: franka_description, robots/fer/kinematics.yaml (the FR3 shares the FER's geometry).
    hand: Franka Hand datasheet: stroke 80 mm, 50 mm/s a finger, 70 N continuous force; tool centre
        point 103.4 mm from the flange, turned by -45 degrees.
    capsules: fitted to the collision geometry of sim/robopolicy_sim/robots/fr3.xml, itself modelled by eye.
    gripper acceleration and jerk, home and workspace: chosen here, not the maker's.
"""

from __future__ import annotations

from math import pi

from robopolicy.core.robot import Capsule, Gripper, Joint, Robot

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

#: By `python -m robopolicy_sim.capsules fr3`, which states the method.
_CAPSULES = (
    Capsule("link0", "", (-0.0827, 0.0, 0.062), (0.0, 0.0, 0.062), 0.1056),
    Capsule("link1", "fr3_joint1", (0.0, 0.0, -0.02), (0.0, 0.0, -0.14), 0.0622),
    Capsule("link1", "fr3_joint1", (0.0, 0.055, 0.0), (0.0, -0.055, 0.0), 0.0602),
    Capsule("link2", "fr3_joint2", (0.0, -0.18, 0.0), (0.0, -0.02, 0.0), 0.0582),
    Capsule("link3", "fr3_joint3", (0.0, 0.0, -0.03), (0.0, 0.0, -0.11), 0.0582),
    Capsule("link3", "fr3_joint3", (0.0825, 0.0, 0.0), (0.02, 0.0, -0.02), 0.0522),
    Capsule("link3", "fr3_joint3", (0.0825, 0.05, 0.0), (0.0825, -0.05, 0.0), 0.0532),
    Capsule("link4", "fr3_joint4", (-0.0825, 0.07, 0.0), (0.0, 0.0, 0.0), 0.0522),
    Capsule("link4", "fr3_joint4", (-0.0825, 0.14, 0.0), (-0.0825, 0.07, 0.0), 0.0542),
    Capsule("link5", "fr3_joint5", (0.0, 0.01, -0.17), (0.0, 0.0, -0.23), 0.0542),
    Capsule("link5", "fr3_joint5", (0.0, 0.055, -0.05), (0.0, 0.045, -0.18), 0.0402),
    Capsule("link5", "fr3_joint5", (0.0, 0.065, 0.0), (0.0, -0.025, 0.0), 0.0462),
    Capsule("link6", "fr3_joint6", (0.085, 0.005, 0.0), (0.01, 0.0, 0.005), 0.0442),
    Capsule("link6", "fr3_joint6", (0.088, 0.03, 0.0), (0.088, -0.015, 0.0), 0.0442),
    Capsule("link7", "fr3_joint7", (0.0, 0.0, 0.086), (0.0, 0.0, 0.086), 0.0459),
    Capsule("hand", "fr3_joint7", (-0.0651, -0.0651, 0.137), (0.0651, 0.0651, 0.137), 0.0367),
    Capsule("fingers", "fr3_joint7", (0.0395, 0.0395, 0.1904), (-0.0395, -0.0395, 0.1904), 0.0313, tool=True),
)
#: Joined to each other.
_TOUCHING = (
    ("link0", "link1"),
    ("link1", "link2"),
    ("link2", "link3"),
    ("link3", "link4"),
    ("link4", "link5"),
    ("link5", "link6"),
    ("link6", "link7"),
    ("link7", "hand"),
    ("hand", "fingers"),
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
    capsules=_CAPSULES,
    touching=_TOUCHING,
)
