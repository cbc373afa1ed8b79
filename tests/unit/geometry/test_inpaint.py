import numpy as np
import pytest

from loco.geometry.inpaint import inpaint_depth


def test_known_depths_stay_and_flat_regions_fill_flat():
    depth = np.full((20, 24), 3.0, np.float32)
    depth[5:12, 8:15] = 0
    filled = inpaint_depth(depth, np.full((20, 24, 3), 90, np.uint8))
    np.testing.assert_allclose(filled, 3.0, atol=1e-5)
    assert filled.dtype == np.float32


def test_colour_edges_stop_the_filling():
    rgb = np.full((20, 20, 3), 30, np.uint8)
    rgb[:, 10:] = 220
    depth = np.where(np.arange(20) < 10, 2.0, 5.0) * np.ones((20, 1))
    holes = depth.copy()
    holes[5:15, 5:15] = 0  # across the edge
    np.testing.assert_allclose(inpaint_depth(holes, rgb), depth, atol=0.02)


def test_solution_satisfies_the_equations_of_all_pixels():
    """Every filled depth is the weighted mean of its neighbours, with the published weights, computed by loops."""
    rng = np.random.default_rng(0)
    rgb = np.repeat(rng.integers(0, 255, size=(12, 14, 1), dtype=np.uint8), 3, axis=2)
    depth = rng.uniform(1, 5, size=(12, 14))
    depth[rng.random((12, 14)) < 0.3] = 0
    depth[0, :4] = 0  # the border too
    filled = inpaint_depth(depth, rgb).astype(np.float64)
    gray = rgb[..., 0].astype(float)
    np.testing.assert_allclose(filled[depth > 0], depth[depth > 0], rtol=1e-6)
    for y, x in np.argwhere(depth == 0):
        near = [(j, i) for j in range(y - 1, y + 2) for i in range(x - 1, x + 2) if (j, i) != (y, x)]
        near = [(j, i) for j, i in near if 0 <= j < 12 and 0 <= i < 14]
        values = np.array([gray[j, i] for j, i in near])
        squared = (values - gray[y, x]) ** 2
        variance = max(0.6 * np.var([*values, gray[y, x]]), -squared.min() / np.log(0.01), 2.2e-6)
        weights = np.exp(-squared / variance)
        expected = sum(w * filled[j, i] for w, (j, i) in zip(weights / weights.sum(), near))
        assert filled[y, x] == pytest.approx(expected, abs=1e-5)


def test_nothing_missing_and_nothing_known():
    depth = np.full((4, 4), 2.0, np.float32)
    rgb = np.zeros((4, 4, 3), np.uint8)
    np.testing.assert_array_equal(inpaint_depth(depth, rgb), depth)
    with pytest.raises(ValueError, match="without any valid pixel"):
        inpaint_depth(np.zeros((4, 4)), rgb)
