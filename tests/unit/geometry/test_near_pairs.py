import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loco.geometry import near_pairs
from loco.geometry.near_pairs import cell_keys, index_pairs, partners


def by_brute_force(points, images, radius):
    """Return the mask (m, m) of pairs."""
    points = points.astype(np.float32).astype(np.float64)
    x, y, z = np.moveaxis(points[:, None] - points[None], -1, 0)
    return (x * x + y * y + z * z <= radius * radius) & (images[:, None] != images[None])


def assert_complete(points, images, radius):
    """Check the counts, and the neighbours found around each point, by brute force."""
    pairs, near = index_pairs(points, images, radius), by_brute_force(points, images, radius)
    np.testing.assert_array_equal(pairs.counts, near.sum(axis=1))
    np.testing.assert_array_equal(pairs.points[pairs.place], points.astype(np.float32))
    np.testing.assert_array_equal(pairs.images[pairs.place], images)
    for patch, place in enumerate(pairs.place):
        found = partners(pairs, place, radius)
        np.testing.assert_array_equal(np.sort(found), np.sort(images[near[patch]]))
    return pairs


@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(0.01, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_counts_and_partners_by_brute_force(seed, count, radius, dense):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3)) * rng.lognormal(sigma=1.5, size=(count, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_pairs, "_DENSE", 0 if dense else 1 << 60)
        patch.setattr(near_pairs, "_CELLS", 7)
        patch.setattr(near_pairs, "_BLOCK", 50)
        assert_complete(points, np.sort(rng.integers(0, 5, count)), radius)


def test_the_radius_is_part_of_the_pairs():
    points = np.array([[0.0, 0, 0], [0.25, 0, 0], [0.75, 0, 0]])
    assert index_pairs(points, np.arange(3), 0.25).counts.tolist() == [1, 1, 0]
    assert index_pairs(points, np.arange(3), 0.2499).counts.tolist() == [0, 0, 0]
    assert index_pairs(np.empty((0, 3)), np.empty(0, int), 0.25).counts.size == 0


@pytest.mark.parametrize("dense", [0, 1 << 60])
@pytest.mark.parametrize("radius", [0.1, 0.2, 0.3, 1 / 3])
def test_points_exactly_a_radius_apart_are_counted_and_found_alike(monkeypatch, radius, dense):
    # On a lattice with this pitch, many distances round to the radius or to an adjacent number.
    monkeypatch.setattr(near_pairs, "_DENSE", dense)
    lattice = np.stack(np.meshgrid(*[np.arange(5) * radius] * 3), axis=-1).reshape(-1, 3)
    assert_complete(lattice + 7.7, np.arange(125) % 6, radius)


def test_coinciding_points():
    pairs = assert_complete(np.ones((40, 3)), np.arange(40) // 4, 0.05)
    assert (pairs.counts == 36).all()


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e12, 1e30])
def test_huge_coordinates(scale):
    # The resolution of single precision is coarser there than the radius: points coincide, or are far apart.
    rng = np.random.default_rng(0)
    near = rng.normal(size=(30, 3)) * 0.1
    far = scale * rng.choice([-1, 1], size=(30, 3)) + rng.normal(size=(30, 3)) * 0.1
    assert_complete(np.concatenate([near, far]), np.arange(60) % 7, 0.2)


def test_far_cells_are_merged_and_stay_neighbours():
    origin, radius = np.zeros(3), 0.01
    points = np.zeros((4, 3), np.float32)
    points[:, 0] = [-1e9, -1e7, 1e7, 1e9]
    keys = cell_keys(points, origin, radius)
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert (keys > 0).all()
