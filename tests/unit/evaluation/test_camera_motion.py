"""Camera motions estimated from exact and from partly wrong matches of points with known projections."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from loco.evaluation.camera_motion import essential_motion
from loco.evaluation.relative_pose import direction_angle
from loco.geometry.cameras import project, rotation_angle

INTRINSICS = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])


def motion(degrees, axis=(0.3, 1, 0.2), translation=(0.4, -0.1, 0.3)):
    """(4, 4)."""
    found = np.eye(4)
    found[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis)).as_matrix()
    found[:3, 3] = translation
    return found


@pytest.mark.parametrize("degrees", [0, 20, 100])
@pytest.mark.parametrize("wrong", [0, 0.5])
def test_exact_matches_give_rotation_and_direction(degrees, wrong):
    rng = np.random.default_rng(degrees)
    a_to_b, k_b = motion(degrees, axis=(0, 0, 1)), np.diag([1.2, 1.1, 1]) @ INTRINSICS
    points = rng.uniform([-2, -2, 3], [2, 2, 9], (200, 3))
    uv_a, _ = project(points, INTRINSICS, np.eye(4))
    uv_b, _ = project(points, k_b, np.linalg.inv(a_to_b))
    uv_b[: int(200 * wrong)] = rng.uniform(0, 60, (int(200 * wrong), 2))
    found, agree = essential_motion(uv_a, uv_b, INTRINSICS, k_b, 0.01, 2000, rng)
    np.testing.assert_allclose(found[:3, :3], a_to_b[:3, :3], atol=1e-3)
    np.testing.assert_allclose(found[:3, 3], a_to_b[:3, 3] / np.linalg.norm(a_to_b[:3, 3]), atol=5e-3)
    assert agree == pytest.approx(200 * (1 - wrong), abs=5)
    assert essential_motion(uv_a[:4], uv_b[:4], INTRINSICS, k_b, 0.5, 2000, rng) is None


def test_points_far_beyond_the_baseline_count():
    """Some libraries do not count points farther away than 50 baselines."""
    rng = np.random.default_rng(0)
    a_to_b, points = motion(5, translation=(0.02, 0, 0)), rng.uniform([-3, -3, 5], [3, 3, 10], (200, 3))
    uv_a, uv_b = (project(points, INTRINSICS, pose)[0] for pose in (np.eye(4), np.linalg.inv(a_to_b)))
    found, _ = essential_motion(uv_a, uv_b, INTRINSICS, INTRINSICS, 0.01, 2000, rng)
    assert direction_angle(found[:3, 3], a_to_b[:3, 3]) < 5


def test_essential_matrices_are_found_by_the_matches_of_greater_weight():
    """Of 200 matches 20 are right: 100 uniform draws are too few, and enough if the right ones are drawn first."""
    rng = np.random.default_rng(2)
    a_to_b, points = motion(15), rng.uniform([-2, -2, 3], [2, 2, 9], (200, 3))
    uv_a, _ = project(points, INTRINSICS, np.eye(4))
    uv_b, _ = project(points, INTRINSICS, np.linalg.inv(a_to_b))
    uv_b[20:] = rng.uniform(0, 60, (180, 2))
    order = rng.permutation(200)
    uv_a, uv_b, weights = uv_a[order], uv_b[order], np.where(np.arange(200) < 20, 0.9, 0.1)[order]
    for scale in (1, 1000):
        found, _ = essential_motion(
            uv_a, uv_b, INTRINSICS, INTRINSICS, 0.01, 100, np.random.default_rng(0), scale * weights
        )
        np.testing.assert_allclose(found[:3, :3], a_to_b[:3, :3], atol=1e-3)
    alike = essential_motion(uv_a, uv_b, INTRINSICS, INTRINSICS, 0.01, 100, np.random.default_rng(0))
    assert alike is None or rotation_angle(alike[0][:3, :3] @ a_to_b[:3, :3].T) > 1
