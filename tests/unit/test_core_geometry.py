"""Rotations against scipy, which nobody here wrote."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robopolicy.core import geometry

CLOSE = {"rtol": 0, "atol": 1e-12}
#: Random rotations, and the half turns where naive formulas divide by zero.
ROTATIONS = [
    *Rotation.random(20, rng=0),
    *(Rotation.from_rotvec(np.pi * axis) for axis in np.vstack([np.eye(3), [[0.6, 0.8, 0.0]]])),
    Rotation.identity(),
    Rotation.from_rotvec([1e-9, 0, 0]),
]


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_quaternions_agree_with_scipy_both_ways(rotation):
    matrix = rotation.as_matrix()
    quat_wxyz = rotation.as_quat(scalar_first=True)
    np.testing.assert_allclose(geometry.matrix_from_quat_wxyz(quat_wxyz), matrix, **CLOSE)
    np.testing.assert_allclose(geometry.matrix_from_quat_wxyz(-3.0 * quat_wxyz), matrix, **CLOSE)
    found = geometry.quat_wxyz_from_matrix(matrix)
    assert found[0] >= 0
    np.testing.assert_allclose(abs(found @ quat_wxyz), 1.0, **CLOSE)  # the same up to sign


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_six_numbers_hold_a_rotation(rotation):
    matrix = rotation.as_matrix()
    six = geometry.rotation_6d_from_matrix(matrix)
    np.testing.assert_array_equal(six, [*matrix[:, 0], *matrix[:, 1]])
    np.testing.assert_allclose(geometry.matrix_from_rotation_6d(six), matrix, **CLOSE)


def test_any_six_numbers_become_a_rotation_that_keeps_the_first_column(rng):
    six = rng.normal(size=(50, 6)) * 3
    matrix = geometry.matrix_from_rotation_6d(six)
    np.testing.assert_allclose(
        matrix @ matrix.swapaxes(-1, -2), np.broadcast_to(np.eye(3), matrix.shape), **CLOSE
    )
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0, **CLOSE)
    first = six[:, :3] / np.linalg.norm(six[:, :3], axis=-1, keepdims=True)
    np.testing.assert_allclose(matrix[..., 0], first, **CLOSE)


def test_roll_pitch_yaw_is_about_fixed_axes(rng):
    for rpy in rng.uniform(-np.pi, np.pi, (20, 3)):
        expected = Rotation.from_euler("xyz", rpy).as_matrix()  # lower case: extrinsic
        np.testing.assert_allclose(geometry.matrix_from_rpy(rpy), expected, **CLOSE)


def test_transforms_map_coordinates(rng):
    rotation, position, point = Rotation.random(rng=1), rng.normal(size=3), rng.normal(size=3)
    transform_b_to_a = geometry.transform(rotation.as_matrix(), position)
    moved = transform_b_to_a @ [*point, 1.0]
    np.testing.assert_allclose(moved[:3], rotation.apply(point) + position, **CLOSE)


def test_nine_numbers_hold_a_pose(rng):
    poses = np.stack([geometry.transform(r.as_matrix(), rng.normal(size=3)) for r in ROTATIONS])
    nine = geometry.pose_9d_from_transform(poses)
    assert nine.shape == (len(poses), 9)
    for pose, row in zip(poses, nine):
        np.testing.assert_allclose(geometry.transform_from_pose_9d(row), pose, **CLOSE)
        np.testing.assert_array_equal(row[:3], pose[:3, 3])
