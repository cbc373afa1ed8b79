"""Similarity to a query patch, and colours of features by PCA."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from loco.results.pictures.features import FeatureMap, feature_maps, joint_pca, similarities
from loco.results.pictures.selection import choose_views
from loco.storage import Correspondences, Features, Frames


@pytest.fixture(scope="module")
def opened(scene):
    with Frames(scene.frames) as frames, Correspondences(scene.correspondences) as correspondences:
        yield frames, correspondences


def test_place_features_find_the_query_in_every_view(opened, scene) -> None:
    frames, correspondences = opened
    views, query = choose_views(correspondences, frames)
    with Features(scene.features["place"]) as features:
        heat = similarities(feature_maps(features, views), views, query)
    for values, view, uv in zip(heat, views, query.uv):
        assert values.shape == view.size
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert np.hypot(column + 0.5 - uv[0], row + 0.5 - uv[1]) < 6  # the maps have a cell every 4 pixels
        assert values.max() <= 1 + 1e-5


def test_similarity_is_the_cosine_with_the_query(opened) -> None:
    """Return maps of one constant vector per view, with known cosines."""
    views, query = choose_views(opened[1], opened[0], n=2)
    vectors = ((2, 0), (3, 5)), ((3, 4), (7, 2))
    maps = [FeatureMap(np.tile(np.float32(vector), (*grid, 1)), views[0].size) for vector, grid in vectors]
    same, other = similarities(maps, views, query)
    np.testing.assert_allclose(same, 1, atol=1e-6)
    np.testing.assert_allclose(other, 0.6, atol=1e-6)


def random_maps(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    spread = np.array([5, 3, 2, 0.5, 0.1])
    return [rng.gamma(1.0, size=(h, w, 5)) * spread for h, w in ((4, 6), (3, 3), (8, 2))]


def test_equal_features_get_equal_colours_in_every_view() -> None:
    maps = random_maps(0)
    maps[1][2, 0] = maps[0][1, 4]
    maps[2][7, 1] = maps[0][1, 4]
    colours = joint_pca(maps)
    assert [c.shape for c in colours] == [(4, 6, 3), (3, 3, 3), (8, 2, 3)]
    np.testing.assert_allclose(colours[1][2, 0], colours[0][1, 4], atol=1e-12)
    np.testing.assert_allclose(colours[2][7, 1], colours[0][1, 4], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_colours_do_not_depend_on_basis_scale_or_origin(seed: int) -> None:
    maps = random_maps(seed)
    rotation = ortho_group.rvs(5, random_state=seed)
    moved = [2.5 * m @ rotation + [1, 2, 3, 4, 5] for m in maps]
    for one, other in zip(joint_pca(maps), joint_pca(moved)):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_colours_are_the_leading_components_of_an_svd() -> None:
    cells = random_maps(3)[0].reshape(-1, 5)
    colours = joint_pca([cells.reshape(4, 6, 5)])[0].reshape(-1, 3)
    left, *_ = np.linalg.svd(cells - cells.mean(axis=0), full_matrices=False)
    for k in range(3):
        inner = (colours[:, k] > 0) & (colours[:, k] < 1)  # not clipped
        assert abs(np.corrcoef(left[inner, k], colours[inner, k])[0, 1]) == pytest.approx(1)
    assert colours.min() == 0
    assert colours.max() == 1


def test_constant_features_have_a_constant_colour() -> None:
    colours = joint_pca([np.ones((3, 4, 8)), np.ones((2, 2, 8))])
    assert len({tuple(c) for part in colours for c in part.reshape(-1, 3)}) == 1
