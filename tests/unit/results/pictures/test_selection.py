"""The query patch and the views that figures show."""

from __future__ import annotations

import numpy as np
import pytest

from loco.errors import DataError
from loco.results.pictures.selection import MIN_OVERLAP, choose_views
from loco.storage import Correspondences, Frames


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
        # Brute force: a ray from the camera to the point, in homogeneous coordinates, compared with the depth of its
        # pixel.
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
    """Of twelve cameras around a room, four that see one point can differ by a quarter turn and more."""
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
    # Views that see it come first.
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
    """For frames without depth, a view sees the query if and only if the model has an observation of it there."""
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
    """More views are requested than observe the query: those come first, and the others do not see it."""
    with Frames(sparse_scene.frames) as frames, Correspondences(sparse_scene.correspondences) as correspondences:
        views, query = choose_views(correspondences, frames, n=20)
        height, width = frames.size
        inside = ((query.uv >= 0) & (query.uv < (width, height))).all(axis=1)
    assert len(views) > query.visible.sum()
    assert inside[query.visible].all()
    assert query.visible.tolist() == sorted(query.visible.tolist(), reverse=True)
