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
    jerk, gripper acceleration, home, workspace, the tool centre point (10.8 mm above the fingertips) and the
        gripper's quarter turn on the flange: chosen here, not the makers'.

The base frame is ``base_link``, which follows REP-103: x is forward, away from the cable. The teach pendant
and RTDE speak of ``base``, the same frame turned by half a turn about z.
"""

from __future__ import annotations

from math import pi

from robopolicy.core.robot import Gripper, Joint, Robot

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
)
