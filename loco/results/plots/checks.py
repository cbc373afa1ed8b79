"""Plot of the geometric self-check of raw scenes."""

from __future__ import annotations

from pathlib import Path

from loco.geometry.suspects import MIN_CONSISTENCY
from loco.results.plots.style import COLOURS, WIDTH, new_figure
from loco.results.tables.checks import Manifests

AXES = {
    "consistency": "consistency of depth and poses",
    "overlap": "overlap of a frame with its best neighbour",
    "error_cm": "median disagreement (cm)",
}


def plot_geometry(manifests: Manifests, stem: str | Path) -> None:
    """Draw ``stem``.svg and ``stem``.png: the geometric self-check of all scenes, with one panel per quantity.

    A scene that was not compared has no point. Crosses mark scenes with a detected error.
    """
    found = [manifest.get("geometry", {}) for manifest in manifests.values()]
    datasets = list(dict.fromkeys(dataset for dataset, _ in manifests))
    with new_figure(stem, WIDTH, 2.6) as figure:
        for axes, (key, label) in zip(figure.subplots(1, len(AXES)), AXES.items()):
            for k, ((dataset, _), numbers) in enumerate(zip(manifests, found), start=1):
                if numbers.get(key) is not None:
                    colour = COLOURS[datasets.index(dataset) % len(COLOURS)]
                    axes.plot(k, numbers[key], color=colour, marker="x" if "fault" in numbers else "o", linestyle="")
            axes.set(xlabel="scene", title=label, xlim=(0, len(found) + 1))
            axes.set_ylim(bottom=0, top=None if key == "error_cm" else 1.05)
            if key == "consistency":
                axes.axhline(MIN_CONSISTENCY, color="#666666", linewidth=0.8, linestyle="--")
