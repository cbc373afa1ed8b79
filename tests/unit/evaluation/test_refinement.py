from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.evaluation.refinement import parabola_offsets, refined_offsets, similarity_windows, soft_argmax_offsets


def cells_around(window: int) -> np.ndarray:
    """Return positions (window, window, 2), (u, v), of the cells of a window, in cells from its centre."""
    reach = np.arange(window) - window // 2
    return np.stack(np.meshgrid(reach, reach), axis=-1).astype(float)


def paraboloids(peaks: np.ndarray, window: int = 3, sharpness=(0.05, 0.02)) -> np.ndarray:
    """Return similarities (k, window, window), which fall from 0.9 with the squared distance to the peaks (k, 2)."""
    apart = cells_around(window) - peaks[:, None, None]
    return 0.9 - (apart**2 @ np.array(sharpness))


def test_a_parabola_finds_the_vertex_of_a_paraboloid():
    peaks = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 2))
    np.testing.assert_allclose(parabola_offsets(paraboloids(peaks)), peaks, atol=1e-12)
    np.testing.assert_allclose(parabola_offsets(paraboloids(peaks, window=5)), peaks, atol=1e-12)


def test_a_parabola_depends_neither_on_offset_nor_on_scale():
    windows = np.random.default_rng(1).random((50, 3, 3)) * 0.1
    windows[:, 1, 1] = 0.2
    np.testing.assert_allclose(parabola_offsets(0.3 * windows + 0.5), parabola_offsets(windows), atol=1e-12)


def test_offsets_stay_in_the_cell():
    """If a neighbour is as similar as the peak, or more similar by rounding, the position is on the border."""
    for window in (np.array([0.5, 0.9, 0.9]), np.array([0.5, 0.9, 0.9001])):
        windows = np.broadcast_to(window, (1, 3, 3))
        np.testing.assert_allclose(parabola_offsets(windows), [[0.5, 0]], atol=1e-12)
    far = paraboloids(np.array([[3.0, -2.0]]), window=5)
    np.testing.assert_allclose(soft_argmax_offsets(far, 0.05), [[0.5, -0.5]])


@pytest.mark.parametrize("missing", [np.s_[:, :, 0], np.s_[:, :, 2], np.s_[:, 1, 2]])
def test_an_axis_without_both_neighbours_has_no_offset(missing):
    windows = paraboloids(np.array([[0.3, -0.2]]))
    windows[missing] = np.nan
    np.testing.assert_allclose(parabola_offsets(windows), [[0, -0.2]], atol=1e-12)


def test_a_plateau_has_no_offset():
    flat = np.full((1, 5, 5), 0.7) + 1e-8 * np.random.default_rng(0).random((1, 5, 5))
    np.testing.assert_array_equal(parabola_offsets(flat), [[0, 0]])
    np.testing.assert_allclose(soft_argmax_offsets(np.full((1, 5, 5), 0.7), 0.05), [[0, 0]], atol=1e-12)


def test_soft_argmax_is_the_mean_under_the_softmax():
    windows = np.random.default_rng(2).random((20, 5, 5)) * 0.05
    places = cells_around(5)
    for window, offset in zip(windows, soft_argmax_offsets(windows, 0.1)):
        weight = np.exp(window / 0.1)
        expected = [(weight * places[..., axis]).sum() / weight.sum() for axis in (0, 1)]
        np.testing.assert_allclose(offset, expected, atol=1e-12)


def test_soft_argmax_of_a_paraboloid_is_its_peak():
    """The softmax of parabolic similarities is a Gaussian, whose mean is the peak.

    For a standard deviation of 0.7 cells, the sum over cells is its mean within 1e-4, and a window of 9 contains all of
    it. A temperature near 0 returns the cell itself.
    """
    peaks = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))
    windows = paraboloids(peaks, window=9, sharpness=(0.05, 0.05))
    spread = 0.7
    np.testing.assert_allclose(soft_argmax_offsets(windows, 2 * 0.05 * spread**2), peaks, atol=1e-3)
    np.testing.assert_allclose(soft_argmax_offsets(windows[:5], 1e-6), 0, atol=1e-6)


def test_the_border_of_a_grid_draws_no_match():
    windows = paraboloids(np.zeros((1, 2)), window=5)
    windows[:, :, 3:] = np.nan  # beyond the last column
    windows[:, 0] = np.nan  # and one row of two
    np.testing.assert_allclose(soft_argmax_offsets(windows, 0.5), [[0, 0]], atol=1e-12)


def test_windows_are_cosines_of_the_cells_around():
    grid = normalize(torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    queries = normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    cells, flat = np.array([0, 7, 19]), grid.reshape(-1, 8)
    candidates = np.ones((4, 5), bool)
    candidates[2, 2] = False
    found = similarity_windows(queries, cells, (4, 5), flat.__getitem__, 3, candidates)
    for query, cell, window in zip(queries, cells, found):
        for dv, du in np.ndindex(3, 3):
            v, u = cell // 5 + dv - 1, cell % 5 + du - 1
            if 0 <= v < 4 and 0 <= u < 5 and candidates[v, u]:
                assert window[dv, du] == pytest.approx(float(query @ grid[v, u]), abs=1e-6)
            else:
                assert np.isnan(window[dv, du])


def field(places: np.ndarray) -> torch.Tensor:
    """Return smooth unit features (..., 128) of positions (..., 2), in cells: their cosine falls to 0.9 over a cell."""
    phase = places @ np.random.default_rng(5).normal(0, 0.45, (2, 64))
    return torch.from_numpy(np.concatenate([np.cos(phase), np.sin(phase)], axis=-1) / 8).float()


@pytest.mark.parametrize("method", ["none", "parabola", "soft_argmax"])
def test_translations_by_parts_of_a_cell_are_recovered(method):
    """Cells of A are matched in B, shifted by a fraction of a cell: the mean error is 0.25 cells without refinement."""
    grid = cells_around(21)
    errors = []
    for shift in np.random.default_rng(0).uniform(-0.5, 0.5, (20, 2)):
        moved = field(grid - shift).reshape(-1, 128)
        inner = (np.abs(grid) <= 7).all(axis=-1)
        queries = field(grid[inner])
        cells = (queries @ moved.T).argmax(dim=1).numpy()
        offsets = refined_offsets(queries, cells, (21, 21), moved.__getitem__, {"refine": method})
        errors.append(np.abs(grid.reshape(-1, 2)[cells] + offsets - (grid[inner] + shift)))
    if method == "none":
        assert np.mean(errors) == pytest.approx(0.25, abs=0.03)
    else:
        assert np.mean(errors) < 0.03
        assert np.max(errors) < 0.1


def test_without_refinement_no_feature_is_read():
    def features(cells):
        raise AssertionError

    queries = torch.ones(3, 4)
    for settings in ({}, {"refine": "none"}):
        np.testing.assert_array_equal(refined_offsets(queries, np.arange(3), (2, 2), features, settings), 0)
    assert refined_offsets(queries[:0], np.arange(0), (2, 2), features, {"refine": "parabola"}).shape == (0, 2)
