import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loco.geometry.cameras import pixel_centres, project
from loco.geometry.patches import extent_of, grid_size, patch_centres, patch_points, sample_depth

K = np.array([[134.0, 0, 80.4], [0, 134.0, 63.2], [0, 0, 1]])
SIZE = (128, 160)


def plane_depth(normal: np.ndarray, offset: float, uv: np.ndarray) -> np.ndarray:
    """Return the z-depth at which the rays through uv intersect the plane normal . x = offset (camera frame)."""
    rays = np.concatenate([uv, np.ones_like(uv[..., :1])], axis=-1) @ np.linalg.inv(K).T
    return offset / (rays @ normal)


@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.sampled_from([1, 2, 4, 5, 8, 16]))
def test_points_of_a_slanted_plane_lie_on_it(a, b, stride):
    normal = np.array([a, b, 1.0])
    depth = plane_depth(normal, 3.0, pixel_centres(*SIZE))
    grid = (SIZE[0] // stride, SIZE[1] // stride)
    points, valid = patch_points(depth, K, np.eye(4), grid)
    assert valid.mean() > 0.99
    np.testing.assert_allclose((points @ normal)[valid], 3.0, atol=1e-9)
    # and on the ray through the centre of the patch
    uv, _ = project(points[valid], K, np.eye(4))
    np.testing.assert_allclose(uv, patch_centres(grid, SIZE)[valid], atol=1e-8)


def test_own_pixel_centres_give_the_depth_itself():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 9, size=(6, 7))
    depth[2, 3] = 0
    sampled, _ = sample_depth(depth, pixel_centres(6, 7))
    np.testing.assert_array_equal(sampled, depth)


def test_a_patch_on_a_depth_edge_is_not_valid():
    depth = np.full((8, 8), 2.0)
    depth[:, 5:] = 4.0  # the edge crosses the second column of 4-pixel patches, left of its centre 6
    _, valid = patch_points(depth, K, np.eye(4), (2, 2))
    assert valid.all()
    depth[:, 5:] = 2.0
    depth[:, 6:] = 4.0  # now between pixels 5 and 6, at the centre of the second patch
    _, valid = patch_points(depth, K, np.eye(4), (2, 2))
    assert valid.tolist() == [[True, False], [True, False]]


def test_edges_are_looked_up_not_blended():
    depth = np.full((4, 4), 2.0)
    depth[:, 2:] = 4.0
    sampled, smooth = sample_depth(depth, np.array([[1.9, 2.0], [2.1, 2.0]]))
    assert sampled.tolist() == [2.0, 4.0]
    assert not smooth.any()


def test_holes_and_outside_have_no_depth():
    depth = np.full((4, 4), 2.0)
    depth[1, 1] = 0
    sampled, smooth = sample_depth(depth, np.array([[1.9, 1.9], [-0.1, 2], [4.0, 2], [2, 4.1], [3.9, 3.9]]))
    assert sampled.tolist() == [0, 0, 0, 0, 2.0]
    assert smooth.tolist() == [False, False, False, False, True]


def test_patches_reach_beyond_an_image_that_is_no_whole_number_of_them():
    assert grid_size((128, 160), 8) == (16, 20)
    assert grid_size((100, 153), 8) == (13, 20)
    extent = extent_of((13, 20), 8)
    assert extent == (104, 160)
    centres = patch_centres((13, 20), extent)
    assert centres[0, 0].tolist() == [4, 4]
    assert centres[-1, -1].tolist() == [156, 100]
    _, valid = patch_points(np.full((100, 153), 2.0), K, np.eye(4), (13, 20), extent)
    assert (valid == (centres < (153, 100)).all(axis=-1)).all()
    assert not valid[-1].any()
    assert valid[:-1, :-1].all()
