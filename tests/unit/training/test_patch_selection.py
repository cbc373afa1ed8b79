import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from scipy.stats import chisquare

from loco.training.patch_selection import patch_areas, select_patches

GRID, STRIDE, FOCAL = (12, 16), 8, 110.0
HOWS = ("image", "space", "coverage")


def plane(normal, distance):
    """Return points where a camera at the origin sees the plane normal . x = distance, and the areas of the patches."""
    v, u = (np.indices(GRID) + 0.5) * STRIDE
    rays = np.stack([(u - GRID[1] * STRIDE / 2) / FOCAL, (v - GRID[0] * STRIDE / 2) / FOCAL, np.ones(GRID)], axis=-1)
    z = distance / (rays @ normal)
    # A pixel's ray (x, y, 1) intersects the plane at z (x, y, 1): dA = z^2 / (n . ray) dx dy.
    return z[..., None] * rays, z**2 / (rays @ normal) * (STRIDE / FOCAL) ** 2


def slanted_wall():
    """Return a wall seen at about 40 degrees, in a random world frame; areas of patches differ by a factor above 10."""
    normal = np.array([0.6, -0.15, 0.77])
    points, areas = plane(normal / np.linalg.norm(normal), 1.5)
    return points @ Rotation.random(rng=1).as_matrix().T + [3.0, -2, 5], areas


def probabilities(areas, count):
    """Return min(1, c a) with sum ``count``: values that would exceed 1 are set to 1, and the others share the rest."""
    share = np.zeros(areas.shape)
    while (more := (share < 1) & (areas * (count - (share == 1).sum()) / areas[share < 1].sum() >= 1)).any():
        share[more] = 1
    share[share < 1] = areas[share < 1] * (count - (share == 1).sum()) / areas[share < 1].sum()
    return share


def frequency(valid, points, count, how, draws):
    rng = np.random.default_rng(0)
    return sum(select_patches(valid, points, count, how, rng).astype(float) for _ in range(draws)) / draws


def test_image_keeps_every_valid_patch_equally_often():
    points, _ = slanted_wall()
    valid = np.random.default_rng(0).random(GRID) < 0.8
    kept = 4000 * frequency(valid, points, 30, "image", draws=4000)
    assert not kept[~valid].any()
    # Draws without replacement vary less than independent ones, by this factor: the statistic has n - 1 = its mean.
    spread = 1 - 30 / valid.sum()
    statistic = chisquare(kept[valid]).statistic / spread
    assert abs(statistic - valid.sum()) < 5 * np.sqrt(2 * valid.sum())


@pytest.mark.parametrize("count", [20, 60, 120])
def test_space_keeps_patches_of_a_slanted_wall_in_proportion_to_their_area(count):
    points, areas = slanted_wall()
    assert areas.max() > 10 * areas.min()
    expected = probabilities(areas, count)
    draws = 2000
    found = frequency(np.ones(GRID, bool), points, count, "space", draws)
    # Estimated areas differ by up to 13 % at the border, where differences are one-sided.
    noise = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(found - expected) <= 4.5 * noise + 0.14 * expected).all()
    # The mean of any uniform distribution on the surface is the centroid of the surface, which the mean of the patches
    # is not.
    if count == 20:
        seen, truth, image = (
            np.average(points.reshape(-1, 3), axis=0, weights=w.ravel()) for w in (found, areas, 1 + 0 * areas)
        )
        assert np.linalg.norm(seen - truth) < 0.1 * np.linalg.norm(image - truth)


def test_areas_of_planes():
    for normal in ([0, 0, 1.0], [0.6, 0, 0.8], [0.48, 0.36, 0.8]):
        points, areas = plane(np.array(normal), 2.0)
        found = patch_areas(points.astype(np.float32), np.ones(GRID, bool))
        np.testing.assert_allclose(found[1:-1, 1:-1], areas[1:-1, 1:-1], rtol=0.03)
        np.testing.assert_allclose(found, areas, rtol=0.15)
        np.testing.assert_allclose(found.sum(), areas.sum(), rtol=0.03)


def test_areas_do_not_grow_or_shrink_beside_holes():
    points, areas = plane(np.array([0.6, 0, 0.8]), 2.0)
    valid = np.random.default_rng(2).random(GRID) < 0.7
    points[~valid] = 0
    row = valid & (np.roll(valid, 1, 1) | np.roll(valid, -1, 1))
    column = valid & (np.roll(valid, 1, 0) | np.roll(valid, -1, 0))
    inner = np.zeros(GRID, bool)
    inner[1:-1, 1:-1] = (row & column)[1:-1, 1:-1]
    assert inner.sum() > 50
    np.testing.assert_allclose(patch_areas(points, valid)[inner], areas[inner], rtol=0.15)


