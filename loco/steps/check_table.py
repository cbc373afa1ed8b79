"""The check_table step: write a table of the checks of all scenes, including broken ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.records import Recipe
from loco.results.plots.checks import plot_geometry
from loco.results.tables.checks import write_checks
from loco.storage import Manifest, prepared_bytes, read_manifest

Sizes = Mapping[str, Mapping[str, int]]  # dataset -> height, width, every, stride


def run(
    manifest_paths: Sequence[Path], recipes: Mapping[str, Recipe], sizes: Sizes, out: Path, figure: Path | None = None
) -> None:
    """Write the table of the checks and plot the geometric checks.

    Args:
        manifest_paths: manifests of all scenes.
        recipes: dataset -> the recipe of its manifests.
        sizes: dataset -> settings that determine the size on disk of its frames and correspondences.
        out: CSV to write; Markdown and HTML tables are written beside it.
        figure: SVG to write; a PNG is written beside it.

    Raises:
        DataError: a manifest is damaged, or was not made as planned.
    """
    manifests = read_manifests(manifest_paths, recipes)
    estimates = {manifest.key: _prepared_bytes(manifest, sizes[manifest.key[0]]) for manifest in manifests}
    contents = {manifest.key: manifest.content for manifest in manifests}
    write_checks(contents, estimates, out.with_suffix(""))
    if figure is not None:
        plot_geometry(contents, figure.with_suffix(""))


def read_manifests(paths: Sequence[Path], recipes: Mapping[str, Recipe]) -> list[Manifest]:
    """Read the manifests of all scenes, each checked against the recipe of its dataset."""
    return [read_manifest(path, recipes[path.parent.name]) for path in paths]


def _prepared_bytes(manifest: Manifest, size: Mapping[str, int]) -> int:
    images = len(range(manifest.content["images"])[:: size["every"]])
    return prepared_bytes(images, (size["height"], size["width"]), size["stride"])
