"""Plots of training runs: loss and validation score over the training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from loco.results.plots.style import WIDTH, colour_and_marker, legend, new_figure, new_panels, panel_rows


def training_curve(logs: Mapping[str, Sequence[str | Path]], titles: Mapping[str, str], stem: str | Path) -> None:
    """Plot the loss of each training phase, and the validation mAP, over the steps; lines mark new phases.

    Losses of different phases may not be comparable, so each phase has a separate panel. The panel of the mAP is left
    out if no run was validated.

    Args:
        logs: experiment -> the log.csv of each of its seeds (columns ``step``, ``phase``, ``loss`` and ``val_map``,
            blank where not measured). Untrained experiments are not included.
        titles: experiment -> title, all of them.
        stem: path of the figure without suffix.
    """
    curves = {experiment: [pd.read_csv(path) for path in paths] for experiment, paths in logs.items()}
    phases = sorted({phase for several in curves.values() for log in several for phase in log["phase"]})
    validated = any(log["val_map"].notna().any() for several in curves.values() for log in several)
    count = len(phases) + validated
    with new_figure(stem, WIDTH, 2.5 * panel_rows(count)) as figure:
        panels = list(new_panels(figure, count))
        losses, scores = panels[: len(phases)], panels[len(phases) :]
        for experiment, several in curves.items():
            colour, marker = colour_and_marker(experiment, titles)
            for log in several:
                for phase, axes in zip(phases, losses):
                    _loss_curve(axes, log[log["phase"] == phase], colour)
                for axes in scores:
                    _validation_curve(axes, log, colour, marker)
        for phase, axes in zip(phases, losses):
            axes.set(xlabel="step", ylabel="training loss", title=f"Loss, phase {phase}" if phases[1:] else "Loss")
        for axes in scores:
            axes.set(xlabel="step", ylabel="mAP (%)", title="Validation: location-consistency mAP")
        legend(figure, logs, titles)


def _loss_curve(axes: Axes, log: pd.DataFrame, colour: str) -> None:
    """Plot the loss at each step (faint), and its running mean."""
    smooth = log["loss"].rolling(max(1, len(log) // 15), center=True, min_periods=1).mean()
    axes.plot(log["step"], log["loss"], color=colour, alpha=0.25, linewidth=0.6)
    axes.plot(log["step"], smooth, color=colour)


def _validation_curve(axes: Axes, log: pd.DataFrame, colour: str, marker: str) -> None:
    """Plot the validation mAP, and lines at the starts of phases."""
    score = log.dropna(subset="val_map")
    axes.plot(score["step"], 100 * score["val_map"], color=colour, marker=marker)
    for start in log.groupby("phase")["step"].min().iloc[1:]:
        axes.axvline(start, color=colour, linestyle=":", linewidth=0.8)
