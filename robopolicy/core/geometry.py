"""Rotations and rigid transforms. Matrices map coordinates: p_a = transform_b_to_a @ p_b."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def matrix_from_quat_wxyz(quat_wxyz: NDArray[Any]) -> Float:
    """(..., 4) quaternions, scalar first, any length but zero -> (..., 3, 3) rotation matrices."""
    quat = np.asarray(quat_wxyz, dtype=np.float64)
    w, x, y, z = np.moveaxis(quat / np.linalg.norm(quat, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quat_wxyz_from_matrix(matrix: NDArray[Any]) -> Float:
    """(3, 3) rotation -> (4,) unit quaternion with w >= 0, by the eigenvector of Bar-Itzhack 2000."""
    m = np.asarray(matrix, dtype=np.float64)
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], 0, 0, 0],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], 0, 0],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    quat: Float = np.linalg.eigh(k)[1][:, -1]  # eigh reads the lower triangle only
    return quat if quat[0] >= 0 else -quat


def rotation_6d_from_matrix(matrix: NDArray[Any]) -> Float:
    """(..., 3, 3) -> (..., 6): the first two columns, one after the other (Zhou et al. 2019)."""
    m = np.asarray(matrix, dtype=np.float64)
    return np.concatenate([m[..., :, 0], m[..., :, 1]], axis=-1)


def matrix_from_rotation_6d(rotation_6d: NDArray[Any]) -> Float:
    """(..., 6) -> (..., 3, 3) by Gram-Schmidt; valid for any two non-parallel columns."""
    r = np.asarray(rotation_6d, dtype=np.float64)
    first = r[..., :3] / np.linalg.norm(r[..., :3], axis=-1, keepdims=True)
    second = r[..., 3:] - np.sum(first * r[..., 3:], axis=-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def matrix_from_rpy(rpy: NDArray[Any] | tuple[float, float, float]) -> Float:
    """(3,) fixed-axis roll, pitch, yaw [rad] (URDF's convention, REP-103) -> (3, 3)."""
    roll, pitch, yaw = (float(v) for v in rpy)
    cr, sr, cp, sp = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch)
    cy, sy = np.cos(yaw), np.sin(yaw)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def transform(rotation: NDArray[Any], position: NDArray[Any] | tuple[float, ...]) -> Float:
    """(3, 3) and (3,) [m] -> (4, 4) homogeneous transform."""
    result = np.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] = position
    return result


def pose_9d_from_transform(transform_b_to_a: NDArray[Any]) -> Float:
    """(..., 4, 4) -> (..., 9): position [m] then 6-D rotation, the layout of ``ee_pose`` actions."""
    t = np.asarray(transform_b_to_a, dtype=np.float64)
    return np.concatenate([t[..., :3, 3], rotation_6d_from_matrix(t[..., :3, :3])], axis=-1)


def transform_from_pose_9d(pose_9d: NDArray[Any]) -> Float:
    """(9,) -> (4, 4), the inverse of ``pose_9d_from_transform``."""
    return transform(matrix_from_rotation_6d(pose_9d[3:]), pose_9d[:3])


def segment_distance(first: Float, second: Float) -> Float:
    """Distance between segments, each (..., 2, 3), degenerate ones included -> (...) [m].

    Source: Ericson 2005, "Real-Time Collision Detection", section 5.1.9.
    """
    origin, other = first[..., 0, :], second[..., 0, :]
    d1, d2, apart = first[..., 1, :] - origin, second[..., 1, :] - other, origin - other
    a, b, e = _dot(d1, d1), _dot(d1, d2), _dot(d2, d2)
    c, f = _dot(d1, apart), _dot(d2, apart)
    tiny = 1e-18  # [m^2] a segment shorter than 1 nm is a point
    a_safe, e_safe = np.maximum(a, tiny), np.maximum(e, tiny)
    across = a * e - b * b
    s = _share((b * f - c * e) / np.maximum(across, tiny * tiny))
    t = _share((b * s + f) / e_safe)
    s = _share((b * t - c) / a_safe)
    # Nearly parallel segments: the line solution is rounding, so the ends are tried as well.
    best = _gap(apart, d1, d2, s, t)
    for fixed in (0.0, 1.0):
        best = np.minimum(best, _gap(apart, d1, d2, np.array([fixed]), _share((b * fixed + f) / e_safe)))
    result: Float = np.sqrt(best)
    return result


def _share(value: Float) -> Float:
    """Clipped to 0..1; np.clip takes three times as long on few numbers."""
    result: Float = np.minimum(np.maximum(value, 0.0), 1.0)
    return result


def _dot(first: Float, second: Float) -> Float:
    result: Float = np.einsum("...i,...i->...", first, second)
    return result


def _gap(apart: Float, d1: Float, d2: Float, s: Float, t: Float) -> Float:
    between = apart + d1 * s[..., None] - d2 * t[..., None]
    return _dot(between, between)
