"""Which views are shown, and what is computed on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from loco.errors import DataError
from loco.results.views import MIN_OVERLAP, FeatureMap, choose_views, feature_maps, joint_pca, similarities
from loco.storage import Correspondences, Features, Frames


@pytest.fixture(scope="module")
def opened(scene):
    with Frames(scene.frames) as frames, Correspondences(scene.correspondences) as correspondences:
        yield frames, correspondences


@pytest.mark.parametrize("seed", range(3))
def test_chosen_views_overlap_and_see_the_query(opened, seed: int) -> None:
    frames, correspondences = opened
    views, query = choose_views(correspondences, frames, n=4, seed=seed)
    indices = [view.index for view in views]
    assert len(set(indices)) == 4
    overlap = correspondences["overlap"][:]
    assert all(min(overlap[indices[0], i], overlap[i, indices[0]]) >= MIN_OVERLAP for i in indices[1:])
    for view, uv, visible in zip(views, query.uv, query.visible):
        # Brute force: a ray from the camera to the point, in the homogeneous form, against the depth of its pixel.
        camera = np.linalg.inv(frames["pose"][view.index]) @ [*query.point, 1]
        image = frames["intrinsics"][view.index] @ camera[:3]
        assert image[:2] / image[2] == pytest.approx(uv)
        column, row = uv.astype(int)
        assert visible
        assert frames["depth"][view.index][row, column] == pytest.approx(image[2], abs=0.1)
        np.testing.assert_array_equal(view.rgb, frames["rgb"][view.index])


def test_query_is_the_centre_of_a_patch_of_the_first_view(opened) -> None:
    frames, correspondences = opened
    views, query = choose_views(correspondences, frames)
    cell = query.uv[0] / 4 - 0.5
    assert cell == pytest.approx(cell.round(), abs=1e-4)
    column, row = cell.round().astype(int)
    assert correspondences["points"][views[0].index, row, column] == pytest.approx(query.point)
    assert correspondences["valid"][views[0].index, row, column]


def test_views_are_far_apart(opened) -> None:
    """Of twelve cameras around a room, four that see one spot can be a quarter turn and more apart."""
    _, query = choose_views(opened[1], opened[0])
    assert query.angle[0] == pytest.approx(0, abs=1e-5)
    assert query.angle[1] > 90
    assert query.angle[1:].min() > 30


def test_choice_is_repeatable(opened) -> None:
    first, again = (choose_views(opened[1], opened[0], seed=5) for _ in range(2))
    assert [v.index for v in first[0]] == [v.index for v in again[0]]
    np.testing.assert_array_equal(first[1].point, again[1].point)


def test_too_few_views_that_see_the_query_are_filled_up(opened) -> None:
    views, query = choose_views(opened[1], opened[0], n=11)
    assert len({view.index for view in views}) == len(views) == len(query.visible)
    assert query.visible[0]
    # Those that see it come first.
    assert query.visible.tolist() == sorted(query.visible.tolist(), reverse=True)


def test_scene_without_overlap_is_refused(opened, tmp_path) -> None:
    frames, correspondences = opened
    n, (h, w) = len(frames), correspondences.grid
    facts = correspondences.facts
    with Correspondences.create(tmp_path / "apart.h5", "rooms", "room", {"n": n, "h": h, "w": w}, facts) as file:
        file.frames_id = frames.frames_id
        file["overlap"][:] = np.eye(n)
    with Correspondences(tmp_path / "apart.h5") as apart, pytest.raises(DataError, match="overlap"):
        choose_views(apart, frames)


@pytest.mark.parametrize("seed", range(3))
def test_views_of_a_sparse_scene_show_what_they_observe(sparse_scene, seed: int) -> None:
    """Frames without depth: a view sees the query if and only if the model has an observation of it there."""
    with Frames(sparse_scene.frames) as frames, Correspondences(sparse_scene.correspondences) as correspondences:
        assert frames.sparse
        assert not frames["depth"][:].any()
        views, query = choose_views(correspondences, frames, n=4, seed=seed)
        overlap = correspondences["overlap"][:]
        (track,) = np.flatnonzero(np.isclose(frames["track"][:], query.point).all(axis=1))
        shows = frames["observation_track"][:] == track
        at = dict(zip(frames["observation_frame"][shows].tolist(), frames["observation_uv"][shows]))
    first, *others = [view.index for view in views]
    assert len({first, *others}) == 4
    assert all(min(overlap[first, i], overlap[i, first]) >= MIN_OVERLAP for i in others)
    assert query.visible.tolist() == [view.index in at for view in views]
    assert query.visible[:2].all()
    for view, uv, visible in zip(views, query.uv, query.visible):
        if visible:
            np.testing.assert_allclose(uv, at[view.index], atol=1e-4)  # the simulated model is exact
    assert query.angle[0] == pytest.approx(0, abs=1e-5)
    assert query.angle[1:].max() > 5


def test_sparse_views_without_an_observation_fill_up_and_are_not_visible(sparse_scene) -> None:
    """More views than observe the query: those come first, and the others do not see it."""
    with Frames(sparse_scene.frames) as frames, Correspondences(sparse_scene.correspondences) as correspondences:
        views, query = choose_views(correspondences, frames, n=20)
        height, width = frames.size
        inside = ((query.uv >= 0) & (query.uv < (width, height))).all(axis=1)
    assert len(views) > query.visible.sum()
    assert inside[query.visible].all()
    assert query.visible.tolist() == sorted(query.visible.tolist(), reverse=True)


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
    """Maps of one constant vector a view: the cosines are known."""
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
    turn = ortho_group.rvs(5, random_state=seed)
    moved = [2.5 * m @ turn + [1, 2, 3, 4, 5] for m in maps]
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
