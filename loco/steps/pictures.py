"""The pictures step: draw the similarity of a query patch to other views, and features as colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loco.records import Recipe
from loco.results.pictures.features import feature_maps
from loco.results.pictures.selection import choose_views
from loco.results.pictures.similarity import pca_colours, similarity_maps
from loco.storage import Correspondences, Features, Frames


def run(
    recipes: Mapping[str, Recipe],
    frames_path: Path,
    correspondences_path: Path,
    features_paths: Mapping[str, Path],
    titles: Mapping[str, str],
    count: int,
    similarity_out: Path,
    colours_out: Path,
) -> None:
    """Draw both pictures of a scene.

    Args:
        recipes: input file -> its recipe.
        frames_path, correspondences_path: files of the scene.
        features_paths: experiment -> its features.
        titles: experiment -> its title in the pictures.
        count: number of views to show.
        similarity_out, colours_out: PNG files to write; an SVG is written beside each.

    Raises:
        DataError: a file is damaged, or was not made as planned, or no views overlap sufficiently.
    """
    with (
        Frames(frames_path, recipes[str(frames_path)]) as frames,
        Correspondences(correspondences_path, recipes[str(correspondences_path)]) as patches,
    ):
        views, query = choose_views(patches, frames, n=count)
        maps = {}
        for experiment, path in features_paths.items():
            with Features(path, recipes[str(path)]) as features:
                features.require_frames(frames)
                maps[experiment] = feature_maps(features, views)
    similarity_maps(views, query, maps, titles, similarity_out.with_suffix(""))
    pca_colours(views, maps, titles, colours_out.with_suffix(""))
