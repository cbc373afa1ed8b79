from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.evaluation.reranking import (
    diagonal,
    homography_inliers,
    match,
    match_scores,
    neighbour_distance,
    positions,
    rapid_spatial,
    rerank_name,
    score,
)

FORMS = [True, False]  # per axis, in the plane
GRID = (32, 40)


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def cosines(query, candidate):
    return query.flatten(0, 1) @ candidate.flatten(0, 1).T


def test_positions_are_column_then_row():
    np.testing.assert_array_equal(positions((2, 3)), [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]])


def test_room_of_the_plane_is_the_diagonal():
    assert diagonal(GRID) == pytest.approx(51.2, abs=0.03)
    assert diagonal((2, 2)) == pytest.approx(2 * np.sqrt(2))
    own = positions(GRID)
    assert rapid_spatial(own, own, GRID, axis_wise=False) == pytest.approx(32**2 + 40**2)
    assert rapid_spatial(own, own, GRID, axis_wise=True) == pytest.approx(32**2 + 40**2)


@pytest.mark.parametrize("axis_wise", FORMS)
def test_rapid_spatial_score_by_hand(axis_wise):
    own = np.array([[0.0, 0], [1, 0], [2, 3]])
    theirs = np.array([[1.0, 0], [2, 0], [6, 6]])  # displaced by (1, 0), (1, 0), (4, 3): the mean is (2, 1)
    if axis_wise:
        expected = 2 * ((8 - 1) ** 2 + (6 - 1) ** 2) + (8 - 2) ** 2 + (6 - 2) ** 2
    else:
        expected = 2 * (10 - np.sqrt(2)) ** 2 + (10 - np.sqrt(8)) ** 2
    assert rapid_spatial(own, theirs, (6, 8), axis_wise) == pytest.approx(expected / 48)


@pytest.mark.parametrize("axis_wise", FORMS)
def test_rapid_spatial_score_prefers_one_displacement(axis_wise):
    side = 32
    own = positions((side, side))
    random, shift = np.random.default_rng(0).permutation(own), np.array([5, -3])
    same, shifted, transposed, shuffled = (
        rapid_spatial(own, theirs, (side, side), axis_wise) for theirs in (own, own + shift, own[:, ::-1], random)
    )
    assert same == shifted
    assert same > 1.5 * shuffled
    assert same > 1.5 * transposed


@pytest.mark.parametrize("axis_wise", FORMS)
def test_a_displacement_beyond_all_room_adds_nothing(axis_wise):
    own = np.zeros((4, 2))
    theirs = np.array([[0.0, 0]] * 3 + [[40, 40]])  # displaced from the mean by (10, 10), three times, and (30, 30)
    near = rapid_spatial(own[:3], theirs[:3] - 10, (12, 12), axis_wise)
    expected = 3 * (2 * (12 - 10) ** 2 if axis_wise else (12 * np.sqrt(2) - 10 * np.sqrt(2)) ** 2) / 144
    assert rapid_spatial(own, theirs, (12, 12), axis_wise) == pytest.approx(expected)
    assert near > expected


@pytest.mark.parametrize("name", ["count", "rapid_spatial", "rapid_spatial_2d", "ransac"])
def test_no_matches_score_nothing(name):
    assert score(np.empty((0, 2)), np.empty((0, 2)), GRID, name) == 0


def test_homography_inliers():
    rng = np.random.default_rng(0)
    own = rng.uniform(0, 40, (120, 2))
    h = np.array([[1.1, 0.1, -2], [-0.05, 0.9, 3], [0.002, -0.001, 1]])
    theirs = cv2.perspectiveTransform(own[None], h)[0] + rng.uniform(-0.3, 0.3, own.shape)
    theirs[80:] = rng.uniform(0, 40, (40, 2))
    assert 80 <= homography_inliers(own, theirs) <= 85
    moved = theirs.copy()
    moved[:20] += [0, 4]  # more than 1.5 patches, the tolerance of inliers
    assert 60 <= homography_inliers(own, moved) <= 66
    assert homography_inliers(own[:3], theirs[:3]) == 0
    assert homography_inliers(np.zeros((9, 2)), np.zeros((9, 2))) == 0


def mutual_by_definition(similarities, tolerance, grid):
    found = []
    for i in range(len(similarities)):
        j = int(np.argmax(similarities[i]))
        back = int(np.argmax(similarities[:, j]))
        apart = np.hypot(*np.subtract(divmod(back, grid[1]), divmod(i, grid[1])))
        if apart <= tolerance:
            found.append((i, j))
    return found


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_mutual_nearest_neighbours_equal_their_definition(tolerance):
    grid, other = (5, 6), (4, 7)
    similarities = cosines(unit(*grid, 4), unit(*other, 4, seed=1))
    expected = mutual_by_definition(similarities.numpy(), tolerance, grid)
    own, theirs = match(similarities, grid, other, {"matching": "approximate", "tolerance": tolerance})
    np.testing.assert_array_equal(own, [positions(grid)[i] for i, _ in expected])
    np.testing.assert_array_equal(theirs, [positions(other)[j] for _, j in expected])
    if tolerance == 0:
        np.testing.assert_array_equal(match(similarities, grid, other, {"matching": "mutual"})[0], own)


