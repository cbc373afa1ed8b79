"""Plots of the scores of a benchmark on a split: pure functions of metric files.

The catalogue of benchmarks refers to the functions by their names in :data:`FIGURES`. Their arguments are the metric
files of one benchmark on one split, ``titles`` and ``stem``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from loco.evaluation.intervals import FRACTION, Design, Item
from loco.evaluation.result import Sample
from loco.results.metrics import Metrics, samples_of
from loco.results.plots.style import (
    WIDTH,
    axis_label,
    colour_and_marker,
    legend,
    new_figure,
    new_panels,
    panel_rows,
    plot_scale,
)
from loco.results.tables.summary import summarise

# recall@5, MMA@3px, or AUC@10deg, rigid
THRESHOLD = re.compile(r"^(?P<name>.+)@(?P<threshold>\d+(?:\.\d+)?)(?P<unit>[a-z]*)(?P<rest>.*)$")


def recall_against_angle(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Plot the recall of pixel correspondence over the rotation between the cameras, with one panel per threshold.

    The image pairs are sorted by angle and divided into groups of equal size. A point is the mean recall of a group
    over all seeds, at its median angle. The bands are 95 % confidence intervals, for the population of the table.

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
                pairs = _pairs([m for m in metrics if m.experiment == experiment], threshold)
                colour, marker = colour_and_marker(experiment, titles)
                centre, mean, low, high = _binned(*pairs)
                axes.fill_between(centre, 100 * low, 100 * high, color=colour, alpha=0.18, linewidth=0)
                axes.plot(centre, 100 * mean, color=colour, marker=marker, markersize=4 if axes is large else 3)
            axes.set(title=f"correct within {threshold:g} px")
            for edge in bins[1:-1]:
                axes.axvline(edge, color="#999999", linewidth=0.6, linestyle=":", zorder=0)
        large.set(
            xlabel="rotation between the two cameras (degrees)", ylabel="recall (%)", xlim=(0, None), ylim=(0, None)
        )
        for axes in small[:-1]:
            axes.tick_params(labelbottom=False)
        figure.axes[-1].set_xlabel("rotation (degrees)")
        legend(figure, _experiments(metrics, titles), titles)


def _binned(angle: NDArray, recall: NDArray, pairs: Sequence[Item]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return median angle, mean recall and bounds of its 95 % confidence interval, in groups of equal size by angle.

    Args:
        angle: (m,), rotation between the cameras of each image pair, degrees.
        recall: (s, m), recall of each pair for s seeds.
        pairs: the items of the m pairs.
    """
    if not len(angle):
        return (np.empty(0),) * 4
    level, found = Design(pairs).level, []
    for group in np.array_split(np.argsort(angle, kind="stable"), np.clip(len(angle) // 12, 1, 12)):
        values = recall[:, group]
        interval = Design([pairs[n] for n in group]).interval(values, level, bounds=FRACTION)
        found.append((np.median(angle[group]), values.mean(), *(interval[:2] if interval else (np.nan, np.nan))))
    return tuple(np.array(found).T)


def _pairs(metrics: Sequence[Metrics], threshold: int) -> tuple[NDArray, NDArray, list[Item]]:
    """Return the angle (m,), the recall (s, m) of s seeds and the item of every image pair that has matches."""
    items = metrics[0].items
    angle = np.array(items["angle"], dtype=float)
    recall = np.array([m.items[f"recall@{threshold:g}px"] for m in metrics], dtype=float)
    known = ~np.isnan(recall).any(axis=0)
    pairs = [Item(*pair) for pair in zip(items["scene"], zip(items["a"], items["b"]))]
    return angle[known], recall[:, known], [pairs[n] for n in np.flatnonzero(known)]


def dots(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Plot scores with their intervals: one panel per metric, one row per condition, one dot per experiment.

    For a metric at more than three thresholds (recall@1, @5, ...), the first, the middle and the last are plotted.

    Args:
        metrics: metric files of one benchmark.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    metrics = list(metrics)
    table = summarise(metrics, titles)
    names, experiments = _thresholds_to_plot(list(table["metric"].unique())), _experiments(metrics, titles)
    conditions = list(table.loc[table["metric"].isin(names), "condition"].unique())
    height = 0.4 + 0.11 * (len(experiments) + 1) * len(conditions)
    with new_figure(stem, WIDTH, 0.4 + height * panel_rows(len(names))) as figure:
        for axes, name in zip(new_panels(figure, len(names), sharey=True), names):
            lines = table[table["metric"] == name]
            _draw_dots(axes, lines, conditions, experiments, titles)
            axes.set_xlabel(axis_label(name, lines["unit"].iloc[0]))
        legend(figure, experiments, titles)


def _draw_dots(
    axes: Axes, table: pd.DataFrame, conditions: list[str], experiments: list[str], titles: Mapping[str, str]
) -> None:
    scale = plot_scale(table["unit"].iloc[0])
    for row, experiment in enumerate(experiments):
        lines = table[table["experiment"] == experiment].set_index("condition").reindex(conditions)
        y = np.arange(len(conditions)) + 0.8 * ((row + 0.5) / len(experiments) - 0.5)
        colour, marker = colour_and_marker(experiment, titles)
        axes.hlines(y, scale * lines["low"], scale * lines["high"], color=colour, linewidth=1.2)
        axes.plot(scale * lines["value"], y, color=colour, marker=marker, linestyle="none")
    axes.set_ylim(len(conditions) - 0.5, -0.5)
    axes.set_yticks(range(len(conditions)), conditions)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for border in range(1, len(conditions)):
        axes.axhline(border - 0.5, color="#e6e6e6", linewidth=0.8)


def recall_at_k(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Plot the recall over the number of retrieved images: one panel per descriptor, one line per experiment.

    Args:
        metrics: metric files of ``place_recognition``.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    _by_threshold(metrics, titles, stem, "recall", "number of retrieved images, k", "recall@k (%)")


def matching_accuracy(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Plot the mean matching accuracy over the error threshold: one panel per condition, one line per experiment.

    Args:
        metrics: metric files of ``homography``.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    _by_threshold(metrics, titles, stem, "MMA", "error threshold (px)", "mean matching accuracy (%)")


def _by_threshold(
    metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path, family: str, xlabel: str, ylabel: str
) -> None:
    """Plot the scores ``family``@threshold over the threshold, with the bands of their intervals."""
    metrics = list(metrics)
    table = summarise(metrics, titles)
    parts = table["metric"].str.extract(THRESHOLD.pattern)
    table = table.assign(threshold=parts["threshold"].astype(float), panel=table["condition"] + parts["rest"])
    table = table[parts["name"] == family].sort_values("threshold", kind="stable")
    panels = list(table["panel"].unique())
    with new_figure(stem, WIDTH, 0.6 + 2.0 * panel_rows(len(panels))) as figure:
        for axes, panel in zip(new_panels(figure, len(panels), sharex=True, sharey=True), panels):
            for experiment, lines in table[table["panel"] == panel].groupby("experiment", sort=False):
                colour, marker = colour_and_marker(str(experiment), titles)
                bounds = 100 * lines["low"], 100 * lines["high"]
                axes.fill_between(lines["threshold"], *bounds, color=colour, alpha=0.18, linewidth=0)
                axes.plot(lines["threshold"], 100 * lines["value"], color=colour, marker=marker)
            axes.set_title(panel)
            axes.set_xticks(table["threshold"].unique())
        figure.supxlabel(xlabel, fontsize="medium")
        figure.supylabel(ylabel, fontsize="medium")
        legend(figure, _experiments(metrics, titles), titles)


def error_curves(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Plot the cumulative distribution of errors over image pairs.

    For relative poses, there is one row of panels per method: rotation on the left, translation (or its direction, for
    a method without scale) on the right. For pixel correspondences, there is one panel, which shows the median error of
    the matches of each pair that has matches. A pair has an infinite error if its pose could not be estimated, or if at
    least half of its matches are of points behind the camera, so a curve ends at the fraction of the other pairs. Seeds
    are pooled.

    Args:
        metrics: metric files of ``relative_pose`` or of ``pixel_correspondence``.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    metrics = list(metrics)
    rows = _rows_of_errors(metrics)
    with new_figure(stem, WIDTH, 0.6 + 2.2 * max(1, len(rows))) as figure:
        grid = figure.subplots(max(1, len(rows)), max(map(len, rows.values()), default=1), squeeze=False, sharey=True)
        for (title, panels), row in zip(rows.items(), grid):
            for axes, (label, errors_of) in zip(row, panels.items()):
                for experiment in _experiments(metrics, titles):
                    errors = errors_of([m for m in metrics if m.experiment == experiment])
                    colour, _ = colour_and_marker(experiment, titles)
                    axes.plot(*_cumulative(errors), color=colour, drawstyle="steps-post")
                axes.set(xlabel=label, xscale="log", ylim=(0, 100), title=title)
            row[0].set_ylabel("pairs with a smaller error (%)")
        legend(figure, _experiments(metrics, titles), titles)


def _rows_of_errors(metrics: Sequence[Metrics]) -> dict[str, dict[str, Callable[[Sequence[Metrics]], NDArray]]]:
    """Return title of a row of panels -> label of an axis -> function that returns the errors of metric files."""
    if metrics[0].benchmark == "pixel_correspondence":
        return {"": {"median error of the matches (px)": _median_errors}}
    methods = dict.fromkeys(method for m in metrics for method in m.items["method"])
    return {
        method: {
            label: partial(_errors, method=method, column=column) for column, label in _kinds_of_error(metrics, method)
        }
        for method in methods
    }


def _median_errors(metrics: Sequence[Metrics]) -> NDArray[np.float64]:
    """Return the median errors of pairs and seeds with matches; infinite if at least half are behind the camera."""
    rows = [row for m in metrics for row in zip(m.items["median_error"], m.items["n_matches"])]
    return np.array([np.inf if error is None else error for error, matches in rows if matches])


def _kinds_of_error(metrics: Sequence[Metrics], method: str) -> list[tuple[str, str]]:
    """Return the two columns of items to plot for a method, and the labels of their axes."""
    scaled = any(np.isfinite(_errors([m], method, "translation_error")).any() for m in metrics)
    translation = ("translation_error", "error of the translation (m)")
    direction = ("direction_error", "error of the direction of the translation (deg)")
    return [("rotation_error", "error of the rotation (deg)"), translation if scaled else direction]


def _errors(metrics: Sequence[Metrics], method: str, column: str) -> NDArray[np.float64]:
    """Return the errors of a method for all pairs and seeds; infinite without an estimate."""
    return np.array(
        [
            np.inf if error is None else error
            for m in metrics
            for error, of in zip(m.items[column], m.items["method"])
            if of == method
        ]
    )


def _cumulative(errors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the finite errors, sorted, and the percentage of all errors that are at most as large.

    Errors of 0 cannot be shown on a logarithmic axis and are replaced by a millionth.
    """
    finite = np.sort(errors[np.isfinite(errors)])
    return np.maximum(finite, 1e-6), 100 * np.arange(1, len(finite) + 1) / max(1, len(errors))


def per_scene_spread(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Plot the benchmark's first metric for each scene: one dot per scene, one row per experiment.

    The condition is "all" if the benchmark has it, otherwise the first one. The vertical line is the mean over the
    scenes. Seeds are averaged per scene first; a scene that lacks the value of any seed is left out.

    Args:
        metrics: metric files of one benchmark, whose items name their ``scene``.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    metrics = list(metrics)
    experiments = _experiments(metrics, titles)
    scenes = _scene_samples(metrics[0])
    sample = next(iter(scenes.values()), Sample("score", "no items", [], []))
    with new_figure(stem, WIDTH, 0.7 + 0.3 * len(experiments)) as figure:
        axes = figure.subplots()
        for row, experiment in enumerate(experiments):
            runs = [
                {scene: lines.value for scene, lines in _scene_samples(m).items()}
                for m in metrics
                if m.experiment == experiment
            ]
            scores = plot_scale(sample.unit) * pd.DataFrame(runs, dtype=float).mean(skipna=False).to_numpy()
            scores = scores[np.isfinite(scores)]
            colour, marker = colour_and_marker(experiment, titles)
            axes.plot(scores, np.full(len(scores), row), color=colour, marker=marker, linestyle="none", alpha=0.6)
            if len(scores):
                axes.vlines(scores.mean(), row - 0.35, row + 0.35, color=colour, linewidth=1.2)
        axes.set_yticks(range(len(experiments)), [titles[experiment] for experiment in experiments])
        axes.set(
            ylim=(len(experiments) - 0.5, -0.5),
            xlabel=axis_label(sample.metric, sample.unit),
            title=f"{sample.condition} (number of scenes: {len(scenes)})",
        )


def _scene_samples(metrics: Metrics) -> dict[str, Sample]:
    """Return, for each scene, the first sample with the condition "all", or else its first sample."""
    scenes = metrics.items["scene"]
    found = {}
    for scene in dict.fromkeys(scenes):
        chosen = [n for n, of in enumerate(scenes) if of == scene]
        items = {name: [column[n] for n in chosen] for name, column in metrics.items.items()}
        samples = samples_of(replace(metrics, items=items))
        found[scene] = next((sample for sample in samples if sample.condition == "all"), samples[0])
    return found


def _experiments(metrics: Iterable[Metrics], titles: Mapping[str, str]) -> list[str]:
    present = {m.experiment for m in metrics}
    return [experiment for experiment in titles if experiment in present]


def _thresholds_to_plot(names: list[str]) -> list[str]:
    """Return the names of metrics; for a metric at more than three thresholds, only the first, middle and last."""
    families: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        parts = THRESHOLD.match(name)
        family = parts.group("name", "unit", "rest") if parts else (name,)
        families.setdefault(family, []).append(name)
    plotted = [
        family if len(family) <= 3 else [family[0], family[len(family) // 2], family[-1]]
        for family in families.values()
    ]
    return [name for family in plotted for name in family]


# Name in the catalogue of benchmarks -> function.
FIGURES: dict[str, Callable[[Iterable[Metrics], Mapping[str, str], str | Path], None]] = {
    "dots": dots,
    "error_curves": error_curves,
    "matching_accuracy": matching_accuracy,
    "per_scene_spread": per_scene_spread,
    "recall_against_angle": recall_against_angle,
    "recall_at_k": recall_at_k,
}
