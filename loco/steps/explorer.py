"""The explorer step: write a page that compares the features of a scene's patches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from loco.records import Recipe
from loco.results.explorer.page import write_page
from loco.results.explorer.scene import scene_content
from loco.storage import Correspondences, Features, Frames


def run(
    recipes: Mapping[str, Recipe],
    frames_path: Path,
    correspondences_path: Path,
    features_paths: Mapping[str, Path],
    titles: Mapping[str, str],
    count: int,
    out: Path,
) -> None:
    """Write the page of a scene.

    Args:
        recipes: input file -> its recipe.
        frames_path, correspondences_path: files of the scene.
        features_paths: experiment -> its features.
        titles: experiment -> its title in the page.
        count: number of views to show.
        out: HTML file to write.

    Raises:
        DataError: a file is damaged or was not made as planned, or no patch has a 3D point.
    """
    with ExitStack() as files:
        frames = files.enter_context(Frames(frames_path, recipes[str(frames_path)]))
        patches = files.enter_context(Correspondences(correspondences_path, recipes[str(correspondences_path)]))
        features = {
            experiment: files.enter_context(Features(path, recipes[str(path)]))
            for experiment, path in features_paths.items()
        }
        write_page(scene_content(frames, patches, features, titles, count), out)
