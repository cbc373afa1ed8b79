"""The search for the most similar pixels against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.evaluation.pixel_search import best_matches, nearest_pixels, two_nearest
from loco.geometry.cameras import pixel_centres
from loco.geometry.sampling import sample_features

SIZE = (36, 48)
BEYOND = SIZE[0] + 5, SIZE[1] + 2  # of maps whose last cells extend beyond the image


def random_map(h, w, c, seed=0):
    return normalize(torch.randn(h, w, c, generator=torch.Generator().manual_seed(seed)), dim=2)


@pytest.mark.parametrize("extent", [SIZE, BEYOND])
@pytest.mark.parametrize("grid", [(9, 12), (36, 48), (5, 7), (50, 60), (1, 1)])
def test_search_equals_brute_force(grid, extent):
    feature_map, queries = random_map(*grid, 8), random_map(1, 150, 8, seed=1)[0]  # two and a half blocks
    uv = pixel_centres(*SIZE).reshape(-1, 2)
    pixels = sample_features(feature_map.double(), torch.from_numpy(uv), extent).double()
    table = queries.double() @ pixels.T
    similarity, nearest = two_nearest(queries, feature_map, SIZE, extent)
    torch.testing.assert_close(similarity.double(), table.topk(2, dim=1).values, atol=1e-5, rtol=0)
    at_nearest = table.gather(1, nearest)  # any of several pixels with equal features may be returned
    torch.testing.assert_close(at_nearest, table.topk(2, dim=1).values, atol=1e-5, rtol=0)


def bilinear(feature_map, uv, extent):
    """Return unit features at pixels, by the definition: four cells, extended at the border; float64."""
    cells = feature_map.double().numpy()
    h, w, _ = cells.shape
    x = np.clip(uv[:, 0] * w / extent[1] - 0.5, 0, w - 1)
    y = np.clip(uv[:, 1] * h / extent[0] - 0.5, 0, h - 1)
    left, top = np.minimum(np.floor(x).astype(int), max(w - 2, 0)), np.minimum(np.floor(y).astype(int), max(h - 2, 0))
    right, below = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    x, y = (x - left)[:, None], (y - top)[:, None]
    upper = (1 - x) * cells[top, left] + x * cells[top, right]
    lower = (1 - x) * cells[below, left] + x * cells[below, right]
    sampled = (1 - y) * upper + y * lower
    return sampled / np.linalg.norm(sampled, axis=1, keepdims=True)


def plain_scores(map_a, map_b, extent, candidates=None):
    """For all pixels of A: cosine distances to the two nearest pixels of B, their numbers, and the three scores."""
    uv = pixel_centres(*SIZE).reshape(-1, 2)
    distance = 1 - bilinear(map_a, uv, extent) @ bilinear(map_b, uv, extent).T
    if candidates is not None:
        distance[:, ~candidates.ravel()] = np.inf
    order = np.argsort(distance, axis=1)[:, :2]
    first, second = np.take_along_axis(distance, order, axis=1).T
    apart = np.linalg.norm(uv[order[:, 0]] - uv[order[:, 1]], axis=1)
    return distance, {"ratio": 1 - first / second, "similarity": -first, "pixel_distance": -apart}


SOME = np.random.default_rng(4).random(SIZE) < 0.4  # candidates


@pytest.mark.parametrize("candidates", [None, SOME])
@pytest.mark.parametrize("extent", [SIZE, BEYOND])
@pytest.mark.parametrize("filter", ["ratio", "similarity", "pixel_distance"])
def test_the_best_matches_are_those_of_the_definition(filter, extent, candidates):
    map_a, map_b, uv = random_map(9, 12, 8), random_map(9, 12, 8, seed=1), pixel_centres(*SIZE).reshape(-1, 2)
    found = nearest_pixels(map_a, map_b, uv, SIZE, np.random.default_rng(0), extent, candidates)
    distance, scores = plain_scores(map_a, map_b, extent, candidates)
    second, third = np.sort(distance, axis=1)[:, 1:3].T
    certain = third - second > 1e-5  # which pixel is second does not depend on rounding
    for allowed in (certain, certain & (np.random.default_rng(5).random(len(uv)) < 0.3)):
        kept = best_matches(found, filter, 50, allowed)
        points = found.point[kept]
        assert allowed[points].all()
        assert len(set(points)) == 50
        np.testing.assert_allclose(scores[filter][points], np.sort(scores[filter][allowed])[::-1][:50], atol=1e-4)
        pixels = found.pixel[kept].numpy()
        for nth, nearest in enumerate(np.sort(distance, axis=1)[points, :2].T):
            np.testing.assert_allclose(distance[points, pixels[:, nth]], nearest, atol=2e-6)
            assert candidates is None or candidates.ravel()[pixels[:, nth]].all()


def test_there_are_as_many_matches_as_points_to_choose_from():
    found = nearest_pixels(*(random_map(9, 12, 8),) * 2, np.array([[3.5, 4.5]] * 7), SIZE, np.random.default_rng(0))
    assert sorted(found.point[best_matches(found, "ratio", 50)]) == list(range(7))
    assert sorted(found.point[best_matches(found, "similarity", 50, np.arange(7) < 3)]) == [0, 1, 2]
    assert len(best_matches(found, "ratio", 50, np.zeros(7, bool))) == 0


def test_features_are_read_at_pixel_centres_up_to_the_border():
    """Features at pixel centres are exact, also in the outermost columns.

    Features rotate with the column: a pixel has the feature of its centre, and in the outermost columns that of the
    outermost cells. A grid that is aligned with the corners would be off by up to half a pixel.
    """
    angle = (np.arange(12) + 0.5) / 12
    turning = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=1)).expand(9, 12, 2)
    uv = np.stack([np.arange(48) + 0.5, np.full(48, 18.0)], axis=1)
    found = sample_features(turning, torch.from_numpy(uv), SIZE).double().numpy()
    expected = np.clip((np.arange(48) + 0.5) / 48, angle[0], angle[-1])
    np.testing.assert_allclose(np.arctan2(found[:, 1], found[:, 0]), expected, atol=1e-4)


def test_matches_of_equal_features_are_chosen_at_random_however_they_round():
    map_a, map_b = (0.25 + 1e-7 * random_map(*grid, 16) for grid in ((9, 12), (2, 2)))
    uv = np.random.default_rng(1).random((500, 2)) * 2
    found = nearest_pixels(map_a, map_b, uv, (2, 2), np.random.default_rng(0))
    for filter in ("ratio", "similarity"):
        kept = found.point[best_matches(found, filter, 100)]
        np.testing.assert_array_equal(kept, np.random.default_rng(0).permutation(500)[:100])


@pytest.mark.parametrize("extent", [(36, 48), (36.4, 48.5), (40.9, 50.1), (100 / 3, 140 / 3)])
@pytest.mark.parametrize("grid", [(7, 9), (36, 48), (50, 61)])
def test_search_covers_pixels_of_any_extent(extent, grid):
    size = tuple(int(side) for side in extent)
    feature_map, queries = random_map(*grid, 8), random_map(1, 20, 8, seed=1)[0]
    pixels = sample_features(feature_map, torch.from_numpy(pixel_centres(*size).reshape(-1, 2)), extent)
    similarity, nearest = two_nearest(queries, feature_map, size, extent)
    torch.testing.assert_close(similarity, (queries @ pixels.T).topk(2, dim=1).values, atol=1e-5, rtol=0)
    assert nearest.max() < size[0] * size[1]