def test_areas_do_not_reach_across_depth_edges():
    near, far = (plane(np.array([0, 0, 1.0]), z) for z in (2.0, 6.0))
    front = np.zeros(GRID, bool)
    front[:, 5:9] = True
    front[4:6, 9:] = True
    points = np.where(front[..., None], near[0], far[0])
    areas = np.where(front, near[1], far[1])
    np.testing.assert_allclose(patch_areas(points, np.ones(GRID, bool)), areas, rtol=1e-6)


def test_a_post_of_one_patch_counts_as_ten_of_its_patches_at_most():
    near, far = (plane(np.array([0, 0, 1.0]), z) for z in (0.5, 9.0))
    points = far[0].copy()
    points[:, 7] = near[0][:, 7]
    found = patch_areas(points, np.ones(GRID, bool))
    assert found[:, 7].max() <= 10 * near[1][0, 0] * (1 + 1e-9)
    np.testing.assert_allclose(found[:, [6, 8]], far[1][0, 0])


def test_area_of_patches_without_neighbours():
    points, areas = plane(np.array([0, 0, 1.0]), 2.0)
    valid = np.zeros(GRID, bool)
    valid[2, 3:8] = True  # a row, with neighbours on two sides: patches are taken as squares
    valid[6, 3] = True  # an isolated patch has the same estimate
    np.testing.assert_allclose(patch_areas(points, valid)[valid], areas[valid])
    alone = np.zeros(GRID, bool)
    alone[::2, ::2] = True
    found = patch_areas(points, alone)[alone]
    assert found[0] > 0
    assert (found == found[0]).all()


def test_coverage_is_greedy_farthest_point_sampling():
    rng = np.random.default_rng(3)
    points, valid = rng.normal(size=(5, 6, 3)), rng.random((5, 6)) < 0.8
    places = points[valid]
    between = np.linalg.norm(places[:, None] - places[None], axis=-1)
    for count in (1, 2, 5, 11):
        possible = []
        for start in range(len(places)):
            greedy = [start]
            while len(greedy) < count:
                greedy.append(int(between[greedy].min(axis=0).argmax()))
            possible.append(set(greedy))
        seen = [set(np.flatnonzero(select_patches(valid, points, count, "coverage", rng)[valid])) for _ in range(60)]
        assert all(one in possible for one in seen)
        assert len({frozenset(one) for one in seen}) > 1  # the start is random


@pytest.mark.parametrize("how", HOWS)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 70), density=st.floats(0, 1), distinct=st.booleans())
@settings(max_examples=60, deadline=None)
def test_keeps_exactly_as_many_valid_patches_as_asked(how, seed, count, density, distinct):
    rng = np.random.default_rng(seed)
    valid = rng.random((6, 9)) < density
    points = (rng.lognormal(sigma=2, size=(6, 9, 3)) if distinct else np.ones((6, 9, 3))).astype(np.float32)
    kept = select_patches(valid, points, count, how, np.random.default_rng(seed))
    assert kept.dtype == bool
    assert not (kept & ~valid).any()
    assert kept.sum() == min(count, valid.sum())
    np.testing.assert_array_equal(kept, select_patches(valid, points, count, how, np.random.default_rng(seed)))


def test_many_patches_are_covered_about_as_well_as_by_farthest_points():
    # The walls of a room and a box, seen by a camera: near and far surfaces, and depth edges.
    rng = np.random.default_rng(0)
    v, u = np.mgrid[-0.81:0.8:64j, -1.01:1:80j]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1)
    depth = np.where(rays > 0, np.array([2, 1.2, 4]) / rays, np.array([-3, -1.3, -2]) / rays).min(axis=-1)
    depth[20:40, 30:50] *= 0.4
    points = (rays * depth[..., None] + rng.normal(0, 0.003, rays.shape)).astype(np.float32)
    valid = rng.random(depth.shape) < 0.95
    places, count = points[valid].astype(np.float64), 300

    def covered(chosen):  # the largest distance of any patch from a selected one
        return cKDTree(chosen).query(places)[0].max()

    greedy, distance = [0], np.full(len(places), np.inf)
    while len(greedy) < count:
        distance = np.minimum(distance, np.linalg.norm(places - places[greedy[-1]], axis=-1))
        greedy.append(int(distance.argmax()))
    kept = select_patches(valid, points, count, "coverage", np.random.default_rng(0))
    assert kept.sum() == count
    assert covered(points[kept]) < 1.6 * covered(places[greedy])
    at_random = select_patches(valid, points, count, "image", np.random.default_rng(0))
    assert covered(points[at_random]) > 2 * covered(places[greedy])  # the measure distinguishes them
    again = select_patches(valid, points, count, "coverage", np.random.default_rng(1))
    assert (again & kept).sum() < 0.5 * count  # other patches in every draw
    same = np.broadcast_to(points[0, 0], points.shape)  # all coincide
    assert select_patches(valid, same, count, "coverage", np.random.default_rng(0)).sum() == count
