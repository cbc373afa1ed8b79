"""The label_views step: draw images of a scene beside the maps of its objects and categories."""

from __future__ import annotations

from pathlib import Path

from loco.records import Recipe
from loco.results.pictures.labels import label_views
from loco.storage import Frames, Labels


def run(
    frames_recipe: Recipe, labels_recipe: Recipe, frames_path: Path, labels_path: Path, stem: Path, views: int
) -> None:
    """Draw the labels of a scene to ``stem``.svg and ``stem``.png.

    Raises:
        DataError: a file is damaged, or was not made as planned, or the two describe different frames.
    """
    with Frames(frames_path, frames_recipe) as frames, Labels(labels_path, labels_recipe) as labels:
        label_views(frames, labels, stem, n=views)
