"""Draw the figure at the beginning of ``docs/losses.md``: ``python docs/losses_explained.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

POSITIVE, NEGATIVE, NEUTRAL = "#1b7837", "#b2182b", "#555555"
RHO, KAPPA = 0.2, 1.0
# Pairs in the order of their similarity: whether each is positive. The average precision is computed from it.
SIMILARITY = np.array([0.93, 0.86, 0.79, 0.71, 0.62, 0.5, 0.41, 0.3])
RANKED = np.array([True, True, False, True, False, False, True, False])


def main() -> None:
    matplotlib.rcParams.update({"svg.hashsalt": "loco", "font.size": 8.5, "svg.fonttype": "none"})
    figure = Figure(figsize=(10, 3.1), layout="constrained")
    pairs, ranking, step = figure.subplots(1, 3, width_ratios=(1, 1.15, 1.05))
    draw_pairs(pairs)
    draw_ranking(ranking)
    draw_step(step)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None}, facecolor="white")


def draw_pairs(axes: Axes) -> None:
    """Draw which patches form pairs with one patch, by the distance of their 3D points."""
    axes.set_title("1. Which pairs: distance of the 3D points")
    rng = np.random.default_rng(1)
    angles = np.linspace(0, 2 * np.pi, 21)[:-1] + rng.uniform(0, 0.2, 20)
    distances = np.tile([0.12, 0.55, 0.85, 1.22], 5)
    for angle, distance in zip(angles, distances):
        colour = POSITIVE if distance <= RHO else NEGATIVE if distance <= KAPPA else "#bbbbbb"
        axes.plot(distance * np.cos(angle), distance * np.sin(angle), "o", color=colour, markersize=5)
    axes.plot(0, 0, "s", color="black", markersize=6)
    turn = np.linspace(0, 2 * np.pi, 200)
    for radius, name in ((RHO, "rho"), (KAPPA, "kappa")):
        axes.plot(radius * np.cos(turn), radius * np.sin(turn), color=NEUTRAL, linewidth=0.8, linestyle="--")
        axes.text(0.74 * radius, 0.74 * radius, name, color=NEUTRAL)
    axes.set(aspect="equal", xlim=(-1.45, 1.45), ylim=(-1.75, 1.4))
    axes.axis("off")
    for x, colour, name in ((-1.35, POSITIVE, "positive"), (-0.45, NEGATIVE, "negative"), (0.5, "#999999", "no pair")):
        axes.text(x, -1.7, f"● {name}", color=colour)


def draw_ranking(axes: Axes) -> None:
    """Draw a ranking of pairs by similarity, with the precision at each positive pair and the average precision."""
    precision = np.cumsum(RANKED) / np.arange(1, len(RANKED) + 1)
    average = precision[RANKED].mean()
    axes.set_title(f"2. Ranked by similarity: AP = {average:.2f}")
    for rank, (similarity, positive) in enumerate(zip(SIMILARITY, RANKED)):
        axes.barh(rank, similarity, height=0.65, color=POSITIVE if positive else NEGATIVE, alpha=0.85)
        if positive:
            text = f"{RANKED[: rank + 1].sum()} of {rank + 1} positive: {precision[rank]:.2f}"
            axes.text(similarity + 0.02, rank, text, va="center", color=POSITIVE)
    axes.set(xlim=(0, 1.6), xlabel="similarity of the two features", yticks=range(len(RANKED)), ylabel="rank")
    axes.set_yticklabels(range(1, len(RANKED) + 1))
    axes.set_xticks([0, 0.5, 1])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def draw_step(axes: Axes) -> None:
    """Draw the step function that counts, and its smooth replacements."""
    axes.set_title("3. Smooth counting: tau")
    difference = np.linspace(-0.5, 0.5, 401)
    axes.plot(difference, difference > 0, color="black", linewidth=0.9, label="exact rank")
    for tau, colour in ((0.02, "#2166ac"), (0.1, "#92c5de")):
        axes.plot(difference, 1 / (1 + np.exp(-difference / tau)), color=colour, label=f"tau = {tau}")
    axes.set(xlabel="similarity of another pair minus that of this one", ylabel="counts as ranked before")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
