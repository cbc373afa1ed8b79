from __future__ import annotations

import numpy as np
import pytest

from loco.evaluation.observed_points import is_visible, pixels_with_depth, shown_points

SIZE = (36, 48)
INTRINSICS = np.array([[40.0, 0, 24], [0, 40, 18], [0, 0, 1]])


def test_shown_points_lie_on_the_surface_and_bridge_nothing():
    depth = np.full((6, 8), 2.0)
    depth[:, 4:], depth[5, 0] = 4.0, 0.0
    uv = np.array([[1.3, 2.2], [4.2, 2.5], [3.8, 2.5], [0.9, 4.9], [0.2, 5.9]])
    points = shown_points(depth, uv, np.diag([2.0, 2, 1]), np.eye(4))
    # Within the wall; on the far and on the near side of the edge; beside the hole; in the hole.
    z = np.array([2, 4, 2, 2, np.inf])
    np.testing.assert_allclose(points[:4], np.c_[uv / 2, np.ones(5)][:4] * z[:4, None])
    assert np.isinf(points[4]).all()


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_depth_of_a_step_is_taken_at_its_own_place_and_never_blended(step):
    depth = np.arange(10 * 12.0).reshape(10, 12) + 1
    uv, z = pixels_with_depth(depth, step)
    assert uv.shape == (10 // step, 12 // step, 2)
    columns, rows = np.moveaxis(np.round(uv * step - 0.5).astype(int), -1, 0)
    np.testing.assert_array_equal(depth[rows, columns], z)
    np.testing.assert_allclose(np.abs(uv - np.floor(uv) - 0.5), 0.5 / step * (1 - step % 2), atol=1e-12)


@pytest.mark.parametrize(("there", "seen"), [(0.5, 0), (1.94, 0), (1.96, 1), (2.04, 1), (2.06, 0), (8.0, 0), (0.0, 0)])
def test_a_point_is_seen_at_the_depth_of_its_pixel_neither_before_nor_behind_it(there, seen):
    points = np.array([[0.0, 0.0, 2.0]])
    depth = np.full(SIZE, 2.0)
    depth[18, 24] = there  # the principal point is the top-left corner of this pixel
    assert is_visible(points, depth, INTRINSICS, np.eye(4), 0.05).tolist() == [bool(seen)]
    depth[18, 24], depth[17, 23], depth[17, 24], depth[18, 23] = 2.0, there, there, there
    assert is_visible(points, depth, INTRINSICS, np.eye(4), 0.05).tolist() == [True]


def test_a_point_is_seen_within_the_image_alone():
    uv = np.array([[0, 18], [-1e-6, 18], [48 - 1e-6, 18], [48, 18], [24, 0], [24, -1e-6], [24, 36 - 1e-6], [24, 36]])
    points = np.concatenate([uv - [24, 18], np.full((8, 1), 40.0)], axis=1)
    points = np.concatenate([points, [[0, 0, 0], [0, 0, -40]]])
    seen = is_visible(points, np.full(SIZE, 40.0), INTRINSICS, np.eye(4), 100.0)
    assert seen.tolist() == [True, False] * 4 + [False, False]
    assert not is_visible(np.array([[0, 0, 0.02]]), np.zeros(SIZE), INTRINSICS, np.eye(4), 0.05).any()
