"""Common style, panels, size and output of all figures. They are written as SVG and PNG; equal inputs give equal bytes.

Pyplot is not used, so no display is needed. An experiment has the same colour and marker in every figure, determined by
its position in ``titles`` (experiment -> title), which must contain all experiments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from loco.storage import atomic_path

PANELS = 3  # maximum number per row
WIDTH = 6.9  # inches: two columns of a paper
# The colour-blind-safe palette of Okabe and Ito, without yellow, which has too little contrast on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.family": "DejaVu Sans",  # included in matplotlib: the same on every machine
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


@contextmanager
def new_figure(stem: str | Path, width: float, height: float) -> Iterator[Figure]:
    """Create a figure, ``width`` x ``height`` inches; write ``stem``.svg and .png if the block raises no error."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            with atomic_path(f"{stem}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata=metadata)


def colour_and_marker(experiment: str, titles: Mapping[str, str]) -> tuple[str, str]:
    """Return the colour and marker of an experiment. Colours are repeated with other markers."""
    position = list(titles).index(experiment)
    return COLOURS[position % len(COLOURS)], MARKERS[(position + position // len(COLOURS)) % len(MARKERS)]


def legend(figure: Figure, experiments: Iterable[str], titles: Mapping[str, str]) -> None:
    """Draw the legend of the experiments above all panels, in as many columns as fit into the figure."""
    handles = [
        Line2D([], [], color=colour, marker=marker, label=titles[experiment])
        for experiment in experiments
        for colour, marker in [colour_and_marker(experiment, titles)]
    ]
    for columns in range(min(4, len(handles)), 0, -1):
        drawn = figure.legend(handles=handles, loc="outside upper center", ncols=columns)
        if columns == 1 or drawn.get_window_extent().width <= figure.bbox.width:
            return
        drawn.remove()


def panel_rows(count: int) -> int:
    """Return the number of rows that ``count`` panels take."""
    return max(1, ceil(count / PANELS))


def new_panels(figure: Figure, count: int, **shared_axes: bool) -> Iterator[Axes]:
    """Yield ``count`` axes, in rows of lengths as equal as possible."""
    rows = panel_rows(count)
    columns = max(1, ceil(count / rows))
    axes = figure.subplots(rows, columns, squeeze=False, **shared_axes).ravel()
    for unused in axes[count:]:
        unused.remove()
    for lowest in axes[:count][-columns:]:
        lowest.tick_params(labelbottom=True)
    return iter(axes[:count])


def plot_scale(unit: str) -> float:
    """Return the factor of a unit: fractions are plotted in percent."""
    return 100 if unit == "%" else 1


def axis_label(metric: str, unit: str) -> str:
    """Return the label of the axis of a metric, with its unit."""
    return f"{metric} (%)" if unit == "%" else f"{metric}\n({unit}, lower is better)"
