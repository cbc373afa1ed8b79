"""Visualisations of features: similarity maps of a query patch, and features as colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from loco.results.pictures.features import FeatureMap, joint_pca, similarities
from loco.results.pictures.selection import Query, View
from loco.results.plots.style import WIDTH, new_figure

MATCH = "#00E5FF"


def similarity_maps(
    views: Sequence[View],
    query: Query,
    maps: Mapping[str, Sequence[FeatureMap]],
    titles: Mapping[str, str],
    stem: str | Path,
) -> None:
    """Draw the similarity of a query patch to other views: a row of photos, then a row of heat maps per experiment.

    Args:
        views: views of the scene; the first contains the query.
        query: result of :func:`loco.results.pictures.selection.choose_views`.
        maps: experiment -> its maps of ``views``; their sizes may differ between experiments.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    with _gallery(stem, views, maps, titles, extra=0.55) as rows:
        for column, (axes, view) in enumerate(zip(rows[0], views)):
            axes.imshow(view.rgb)
            axes.set_title(_caption_of(query, column))
            _mark_truth(axes, query, column, view)
        for row, feature_maps in zip(rows[1:], maps.values()):
            heat = similarities(feature_maps, views, query)
            low, high = np.percentile(heat, 1), np.max(heat)
            for column, (axes, values, view) in enumerate(zip(row, heat, views)):
                image = axes.imshow(values, cmap="magma", vmin=low, vmax=high)
                _mark_truth(axes, query, column, view)
                if column:
                    _mark_match(axes, values, query, column)
            bar = row[-1].inset_axes([1.05, 0, 0.05, 1])
            bar.figure.colorbar(image, cax=bar, label="cosine similarity")
        rows[0, 0].figure.legend(handles=_marks(), loc="outside lower center", ncols=3)


def pca_colours(
    views: Sequence[View], maps: Mapping[str, Sequence[FeatureMap]], titles: Mapping[str, str], stem: str | Path
) -> None:
    """Draw features as colours, by one PCA over all views: a row of photos, then one row per experiment.

    Args:
        views: views of the scene.
        maps: experiment -> its maps of ``views``; their sizes may differ between experiments.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    with _gallery(stem, views, maps, titles) as rows:
        for axes, view in zip(rows[0], views):
            axes.imshow(view.rgb)
        for row, feature_maps in zip(rows[1:], maps.values()):
            colours = joint_pca([cells for cells, _ in feature_maps])
            for axes, picture, (_, (height, width)), view in zip(row, colours, feature_maps, views):
                axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
                axes.set(xlim=(-0.5, view.size[1] - 0.5), ylim=(view.size[0] - 0.5, -0.5))


def _caption_of(query: Query, column: int) -> str:
    if column == 0:
        return f"query, {query.distance[0]:.1f} m away"
    return f"{query.angle[column]:.0f}° apart, {query.distance[column]:.1f} m away"


def _mark_truth(axes: Axes, query: Query, column: int, view: View) -> None:
    """Draw a square around the query, or a ring around its position in another view in which it is visible."""
    if not query.visible[column]:
        return
    size = 0.07 * view.size[0]
    u, v = query.uv[column] - 0.5  # imshow centres the first pixel at 0
    for colour, width in (("black", 2.6), ("white", 1.3)):
        shape = (
            Rectangle((u - size, v - size), 2 * size, 2 * size, fill=False, ec=colour, lw=width)
            if column == 0
            else Circle((u, v), size, fill=False, ec=colour, lw=width)
        )
        axes.add_patch(shape)


def _mark_match(axes: Axes, heat: NDArray, query: Query, column: int) -> None:
    """Draw a cross on the most similar pixel, and print its error."""
    v, u = np.unravel_index(np.argmax(heat), heat.shape)
    for colour, width, size in (("black", 3.0, 8), (MATCH, 1.5, 7)):
        axes.plot(u, v, marker="x", color=colour, markeredgewidth=width, markersize=size)
    if query.visible[column]:
        error = np.hypot(u + 0.5 - query.uv[column, 0], v + 0.5 - query.uv[column, 1])
        axes.set_xlabel(f"error of the match: {error:.0f} px", fontsize=6.5, labelpad=2)
    else:
        axes.set_xlabel("not visible here", fontsize=6.5, labelpad=2)


def _marks() -> list[Line2D]:
    """Return the legend of the marks of the similarity maps."""
    shape = {"linestyle": "none", "markerfacecolor": "none", "markeredgecolor": "black", "markersize": 7}
    return [
        Line2D([], [], marker="s", label="query patch", **shape),
        Line2D([], [], marker="o", label="ground truth", **shape),
        Line2D([], [], marker="X", label="most similar pixel", **shape | {"markerfacecolor": MATCH}),
    ]


@contextmanager
def _gallery(
    stem: str | Path,
    views: Sequence[View],
    maps: Mapping[str, Sequence[FeatureMap]],
    titles: Mapping[str, str],
    extra: float = 0.0,
) -> Iterator[NDArray]:
    """Yield axes for pictures (1 + experiments, views): a row of photos, then one row per experiment, with its title.

    ``extra`` is the space, in inches, to leave on the right and in total below.
    """
    height, width = views[0].size
    tall = (WIDTH - 0.4 - 1.3 * extra) / len(views) * height / width + 0.06 + 0.25 * extra
    with new_figure(stem, WIDTH, 0.8 * extra + tall * (1 + len(maps))) as figure:
        figure.get_layout_engine().set(hspace=0, wspace=0, w_pad=0.03, h_pad=0.03)
        rows = figure.subplots(1 + len(maps), len(views), squeeze=False)
        for axes in rows.flat:
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        for axes, title in zip(rows[:, 0], ["photo", *(titles[experiment] for experiment in maps)]):
            axes.set_ylabel(fill(title, 16))
        yield rows
