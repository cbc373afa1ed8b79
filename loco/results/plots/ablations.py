"""Plots of ablations: the scores of the variants of an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from loco.evaluation.catalogue import BENCHMARKS
from loco.results.metrics import Metrics
from loco.results.plots.style import COLOURS, MARKERS, WIDTH, axis_label, new_figure, new_panels, panel_rows, plot_scale
from loco.results.tables.summary import summarise


def ablation_plot(metrics: Iterable[Metrics], titles: Mapping[str, str], title: str, stem: str | Path) -> None:
    """Plot the scores of the variants of an experiment, with one panel per benchmark and one line per condition.

    A point is the value over all seeds with its 95 % confidence interval; a cross is the score of one seed
    (deterministic extractors have none). If a benchmark has several metrics, such as recall at several thresholds, the
    middle one is plotted: of the fractions if there are any, otherwise of the errors.

    Args:
        metrics: metric files of all variants.
        titles: experiment -> name of the variant, in the order of the axis; if all names are numbers, the axis is
            numeric.
        title: name of the quantity that varies, for the axis.
        stem: path of the figure without suffix.
    """
    benchmarks: dict[str, list[Metrics]] = {}
    for one in metrics:
        benchmarks.setdefault(one.benchmark, []).append(one)
    positions, numeric = _positions(list(titles.values()))
    with new_figure(stem, WIDTH, 3.1 * panel_rows(len(benchmarks))) as figure:
        for axes, (benchmark, runs) in zip(new_panels(figure, len(benchmarks)), benchmarks.items()):
            metric, unit = _draw_variants(axes, runs, titles, positions)
            axes.set(xlabel=title, ylabel=axis_label(metric, unit), title=BENCHMARKS[benchmark].title)
            if numeric and 0 < 5 * min(positions.values()) < max(positions.values()):
                axes.set_xscale("log")
                axes.minorticks_off()
            axes.set_xticks(list(positions.values()), list(positions))
            axes.legend(fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1)


def _draw_variants(
    axes: Axes, metrics: Sequence[Metrics], titles: Mapping[str, str], positions: Mapping[str, float]
) -> tuple[str, str]:
    """Plot a line per condition of a benchmark's middle metric, and return its name and unit."""
    table = summarise(metrics, titles)
    fractions = table["unit"] == "%"
    names = list(table.loc[fractions if fractions.any() else ~fractions, "metric"].unique())
    metric = names[len(names) // 2]
    table = table[table["metric"] == metric]
    unit = table["unit"].iloc[0]
    for k, (condition, line) in enumerate(table.groupby("condition", sort=False)):
        x = [positions[titles[experiment]] for experiment in line["experiment"]]
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        error = plot_scale(unit) * np.abs(line[["low", "high"]].to_numpy().T - line["value"].to_numpy())
        axes.errorbar(
            x, plot_scale(unit) * line["value"], error, color=colour, marker=marker, capsize=2, label=condition
        )
        seeds = [
            (positions[titles[one.experiment]], plot_scale(unit) * row.value)
            for one in metrics
            for row in one.rows
            if (row.metric, row.condition) == (metric, condition) and row.value is not None and one.seed is not None
        ]
        axes.plot(*np.array(seeds).reshape(-1, 2).T, "x", color=colour, markersize=3)
    return metric, unit


def _positions(names: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Return the positions of the variants on the axis, and whether they are numbers."""
    try:
        positions = {name: float(name) for name in names}
    except ValueError:
        positions = {}
    if positions and np.isfinite(list(positions.values())).all():  # `inf` has no position on a numeric axis
        return positions, True
    return {name: float(k) for k, name in enumerate(names)}, False