def test_ratio_test_equals_its_definition():
    query, candidate = unit(5, 6, 4), unit(4, 7, 4, seed=1)
    own, theirs = match(cosines(query, candidate), (5, 6), (4, 7), {"matching": "ratio", "ratio": 0.7})
    expected = []
    for i, q in enumerate(query.reshape(-1, 4).double()):
        distance = (candidate.reshape(-1, 4).double() - q).norm(dim=1)
        first, second = distance.argsort()[:2]
        if distance[first] < 0.7 * distance[second]:
            expected.append((i, int(first)))
    assert 0 < len(expected) < 30
    np.testing.assert_array_equal(own, [positions((5, 6))[i] for i, _ in expected])
    np.testing.assert_array_equal(theirs, [positions((4, 7))[j] for _, j in expected])


def test_neighbours_of_a_patch_equal_their_definition():
    grid = rows, columns = 4, 5
    matched = np.random.default_rng(0).uniform(0, 9, (rows * columns, 2))
    expected = []
    for r, q in product(range(rows), range(columns)):
        around = [
            (i, j)
            for i, j in product(range(r - 1, r + 2), range(q - 1, q + 2))
            if 0 <= i < rows and 0 <= j < columns and (i, j) != (r, q)
        ]
        distances = [np.linalg.norm(matched[i * columns + j] - matched[r * columns + q]) for i, j in around]
        expected.append(np.mean(distances))
    np.testing.assert_allclose(neighbour_distance(matched, grid), expected)
    assert neighbour_distance(np.zeros((1, 2)), (1, 1)) == np.inf


def test_consistent_neighbourhoods_pass():
    query = unit(8, 10, 64)
    candidate = query.clone()
    candidate[:, 5:] = (
        query[:, 5:].flatten(0, 1)[torch.randperm(40, generator=torch.Generator().manual_seed(0))].view(8, 5, 64)
    )
    own, theirs = match(cosines(query, candidate), (8, 10), (8, 10), {"matching": "neighbourhood", "tolerance": 2.0})
    kept = {tuple(xy) for xy in own.astype(int)}
    assert kept >= set(product(range(4), range(8)))
    assert len(kept) < 50
    inside = own[:, 0] < 4
    np.testing.assert_array_equal(own[inside], theirs[inside])


@pytest.mark.parametrize("matching", ["mutual", "approximate", "neighbourhood", "ratio"])
@pytest.mark.parametrize("name", ["count", "rapid_spatial", "rapid_spatial_2d", "ransac"])
def test_an_image_matches_itself_best(matching, name):
    settings = {"matching": matching, "tolerance": 1.5, "ratio": 0.9, "score": name}
    query, other = unit(8, 10, 128), unit(8, 10, 128, seed=1)
    noisy = normalize(query + 0.3 * other, dim=2)
    own = match_scores(query, noisy, [settings])[0]
    assert own > 1.5 * match_scores(query, other, [settings])[0]


@pytest.mark.parametrize("matching", ["mutual", "approximate", "neighbourhood", "ratio"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3)])
def test_the_smallest_maps(matching, grid):
    settings = [
        {"matching": matching, "tolerance": 1.5, "ratio": 0.9, "score": name}
        for name in ("count", "rapid_spatial", "rapid_spatial_2d", "ransac")
    ]
    for constant in (unit(*grid, 4), torch.ones(*grid, 4) / 2):
        assert np.isfinite(match_scores(constant, constant, settings)).all()


def test_names():
    assert rerank_name({"matching": "mutual", "score": "ransac"}) == "mutual + RANSAC"
    assert rerank_name({"matching": "approximate", "tolerance": 1, "score": "count"}) == "mutual within 1 + count"


@pytest.mark.parametrize("tolerance", [1, 2, 5**0.5])
def test_a_strict_tolerance_excludes_itself(tolerance):
    grid, other = (5, 6), (4, 7)
    similarities = cosines(unit(*grid, 3), unit(*other, 3, seed=1))
    settings = {"matching": "approximate", "tolerance": tolerance}
    found, strict = (match(similarities, grid, other, settings | {"strict": on})[0].tolist() for on in (False, True))
    exactly = mutual_by_definition(similarities.numpy(), tolerance, grid)
    below = mutual_by_definition(similarities.numpy(), tolerance - 1e-6, grid)
    assert strict == [positions(grid)[i].tolist() for i, _ in below]
    assert found == [positions(grid)[i].tolist() for i, _ in exactly]
    assert len(strict) < len(found)


@pytest.mark.parametrize("matching", [{"matching": "mutual"}, {"matching": "neighbourhood", "tolerance": 3}])
@pytest.mark.parametrize("name", ["count", "rapid_spatial"])
def test_both_directions_are_added(matching, name):
    query, candidate = unit(5, 6, 4), unit(4, 7, 4, seed=1)
    entry = matching | {"score": name}
    (forth,), (back,) = match_scores(query, candidate, [entry]), match_scores(candidate, query, [entry])
    (both,) = match_scores(query, candidate, [entry | {"both_directions": True}])
    assert both == pytest.approx(forth + back)
    assert rerank_name(entry | {"both_directions": True}) == f"{rerank_name(entry)}, both directions"


def test_names_tell_a_strict_tolerance():
    entry = {"matching": "approximate", "tolerance": 2, "score": "count"}
    assert rerank_name(entry | {"strict": True}) == "mutual within less than 2 + count"
