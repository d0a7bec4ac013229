"""One vector of numbers out of a message, by the mapping's dotted path."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError, NonFiniteValueError
from robopolicy.core.geometry import matrix_from_quat_wxyz, rotation_6d_from_matrix
from robopolicy.datasets.importers.rosbag2.mapping import FieldMap

#: The field meant when the mapping names none.
DEFAULT_FIELDS = {
    "sensor_msgs/msg/JointState": "position",
    "trajectory_msgs/msg/JointTrajectory": "points.0.positions",
    "control_msgs/msg/GripperCommand": "position",
    "geometry_msgs/msg/PoseStamped": "pose",
    "geometry_msgs/msg/TransformStamped": "transform",
    "geometry_msgs/msg/TwistStamped": "twist",
    "geometry_msgs/msg/WrenchStamped": "wrench",
    "std_msgs/msg/Float64MultiArray": "data",
    "std_msgs/msg/Float32MultiArray": "data",
    "std_msgs/msg/Float64": "data",
    "std_msgs/msg/Float32": "data",
}
POSE_NAMES = ("x", "y", "z", "r0", "r1", "r2", "r3", "r4", "r5")
POSE_UNITS = ("m", "m", "m", "1", "1", "1", "1", "1", "1")
_NAME_FIELDS = ("name", "joint_names")
_POSES = {
    "geometry_msgs/msg/Pose": ("position", "orientation"),
    "geometry_msgs/msg/Transform": ("translation", "rotation"),
}
_TRIPLES = ("geometry_msgs/msg/Vector3", "geometry_msgs/msg/Point")
_PAIRS = {"geometry_msgs/msg/Twist": ("linear", "angular"), "geometry_msgs/msg/Wrench": ("force", "torque")}
#: ROS demands unit quaternions (REP-103); rounding to float32 stays far below this [1].
_QUATERNION_TOLERANCE = 0.01


class Numbers:
    """Turns messages of one type into vectors (n,). Poses become position [m] and a 6-D rotation.

    ``is_pose`` says so of the last message.
    """

    def __init__(self, field: FieldMap, msgtype: str) -> None:
        self._field = field
        self._path = field.field or DEFAULT_FIELDS.get(msgtype, "")
        self._msgtype = msgtype
        self._names: list[str] | None = None
        self._order: list[int] = []
        self.is_pose = False

    def __call__(self, message: Any, where: str) -> NDArray[Any]:
        """
        Raises:
            ImportFormatError: no such field, not numbers, a joint missing or named twice.
            NonFiniteValueError: NaN or infinity.
        """
        if not self._path:
            known = _field_names(message)
            raise ImportFormatError(f"{where}: say which `field` of {self._msgtype} to take, of {known}")
        found = _follow(message, self._path, where)
        self.is_pose = getattr(found, "__msgtype__", "") in _POSES and not self._field.columns
        values = _as_vector(found, f"{where}, {self._path}")
        if self._field.select:
            values = values[self._positions(message, len(values), where)]
        elif self._field.columns:
            if max(self._field.columns) >= len(values):
                raise ImportFormatError(
                    f"{where}: {len(values)} numbers, the mapping says {self._field.columns}"
                )
            values = values[list(self._field.columns)]
        if self._field.scale != 1.0:
            with np.errstate(over="ignore"):
                values = values * self._field.scale
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise NonFiniteValueError(f"{where}: non-finite {self._path} {values}")
        return values

    def _positions(self, message: Any, count: int, where: str) -> list[int]:
        names = next((getattr(message, n) for n in _NAME_FIELDS if hasattr(message, n)), None)
        if not isinstance(names, list):
            raise ImportFormatError(f"{where}: {self._msgtype} names no joints; use `columns`, not `select`")
        if len(names) != count:
            raise ImportFormatError(
                f"{where}: {count} numbers in {self._path} for {len(names)} joints {names}"
            )
        if names != self._names:
            if len(set(names)) != len(names):
                raise ImportFormatError(f"{where}: duplicate joint names in {names}")
            if missing := [name for name in self._field.select if name not in names]:
                raise ImportFormatError(f"{where}: no joint {missing}; it has {names}")
            self._order = [names.index(name) for name in self._field.select]
            self._names = names
        return self._order


def _follow(message: Any, path: str, where: str) -> Any:
    value = message
    for part in path.split("."):
        if part.isdecimal() and isinstance(value, (list, np.ndarray)):
            if int(part) >= len(value):
                raise ImportFormatError(f"{where}: {path!r}, but there are {len(value)} elements")
            value = value[int(part)]
        elif part in _field_names(value):
            value = getattr(value, part)
        else:
            known = _field_names(value) or "no fields"
            raise ImportFormatError(f"{where}: no field {part!r} of {path!r}; there are {known}")
    return value


def _field_names(value: Any) -> list[str]:
    return list(getattr(type(value), "__dataclass_fields__", {}))


def _as_vector(value: Any, where: str) -> NDArray[Any]:
    kind = getattr(value, "__msgtype__", "")
    if kind in _POSES:
        position, quat = (getattr(value, part) for part in _POSES[kind])
        return np.concatenate([_as_vector(position, where), _rotation_6d(quat, where)])
    if kind == "geometry_msgs/msg/Quaternion":
        return _rotation_6d(value, where)
    if kind in _TRIPLES:
        return np.array([value.x, value.y, value.z])
    if kind in _PAIRS:
        return np.concatenate([_as_vector(getattr(value, part), where) for part in _PAIRS[kind]])
    if kind or (isinstance(value, list) and any(hasattr(v, "__msgtype__") for v in value)):
        raise ImportFormatError(f"{where}: a {kind or 'list of messages'} is no number; name a field in it")
    array = np.atleast_1d(np.asarray(value))
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf" or array.ndim != 1 or not array.size:
        raise ImportFormatError(f"{where}: expected numbers, got {array.dtype} of shape {array.shape}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _rotation_6d(quat: Any, where: str) -> NDArray[np.float64]:
    """ROS writes x, y, z, w."""
    quat_wxyz = np.array([quat.w, quat.x, quat.y, quat.z], dtype=np.float64)
    if not np.isfinite(quat_wxyz).all():
        raise NonFiniteValueError(f"{where}: non-finite quaternion {quat_wxyz} (w, x, y, z)")
    norm = float(np.sqrt(np.square(np.clip(quat_wxyz, -10, 10)).sum()))
    if abs(norm - 1) > _QUATERNION_TOLERANCE:
        raise ImportFormatError(
            f"{where}: a quaternion of length {norm:.4g}, not 1: {quat_wxyz} (w, x, y, z)"
        )
    return rotation_6d_from_matrix(matrix_from_quat_wxyz(quat_wxyz))
