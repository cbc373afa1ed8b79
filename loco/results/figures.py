"""Figures of results, for papers and the report. Each is written as SVG and PNG; equal inputs give equal bytes.

Nothing here touches pyplot, so no display is needed. An experiment has the same colour and marker in every figure: that
of its place in ``titles`` (experiment -> what to call it), which all functions are given whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from loco.results.metrics import Metrics
from loco.results.tables import subject, summarise
from loco.results.views import FeatureMap, Query, View, joint_pca, similarities
from loco.storage import atomic_path

WIDTH = 6.9  # inches: two columns of a paper
# Okabe and Ito's colours, told apart by colour-blind readers; the yellow is left out, for it fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MATCH = "#00E5FF"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "figure.dpi": 100,
    "savefig.dpi": 250,
    "svg.hashsalt": "loco",
    "path.simplify": True,
}


def training_curve(logs: Mapping[str, Sequence[str | Path]], titles: Mapping[str, str], stem: str | Path) -> None:
    """Loss and validation mAP against the step.

    Args:
        logs: experiment -> the log.csv of each of its seeds (columns ``step``, ``loss`` and ``val_map``, blank where
            not measured, the loss so during a warm-up). Those without training are not in it.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    with new_figure(stem, WIDTH, 2.5) as figure:
        left, right = figure.subplots(1, 2)
        for experiment, paths in logs.items():
            colour, marker = _look(experiment, titles)
            for path in paths:
                log = pd.read_csv(path)
                loss, score = log.dropna(subset="loss"), log.dropna(subset="val_map")
                smooth = loss["loss"].rolling(max(1, len(loss) // 15), center=True, min_periods=1).mean()
                left.plot(loss["step"], loss["loss"], color=colour, alpha=0.25, linewidth=0.6)
                left.plot(loss["step"], smooth, color=colour)
                right.plot(score["step"], 100 * score["val_map"], color=colour, marker=marker)
        left.set(xlabel="step", ylabel="training loss", title="Loss: each step (faint) and running mean")
        right.set(xlabel="step", ylabel="mAP (%)", title="Validation: location-consistency mAP")
        left.set_xlim(right.get_xlim())
        _legend(figure, logs, titles)


def recall_against_angle(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Recall of pixel correspondence against the rotation between the two cameras, a panel a threshold.

    The image pairs are sorted by angle and cut into groups of equal number; a point is the mean recall of a group at
    its median angle, with the 95 % bootstrap band over its pairs. Several seeds are averaged pair by pair first.

    Args:
        metrics: metric files of ``pixel_correspondence``, of one split.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    metrics = list(metrics)
    bins, thresholds = metrics[0].settings["rotation_bins"], sorted(metrics[0].settings["thresholds"])
    main = thresholds.pop(len(thresholds) // 2)
    with new_figure(stem, WIDTH, 3.2) as figure:
        grid = figure.add_gridspec(max(1, len(thresholds)), 2, width_ratios=(2, 1))
        large = figure.add_subplot(grid[:, 0])
        small = [figure.add_subplot(grid[row, 1], sharex=large, sharey=large) for row in range(len(thresholds))]
        for threshold, axes in zip([main, *thresholds], [large, *small]):
            for experiment in _experiments(metrics, titles):
                angle, recall = _pairs([m for m in metrics if m.experiment == experiment], threshold)
                colour, marker = _look(experiment, titles)
                centre, mean, low, high = _binned(angle, recall)
                axes.fill_between(centre, 100 * low, 100 * high, color=colour, alpha=0.18, linewidth=0)
                axes.plot(centre, 100 * mean, color=colour, marker=marker, markersize=4 if axes is large else 3)
            axes.set(title=f"matches right within {threshold:g} px")
            for edge in bins[1:-1]:
                axes.axvline(edge, color="#999999", linewidth=0.6, linestyle=":", zorder=0)
        large.set(
            xlabel="rotation between the two cameras (degrees)", ylabel="recall (%)", xlim=(0, None), ylim=(0, None)
        )
        for axes in small[:-1]:
            axes.tick_params(labelbottom=False)
        figure.axes[-1].set_xlabel("rotation (degrees)")
        _legend(figure, _experiments(metrics, titles), titles)


def location_consistency_dots(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Location-consistency mAP with its interval, a row a condition, a dot an experiment.

    Args:
        metrics: metric files of ``location_consistency``, of one split.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    metrics = list(metrics)
    table = summarise(metrics, titles)
    conditions, experiments = list(table["condition"].unique()), _experiments(metrics, titles)
    with new_figure(stem, WIDTH, 0.8 + 0.14 * (len(experiments) + 1) * len(conditions)) as figure:
        axes = figure.subplots()
        for place, experiment in enumerate(experiments):
            own = table[table["experiment"] == experiment].set_index("condition").reindex(conditions)
            y = np.arange(len(conditions)) + 0.8 * ((place + 0.5) / len(experiments) - 0.5)
            colour, marker = _look(experiment, titles)
            axes.hlines(y, 100 * own["low"], 100 * own["high"], color=colour, linewidth=1.2)
            axes.plot(100 * own["value"], y, color=colour, marker=marker, linestyle="none")
        axes.set(xlabel="mAP (%)", ylim=(len(conditions) - 0.5, -0.5))
        axes.set_yticks(range(len(conditions)), conditions)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        for border in range(1, len(conditions)):
            axes.axhline(border - 0.5, color="#e6e6e6", linewidth=0.8)
        _legend(figure, experiments, titles)


def ablation_plot(metrics: Iterable[Metrics], titles: Mapping[str, str], title: str, stem: str | Path) -> None:
    """Scores of the variants of an experiment, a panel for each benchmark and a line for each condition.

    A point is the mean over the seeds with its 95 % bootstrap interval, a cross the score of one seed. Of several
    metrics (recall at several thresholds) the middle one is drawn.

    Args:
        metrics: metric files of all variants.
        titles: experiment -> name of the variant, in the order of the axis; if all are numbers the axis is one of them.
        title: what varies.
        stem: path of the figure without suffix.
    """
    benchmarks: dict[str, list[Metrics]] = {}
    for one in metrics:
        benchmarks.setdefault(one.benchmark, []).append(one)
    places, numeric = _places(list(titles.values()))
    with new_figure(stem, WIDTH, 2.9) as figure:
        for axes, (benchmark, own) in zip(figure.subplots(1, len(benchmarks), squeeze=False)[0], benchmarks.items()):
            metric = _draw_variants(axes, own, titles, places)
            axes.set(xlabel=title, ylabel=f"{metric} (%)", title=subject(benchmark).title)
            if numeric and 0 < 5 * min(places.values()) < max(places.values()):
                axes.set_xscale("log")
                axes.minorticks_off()
            axes.set_xticks(list(places.values()), list(places))
            axes.legend(fontsize=6.5)


def _draw_variants(
    axes: Axes, metrics: Sequence[Metrics], titles: Mapping[str, str], places: Mapping[str, float]
) -> str:
    """A line for each condition of a benchmark's middle metric, whose name is returned."""
    table = summarise(metrics, titles)
    names = [name for name in table["metric"].unique() if not name.startswith("median")]
    metric = names[len(names) // 2]
    for k, (condition, line) in enumerate(table[table["metric"] == metric].groupby("condition", sort=False)):
        x = [places[titles[experiment]] for experiment in line["experiment"]]
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        error = 100 * np.abs(line[["low", "high"]].to_numpy().T - line["value"].to_numpy())
        axes.errorbar(x, 100 * line["value"], error, color=colour, marker=marker, capsize=2, label=condition)
        seeds = [
            (places[titles[one.experiment]], 100 * row.value)
            for one in metrics
            for row in one.rows
            if (row.metric, row.condition) == (metric, condition) and row.value is not None
        ]
        axes.plot(*np.array(seeds).reshape(-1, 2).T, "x", color=colour, markersize=3)
    return metric


def _places(names: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Where the variants stand on the axis, and whether they are numbers."""
    try:
        return {name: float(name) for name in names}, True
    except ValueError:
        return {name: float(k) for k, name in enumerate(names)}, False


def similarity_maps(
    views: Sequence[View],
    query: Query,
    maps: Mapping[str, Sequence[FeatureMap]],
    titles: Mapping[str, str],
    stem: str | Path,
) -> None:
    """Where each experiment's features find a query patch in other views: photos above, a row of heat maps each.

    Args:
        views: the first holds the query.
        query: of :func:`loco.results.views.choose_views`.
        maps: experiment -> its maps of ``views``; their sizes may differ between experiments.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    with _gallery(stem, views, maps, titles, extra=0.55) as rows:
        for column, (axes, view) in enumerate(zip(rows[0], views)):
            axes.imshow(view.rgb)
            axes.set_title(_caption_of(query, column))
            _mark_truth(axes, query, column, view)
        for row, own in zip(rows[1:], maps.values()):
            heat = similarities(own, views, query)
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
    """Features as colours, by one PCA over all views: photos above, a row an experiment.

    Args:
        views: what to show.
        maps: experiment -> its maps of ``views``; their sizes may differ between experiments.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    with _gallery(stem, views, maps, titles) as rows:
        for axes, view in zip(rows[0], views):
            axes.imshow(view.rgb)
        for row, own in zip(rows[1:], maps.values()):
            colours = joint_pca([cells for cells, _ in own])
            for axes, picture, (_, (height, width)), view in zip(row, colours, own, views):
                axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
                axes.set(xlim=(-0.5, view.size[1] - 0.5), ylim=(view.size[0] - 0.5, -0.5))


def _caption_of(query: Query, column: int) -> str:
    if column == 0:
        return f"query, {query.distance[0]:.1f} m away"
    return f"{query.angle[column]:.0f}° apart, {query.distance[column]:.1f} m away"


def _mark_truth(axes: Axes, query: Query, column: int, view: View) -> None:
    """A square around the query, a ring around its place in another view that sees it."""
    if not query.visible[column]:
        return
    size = 0.07 * view.size[0]
    u, v = query.uv[column] - 0.5  # imshow puts the centre of the first pixel at 0
    for colour, width in (("black", 2.6), ("white", 1.3)):
        shape = (
            Rectangle((u - size, v - size), 2 * size, 2 * size, fill=False, ec=colour, lw=width)
            if column == 0
            else Circle((u, v), size, fill=False, ec=colour, lw=width)
        )
        axes.add_patch(shape)


def _mark_match(axes: Axes, heat: NDArray, query: Query, column: int) -> None:
    """A cross on the most similar pixel, and how far it is from the truth."""
    v, u = np.unravel_index(np.argmax(heat), heat.shape)
    for colour, width, size in (("black", 3.0, 8), (MATCH, 1.5, 7)):
        axes.plot(u, v, marker="x", color=colour, markeredgewidth=width, markersize=size)
    if query.visible[column]:
        error = np.hypot(u + 0.5 - query.uv[column, 0], v + 0.5 - query.uv[column, 1])
        axes.set_xlabel(f"best match {error:.0f} px off", fontsize=6.5, labelpad=2)
    else:
        axes.set_xlabel("not visible here", fontsize=6.5, labelpad=2)


def _marks() -> list[Line2D]:
    """What the marks of the similarity maps mean."""
    shape = {"linestyle": "none", "markerfacecolor": "none", "markeredgecolor": "black", "markersize": 7}
    return [
        Line2D([], [], marker="s", label="query patch", **shape),
        Line2D([], [], marker="o", label="the same place (truth)", **shape),
        Line2D([], [], marker="X", label="most similar pixel", **shape | {"markerfacecolor": MATCH}),
    ]


def _binned(angle: NDArray, recall: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Median angle, mean recall and its 95 % bootstrap bounds in groups of equal number, by angle."""
    if not len(angle):
        return (np.empty(0),) * 4
    groups = np.array_split(np.argsort(angle, kind="stable"), np.clip(len(angle) // 12, 1, 12))
    rng = np.random.default_rng([0])
    means = [recall[group[rng.integers(len(group), size=(1000, len(group)))]].mean(axis=1) for group in groups]
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    centre, mean = np.array([(np.median(angle[group]), recall[group].mean()) for group in groups]).T
    return centre, mean, low, high


def _pairs(metrics: Sequence[Metrics], threshold: int) -> tuple[NDArray, NDArray]:
    """Angle and recall of every image pair, averaged over the seeds; pairs without matches left out."""
    angle = np.array(metrics[0].items["angle"], dtype=float)
    recall = np.mean([np.array(m.items[f"recall@{threshold:g}px"], dtype=float) for m in metrics], axis=0)
    known = ~np.isnan(recall)
    return angle[known], recall[known]


def _experiments(metrics: Iterable[Metrics], titles: Mapping[str, str]) -> list[str]:
    present = {m.experiment for m in metrics}
    return [experiment for experiment in titles if experiment in present]


def _look(experiment: str, titles: Mapping[str, str]) -> tuple[str, str]:
    """Colour and marker of an experiment."""
    place = list(titles).index(experiment)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def _legend(figure: Figure, experiments: Iterable[str], titles: Mapping[str, str]) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker, label=titles[experiment])
        for experiment in experiments
        for colour, marker in [_look(experiment, titles)]
    ]
    for columns in range(min(4, len(handles)), 0, -1):  # as many as the figure is wide enough for
        legend = figure.legend(handles=handles, loc="outside upper center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


@contextmanager
def _gallery(
    stem: str | Path,
    views: Sequence[View],
    maps: Mapping[str, Sequence[FeatureMap]],
    titles: Mapping[str, str],
    extra: float = 0.0,
) -> Iterator[NDArray]:
    """Axes for pictures (1 + experiments, views): a row of photos, then a row an experiment, titled on the left.

    ``extra`` is the room in inches to leave on the right and, in all, below.
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


@contextmanager
def new_figure(stem: str | Path, width: float, height: float) -> Iterator[Figure]:
    """A new figure, ``width`` x ``height`` inches; written as ``stem``.svg and .png when the block ends well."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            with atomic_path(f"{stem}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata=metadata)
