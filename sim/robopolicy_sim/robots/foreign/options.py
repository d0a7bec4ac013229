"""What a user may say about an arm beside its model: NAME.yaml next to NAME.xml or NAME.urdf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from robopolicy.core.errors import SpecError
from robopolicy.core.serial import from_tree
from robopolicy_sim.errors import ModelError

GRIPPERS = ("found", "ours")
SERVOS = ("found", "ours")
GRAVITY = ("compensated", "felt")
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Place:
    """A pose in the model: ``at`` names a site, body or link; xyz [m] and rpy [rad] count from it."""

    at: str
    xyz: Triple = (0.0, 0.0, 0.0)
    rpy: Triple = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class JointLimits:
    """Limits of one joint where the model states none or others: [rad], [rad/s] and so on, [N m]."""

    lower: float | None = None
    upper: float | None = None
    velocity: float | None = None
    acceleration: float | None = None
    jerk: float | None = None
    effort: float | None = None


@dataclass(frozen=True)
class Workspace:
    """Box for the tool centre point in the base frame [m]."""

    lower: Triple
    upper: Triple


@dataclass(frozen=True)
class RobotOptions:
    """Every key is optional.

    Args:
        name: of the robot; the model's by default.
        home: rest posture, one angle a joint [rad].
        tool: the point between the fingertips, z out of the gripper; found by its name by default.
        flange: where our gripper is put on, z out of the arm; found by its name by default.
        gripper: "found" uses the model's, "ours" cuts it off and puts a parallel gripper on the flange.
        servo: "found" keeps the model's position actuators, "ours" replaces them.
        gravity: "compensated" by the arm's controller, as that of nearly every arm does, or "felt".
        mount_xyz, mount_rpy: of the model in the base frame, when it faces elsewhere than along x.
        limits: joint -> its limits; the key "all" is for every joint.
        names: joint in the model -> its name in the driver's joint_states.
        redundant_joint: its name in the driver; of seven joints the third by default.
    """

    name: str = ""
    home: tuple[float, ...] = ()
    tool: Place | None = None
    flange: Place | None = None
    gripper: str = "found"
    servo: str = "found"
    gravity: str = "compensated"
    mount_xyz: Triple = (0.0, 0.0, 0.0)
    mount_rpy: Triple = (0.0, 0.0, 0.0)
    limits: Mapping[str, JointLimits] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    workspace: Workspace | None = None
    redundant_joint: str = ""

    def __post_init__(self) -> None:
        known_values = {"gripper": GRIPPERS, "servo": SERVOS, "gravity": GRAVITY}
        for key, known in known_values.items():
            value = getattr(self, key)
            if value not in known:
                raise SpecError(f"{key}: {value!r} is not one of {known}")


def read_options(model: Path) -> RobotOptions:
    """The YAML beside a model, or every default where there is none.

    Raises:
        ModelError: no YAML, or a key or value that is none of the above; names the file and the key.
    """
    path = model.with_suffix(".yaml")
    if not path.is_file():
        return RobotOptions()
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return from_tree(RobotOptions, {} if tree is None else tree, path.name)
    except (yaml.YAMLError, UnicodeDecodeError, SpecError) as error:
        raise ModelError(f"{path}: {error}") from error
