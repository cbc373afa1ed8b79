"""The content of a page, from the files of a scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loco.errors import DataError
from loco.geometry.cameras import project
from loco.geometry.sampling import sample_features
from loco.results.explorer import scene as scene_module
from loco.results.explorer.compression import similarities
from loco.results.explorer.scene import scene_content
from loco.storage import Correspondences, Features, Frames

TITLES = {"place": "place", "colour": "colour"}


def test_views_and_points_are_those_of_the_files(content, opened) -> None:
    frames, correspondences, _ = opened
    assert len(content.views) == 8
    assert content.available == 12
    assert 0.5 < content.coverage <= 1
    points = content.geometry.points.reshape(8, 24, 30, 3)
    for k, view in enumerate(content.views):
        assert view.name == frames.names[view.index]
        np.testing.assert_array_equal(view.rgb, frames["rgb"][view.index])
        valid = correspondences["valid"][view.index]
        np.testing.assert_array_equal(points[k][valid], correspondences["points"][view.index][valid])
        np.testing.assert_array_equal(content.geometry.valid.reshape(8, 24, 30)[k], valid)
        assert view.centre(0) == (2, 2)
        assert view.centre(24 * 30 - 1) == (118, 94)


def test_visible_places_are_in_front_of_what_the_depth_shows(content, opened) -> None:
    frames, *_ = opened
    geometry = content.geometry
    for k, view in enumerate(content.views):
        uv, z = project(geometry.points.astype(float), geometry.intrinsics[k], geometry.poses[k])
        inside = (z > 0) & (uv >= 0).all(axis=1) & (uv < (120, 96)).all(axis=1)
        column, row = uv[inside].astype(int).T
        depth = frames["depth"][view.index][row, column]
        visible = geometry.visible[:, k]
        assert not visible[~inside].any()
        # A pixel's depth differs from the interpolated one, which decides, only at edges and slanted surfaces.
        agrees = visible[inside] == (geometry.valid[inside] & (np.abs(depth - z[inside]) < 0.05))
        assert agrees.mean() > 0.95


def test_features_are_read_at_the_centres_of_the_patches(content, opened) -> None:
    """The colour features have half the resolution of the patches."""
    features = opened[2]["colour"]
    maps = torch.from_numpy(features["features"][content.views[3].index].astype(np.float32))
    centres = torch.tensor([content.views[3].centre(patch) for patch in range(720)])
    expected = sample_features(maps, centres, features.extent).numpy()
    own = slice(3 * 720, 4 * 720)
    found = similarities(content.extractors[1].codes, np.arange(3 * 720, 3 * 720 + 5))[:, own]
    assert np.abs(found - expected[:5] @ expected.T).max() <= content.extractors[1].fidelity.rounding + 1e-5


def test_of_a_fine_grid_every_second_row_and_column_is_shown(opened, monkeypatch) -> None:
    monkeypatch.setattr(scene_module, "PATCHES", 300)
    content = scene_content(*opened, TITLES, count=3)
    view = content.views[0]
    assert view.grid == (12, 15)
    correspondences = opened[1]
    centres = [view.centre(patch) for patch in range(180)]
    assert centres[0] == (6, 6)  # patch (1, 1) of 4 x 4 pixels
    expected = correspondences["points"][view.index][1::2, 1::2].reshape(-1, 3)
    valid = correspondences["valid"][view.index][1::2, 1::2].ravel()
    np.testing.assert_array_equal(content.geometry.points[:180][valid], expected[valid])
    np.testing.assert_array_equal(content.geometry.valid[:180], valid)


def test_sparse_scene_has_the_places_of_its_model(sparse_scene, tmp_path) -> None:
    with Frames(sparse_scene.frames) as frames, Correspondences(sparse_scene.correspondences) as correspondences:
        sizes = {"n": len(frames), "h": 24, "w": 32, "c": 5}
        maps = np.random.default_rng(0).normal(size=tuple(sizes.values()))
        maps /= np.linalg.norm(maps, axis=-1, keepdims=True)
        with Features.create(
            tmp_path / "f.h5", frames.dataset, frames.scene, sizes, {"extent": (96, 128)}, frames_id=frames.content_id
        ) as file:
            file["features"][:] = maps
        with Features(tmp_path / "f.h5") as features:
            content = scene_content(frames, correspondences, {"random": features}, {"random": "random"}, count=6)
        geometry = content.geometry
        assert geometry.unit == "units"  # no configuration states a scale
        assert geometry.valid.any()
        assert not geometry.valid.all()
        observing = {
            (int(frame), tuple(frames["track"][track].astype(np.float32)))
            for frame, track in zip(frames["observation_frame"][:], frames["observation_track"][:])
        }
        for patch in np.flatnonzero(geometry.valid)[::50]:
            for k, view in enumerate(content.views):
                if geometry.visible[patch, k]:
                    assert (view.index, tuple(geometry.points[patch])) in observing


def test_files_of_other_frames_are_refused(opened, sparse_scene) -> None:
    frames, _, features = opened
    with Correspondences(sparse_scene.correspondences) as other, pytest.raises(DataError, match="another scene"):
        scene_content(frames, other, features, TITLES)
