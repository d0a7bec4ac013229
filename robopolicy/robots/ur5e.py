"""Universal Robots UR5e with a Robotiq 2F-85 gripper.

Sources:
    joint origins: Universal Robots' DH parameters, as in ur_description, config/ur5e/default_kinematics.yaml
        (d1 0.1625, a2 -0.425, a3 -0.3922, d4 0.1333, d5 0.0997, d6 0.0996 m). Each arm is calibrated at the
        factory and differs from these by up to some millimetres.
    position, velocity and effort limits: ur_description, config/ur5e/joint_limits.yaml, which quotes UR's
        user manual (velocity) and "Max. joint torques". The elbow is held to half a turn, as there.
    acceleration 5 rad/s^2: UR publishes none, since what an arm reaches depends on its posture; this is the
        default of UR's ROS 2 driver, ur_moveit_config, config/joint_limits.yaml.
    gripper: Robotiq's 2F-85 manual: stroke 85 mm, closing speed up to 150 mm/s, grip force 20 to 235 N (the
        limit here), 162.8 mm from the flange to the closed fingertips.
    capsules: fitted to the collision geometry of sim/robopolicy_sim/robots/ur5e.xml, itself modelled by eye.
    jerk, gripper acceleration, home, workspace, the tool centre point (10.8 mm above the fingertips) and the
        gripper's quarter turn on the flange: chosen here, not the makers'.

The base frame is ``base_link``, which follows REP-103: x is forward, away from the cable. The teach pendant
and RTDE speak of ``base``, the same frame turned by half a turn about z.
"""

from __future__ import annotations

from math import pi

from robopolicy.core.robot import Capsule, Gripper, Joint, Robot

_VELOCITY = pi  # [rad/s]
_ACCELERATION = 5.0  # [rad/s^2]
_JERK = 500.0  # [rad/s^3]

# name, xyz [m], rpy [rad], limit on both sides [rad], effort [N m]
_TABLE = (
    ("shoulder_pan_joint", (0.0, 0.0, 0.1625), (0.0, 0.0, pi), 2 * pi, 150.0),
    ("shoulder_lift_joint", (0.0, 0.0, 0.0), (pi / 2, 0.0, 0.0), 2 * pi, 150.0),
    ("elbow_joint", (-0.425, 0.0, 0.0), (0.0, 0.0, 0.0), pi, 150.0),
    ("wrist_1_joint", (-0.3922, 0.0, 0.1333), (0.0, 0.0, 0.0), 2 * pi, 28.0),
    ("wrist_2_joint", (0.0, -0.0997, 0.0), (pi / 2, 0.0, 0.0), 2 * pi, 28.0),
    ("wrist_3_joint", (0.0, 0.0996, 0.0), (-pi / 2, 0.0, 0.0), 2 * pi, 28.0),
)

#: By `python -m robopolicy_sim.capsules ur5e`, which states the method.
_CAPSULES = (
    Capsule("base_link", "", (0.0, 0.0, 0.0329), (0.0, 0.0, 0.0383), 0.0834),
    Capsule("shoulder_link", "shoulder_pan_joint", (0.0, -0.0188, -0.002), (0.0, 0.0, -0.002), 0.0852),
    Capsule("upper_arm_link", "shoulder_lift_joint", (0.0, 0.0, 0.0994), (0.0, 0.0, 0.1726), 0.0624),
    Capsule("upper_arm_link", "shoulder_lift_joint", (-0.365, 0.0, 0.138), (-0.06, 0.0, 0.138), 0.0502),
    Capsule("upper_arm_link", "shoulder_lift_joint", (-0.425, 0.0, 0.14), (-0.425, 0.0, 0.118), 0.0562),
    Capsule("forearm_link", "elbow_joint", (0.0, 0.0, 0.0), (0.0, 0.0, 0.04), 0.0542),
    Capsule("forearm_link", "elbow_joint", (-0.34, 0.0, 0.007), (-0.05, 0.0, 0.007), 0.0392),
    Capsule("forearm_link", "elbow_joint", (-0.3922, 0.0, -0.0168), (-0.3922, 0.0, 0.0448), 0.045),
    Capsule("wrist_1_link", "wrist_1_joint", (0.0, -0.0046, -0.0272), (0.0, -0.0046, 0.0), 0.0634),
    Capsule("wrist_2_link", "wrist_2_joint", (0.0, 0.0, -0.0016), (0.0, 0.0092, -0.0016), 0.0611),
    Capsule("wrist_3_link", "wrist_3_joint", (0.0, 0.0, -0.02), (0.0, 0.0, -0.02), 0.0433),
    Capsule("hand", "wrist_3_joint", (0.0, 0.0, 0.0211), (0.0, 0.0, 0.0509), 0.0412),
    Capsule("hand", "wrist_3_joint", (-0.0627, 0.0, 0.078), (0.0627, 0.0, 0.078), 0.0283),
    Capsule("fingers", "wrist_3_joint", (-0.0613, 0.0, 0.1279), (0.0613, 0.0, 0.1279), 0.0381, tool=True),
)
#: Joined to each other, but for the last pair: capsules of the wrist overlap that the arm keeps apart.
_TOUCHING = (
    ("base_link", "shoulder_link"),
    ("shoulder_link", "upper_arm_link"),
    ("upper_arm_link", "forearm_link"),
    ("forearm_link", "wrist_1_link"),
    ("wrist_1_link", "wrist_2_link"),
    ("wrist_2_link", "wrist_3_link"),
    ("wrist_2_link", "hand"),
    ("wrist_3_link", "hand"),
    ("hand", "fingers"),
    ("wrist_1_link", "wrist_3_link"),
)

ROBOT = Robot(
    name="ur5e",
    joints=tuple(
        Joint(name, xyz, rpy, -limit, limit, _VELOCITY, _ACCELERATION, _JERK, effort)
        for name, xyz, rpy, limit, effort in _TABLE
    ),
    gripper=Gripper(
        name="gripper_opening", opening_max=0.085, velocity=0.15, acceleration=2.0, jerk=500.0, force=235.0
    ),
    flange_to_tcp_xyz=(0.0, 0.0, 0.152),
    flange_to_tcp_rpy=(0.0, 0.0, -pi / 2),
    # the tool points straight down at (0.45, 0, 0.3), elbow up
    home=(-0.3007, -1.7144, 1.7949, -1.6513, -pi / 2, -0.3007),
    workspace_lower=(0.2, -0.55, 0.0),
    workspace_upper=(0.75, 0.55, 0.6),
    source="Universal Robots: ur_description; Robotiq: 2F-85 manual (see the module's docstring)",
    base_frame="base_link",
    capsules=_CAPSULES,
    touching=_TOUCHING,
)
