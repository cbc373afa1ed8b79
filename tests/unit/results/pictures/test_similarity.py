"""Pictures are complete and equal in every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loco.results.pictures.features import feature_maps
from loco.results.pictures.selection import choose_views
from loco.results.pictures.similarity import pca_colours, similarity_maps
from loco.storage import Correspondences, Features, Frames

TITLES = {"place": "place & more", "absent": "not run", "colour": "colour"}


@pytest.fixture(scope="module")
def shown(scene):
    """Return views, query, and maps of two experiments at different resolutions."""
    with Frames(scene.frames) as frames, Correspondences(scene.correspondences) as correspondences:
        views, query = choose_views(correspondences, frames)
        maps = {}
        for name, path in scene.features.items():
            with Features(path) as features:
                maps[name] = feature_maps(features, views)
    assert maps["place"][0].cells.shape[:2] != maps["colour"][0].cells.shape[:2]
    return views, query, maps


def test_pictures_are_whole_and_alike_on_every_run(shown, draw_twice: Callable) -> None:
    views, query, maps = shown

    def draw(folder: Path) -> None:
        similarity_maps(views, query, maps, TITLES, folder / "similarity_maps")
        pca_colours(views, maps, TITLES, folder / "pca_colours")

    draw_twice(draw, "similarity_maps", "pca_colours")
