"""Sub-cell refinement of match positions, identical for all extractors.

A match pairs a position in image A with the most similar cell of a grid in image B, so its position in B is off by up
to half a cell in each direction, for any features. The position of the peak between cells is estimated from the
similarities of the neighbouring cells. There are two estimators, both limited to the matched cell:

- ``parabola``: the vertex of the parabola through the peak and its two neighbours, along each axis. It is invariant to
  the offset and scale of the similarities, in which extractors differ.
- ``soft_argmax``: the mean position of the cells of a window, weighted by the softmax of similarity over temperature.

Only the position in B is refined: the feature of A belongs to its exact position, whose correspondence is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HALF = 0.5  # cells: the refined position stays in the matched cell
FLAT = 1e-7  # curvature of cosines below which a peak counts as flat: the limit of single precision
TEMPERATURE, WINDOW = 0.05, 5  # defaults of soft_argmax
BLOCK = 2**13  # cells whose features are held in memory at a time

Features = Callable[[NDArray[np.integer]], Tensor]  # numbers of cells (m,) -> their features (m, c), L2-normalised rows


def refined_offsets(
    queries: Tensor,
    cells: NDArray[np.integer],
    size: tuple[int, int],
    features: Features,
    settings: Mapping[str, Any],
    candidates: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the offsets of matches from the centres of their cells.

    Args:
        queries: (k, c), L2-normalised rows: the matched features.
        cells: (k,), row-major index of the matched cell of B.
        size: (rows, columns) of the grid of B.
        features: returns the features of cells of B by their indices.
        settings: ``refine`` (``none``, the default, ``parabola`` or ``soft_argmax``), ``refine_temperature`` and
            ``refine_window`` (cells along each side, odd) of ``soft_argmax``.
        candidates: (rows, columns), mask of the cells that may be matched; others are treated like cells beyond the
            border. None for all.

    Returns:
        (k, 2), along u and v, in cells, from -0.5 to 0.5. 0 along an axis on which a neighbour is missing or the
        similarities are equal; for ``none`` all are 0 and no feature is read.
    """
    method = settings.get("refine", "none")
    if method == "none" or len(cells) == 0:
        return np.zeros((len(cells), 2))
    if method == "parabola":
        return parabola_offsets(similarity_windows(queries, cells, size, features, 3, candidates))
    window = settings.get("refine_window", WINDOW)
    similarities = similarity_windows(queries, cells, size, features, window, candidates)
    return soft_argmax_offsets(similarities, settings.get("refine_temperature", TEMPERATURE))


def parabola_offsets(windows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the vertices (k, 2), along u and v, of parabolas through the centres of windows (k, w, w) and their
    neighbours on each axis, in cells from the centre; 0 where a neighbour is missing (NaN) or the peak is flat."""
    centre = windows.shape[1] // 2
    row, column = windows[:, centre], windows[:, :, centre]
    return np.stack([_vertex(line[:, centre - 1 : centre + 2]) for line in (row, column)], axis=1)


def _vertex(line: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the vertex (k,) of the parabola through three similarities (k, 3), in cells from the second."""
    before, peak, after = line.T
    curvature = before - 2 * peak + after
    curved = curvature < -FLAT  # False where a neighbour is missing
    vertex = (before - after) / 2 / np.where(curved, curvature, 1)
    return np.where(curved, np.clip(vertex, -HALF, HALF), 0)


def soft_argmax_offsets(windows: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return the softmax-weighted mean positions (k, 2), along u and v, of the cells of windows (k, w, w).

    Positions are in cells from the centre; the softmax is that of similarity over ``temperature``. A cell whose mirror
    image about the centre is missing (NaN) along an axis is ignored on this axis, so that the border of the grid does
    not bias matches inwards.
    """
    reach = np.arange(windows.shape[1]) - windows.shape[1] // 2
    peak = np.nanmax(windows, axis=(1, 2), keepdims=True)
    missing = np.isnan(windows)
    weight = np.exp((np.where(missing, -np.inf, windows) - peak) / temperature)
    offsets = []
    for axis in (2, 1):
        paired = np.where(np.flip(missing, axis=axis), 0, weight)
        mass = np.moveaxis(paired, axis, 1).sum(axis=2)  # per column, per row
        offsets.append(mass @ reach / mass.sum(axis=1))
    return np.clip(np.stack(offsets, axis=1), -HALF, HALF)


def similarity_windows(
    queries: Tensor,
    cells: NDArray[np.integer],
    size: tuple[int, int],
    features: Features,
    window: int,
    candidates: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the cosine similarities (k, window, window) of queries (k, c) and the cells around ``cells`` (k,).

    Cells beyond the grid, or that are not candidates, are NaN. See :func:`refined_offsets` for the arguments.
    """
    rows, columns = size
    reach = np.arange(window) - window // 2
    v, u = (cells // columns)[:, None, None] + reach[:, None], (cells % columns)[:, None, None] + reach
    there = (v >= 0) & (v < rows) & (u >= 0) & (u < columns)
    numbers = np.clip(v, 0, rows - 1) * columns + np.clip(u, 0, columns - 1)
    if candidates is not None:
        there &= candidates.ravel()[numbers]
    found = np.empty(numbers.shape)
    step = max(1, BLOCK // window**2)
    for start in range(0, len(cells), step):
        part = slice(start, start + step)
        around = features(numbers[part].ravel()).double().unflatten(0, (-1, window**2))
        similarity = torch.einsum("kc,knc->kn", queries[part].double(), around)
        found[part] = similarity.reshape(-1, window, window).numpy()
    return np.where(there, found, np.nan)
