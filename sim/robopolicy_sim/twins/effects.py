"""What the twin hides: chosen once, before any policy was evaluated on it, and not tuned since.

Only the scripted expert was consulted, which must still solve the task, as it would on a robot worth
evaluating. Two groups: effects that an identifier of gains, inertia, friction and delay can find, and others
that are none of its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from robopolicy_sim.robots import SimulatedRobot
from robopolicy_sim.sysid.parameters import RobotParameters, conditions
from robopolicy_sim.sysid.servos import read


@dataclass(frozen=True)
class HiddenEffects:
    """A plausible Franka arm that the nominal model does not know.

    Within the identifier's parameters:
        kp, kv: of the joints' servos [N m/rad, N m s/rad]. libfranka's example of joint impedance control
            (examples/joint_impedance_control.cpp) has stiffness 600, 600, 600, 600, 250, 150, 50 and damping
            50, 50, 50, 50, 30, 25, 15; here up to 10 % off, differently for every joint.
        armature: factors of the model's.
        frictionloss: dry friction [N m], of the size found by Gaz et al. 2019 for this arm's predecessor.
        gripper_kp, gripper_kv [N/m, N s/m], gripper_friction [N a finger]: a weaker, slower gripper.
        delay: commands are used this late [s].
    Outside of them:
        delay_jitter: standard deviation of a change to the delay, anew each policy step [s].
        backlash: play of the joints' gears [rad].
        gravity_compensated: share of the links' weight that the controller carries.
        payload: share of the hand's mass that the controller does not know of: a bracket, cables.
        joint_offset: error of the joints' zeros [rad]: encoders, and all that is computed from them, are off.
        camera_offset: error of objects' measured positions in the base frame [m].
        table_height [m], table_roll, table_pitch [rad].
        friction: factor, of every surface; finger_friction: another, of the finger pads alone.
        object_mass: factor.
    """

    kp: tuple[float, ...] = (648.0, 558.0, 630.0, 540.0, 275.0, 142.5, 52.0)
    kv: tuple[float, ...] = (47.5, 53.0, 46.0, 55.0, 30.0, 26.8, 13.5)
    armature: tuple[float, ...] = (1.10, 0.92, 1.06, 0.95, 1.08, 0.90, 1.05)
    frictionloss: tuple[float, ...] = (0.60, 0.70, 0.50, 0.50, 0.35, 0.30, 0.30)
    gripper_kp: float = 750.0
    gripper_kv: float = 40.0
    gripper_friction: float = 2.0
    delay: float = 0.03

    delay_jitter: float = 0.01
    backlash: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.003, 0.003, 0.003)
    gravity_compensated: float = 0.97
    payload: float = 0.23
    joint_offset: tuple[float, ...] = (0.002, -0.003, 0.002, 0.003, -0.004, 0.003, 0.004)
    camera_offset: tuple[float, float, float] = (0.002, -0.002, 0.0)
    table_height: float = -0.003
    table_roll: float = 0.004
    table_pitch: float = -0.005
    friction: float = 0.7
    finger_friction: float = 0.85
    object_mass: float = 1.3

    def conditions(self, arm: SimulatedRobot) -> dict[str, float]:
        """All but the errors of sensors, as constants of an environment's ``randomisation``."""
        hand = f"{arm.robot.name}_hand"
        outside = {
            "jitter_command": self.delay_jitter,
            "gravity_compensation": self.gravity_compensated,
            f"mass:{hand}": 1.0 + self.payload,
            f"gravity_compensation:{hand}": 1.0 / (1.0 + self.payload),
            "table_height": self.table_height,
            "table_roll": self.table_roll,
            "table_pitch": self.table_pitch,
            "friction": self.friction,
            f"friction:{arm.robot.name}_pad_*": self.finger_friction,
            "mass": self.object_mass,
        }
        names = arm.robot.joint_names
        played = {f"backlash:{n}": play for n, play in zip(names, self.backlash, strict=True) if play}
        nominal = read(arm.spec().compile(), arm)
        return {**conditions(self.identifiable(arm, nominal), nominal, arm), **outside, **played}

    def identifiable(self, arm: SimulatedRobot, nominal: RobotParameters) -> RobotParameters:
        """The first group: what a perfect identification would find."""
        gripper = arm.robot.gripper.name
        rows = zip(arm.robot.joint_names, self.kp, self.kv, self.armature, self.frictionloss, strict=True)
        joints = {
            name: {
                "kp": kp,
                "kv": kv,
                "armature": factor * nominal.joints[name]["armature"],
                "frictionloss": friction,
            }
            for name, kp, kv, factor, friction in rows
        }
        fingers = {"kp": self.gripper_kp, "kv": self.gripper_kv, "frictionloss": self.gripper_friction}
        return RobotParameters(arm.robot.name, {**joints, gripper: fingers}, self.delay)
