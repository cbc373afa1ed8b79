import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from loco.geometry.cameras import (
    backproject,
    pixel_centres,
    project,
    relative_rotation_angle,
    rotation_angle,
    scale_intrinsics,
)

K = np.array([[130.0, 0, 78.5], [0, 128.0, 66.0], [0, 0, 1]])


def random_pose(rng: np.random.Generator) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    pose[:3, 3] = rng.normal(size=3) * 5
    return pose


def test_project_follows_opencv_axes():
    # One metre ahead, 0.1 m right and 0.2 m down is projected right of and below the principal point.
    uv, z = project(np.array([0.1, 0.2, 1.0]), K, np.eye(4))
    assert z == 1.0
    np.testing.assert_allclose(uv, [78.5 + 13.0, 66.0 + 25.6])


@given(st.integers(0, 2**32 - 1))
def test_backproject_inverts_project(seed):
    rng = np.random.default_rng(seed)
    pose, uv, z = random_pose(rng), rng.uniform(0, 160, size=(20, 2)), rng.uniform(0.1, 10, size=20)
    uv_again, z_again = project(backproject(uv, z, K, pose), K, pose)
    np.testing.assert_allclose(uv_again, uv, atol=1e-8)
    np.testing.assert_allclose(z_again, z, rtol=1e-10)


def test_points_behind_the_camera_have_negative_depth():
    _, z = project(np.array([[0, 0, -2.0], [0, 0, 0]]), K, np.eye(4))
    assert z.tolist() == [-2.0, 0.0]


def test_scaling_intrinsics_scales_the_image():
    point = np.array([0.3, -0.1, 2.0])
    uv, _ = project(point, K, np.eye(4))
    scaled, _ = project(point, scale_intrinsics(K, (128, 160), (64, 40)), np.eye(4))
    np.testing.assert_allclose(scaled, uv * [40 / 160, 64 / 128])


def test_pixel_centres_are_half_a_pixel_in():
    centres = pixel_centres(2, 3)
    assert centres.shape == (2, 3, 2)
    assert centres[0, 0].tolist() == [0.5, 0.5]
    assert centres[1, 2].tolist() == [2.5, 1.5]


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 0.01, 1, 89, 91, 179, 179.999, 180])
def test_rotation_angle(degrees):
    rotation = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0, 0.8])).as_matrix()
    # At 180 degrees both forms are ill-conditioned: rounding of 1e-16 in the matrix is 1e-8 rad in the angle.
    assert rotation_angle(rotation) == pytest.approx(degrees, abs=1e-5 if degrees > 170 else 1e-9)


def test_relative_rotation_angle_ignores_the_world_frame():
    rng = np.random.default_rng(0)
    a, world = random_pose(rng), random_pose(rng)
    b = a.copy()
    b[:3, :3] = a[:3, :3] @ Rotation.from_rotvec([0, np.radians(40), 0]).as_matrix()
    assert relative_rotation_angle(a, b) == pytest.approx(40)
    assert relative_rotation_angle(world @ a, world @ b) == pytest.approx(40)
