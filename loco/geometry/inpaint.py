"""Fill the holes of a depth image, guided by its colour image.

The method is the colourisation of Levin et al. ("Colorization using Optimization", SIGGRAPH 2004), as applied to depth
by the NYU Depth V2 toolbox: a missing depth is the weighted mean of its eight neighbours, with weights that decrease
with the difference in brightness. Known depths do not change; only missing depths are unknowns of the linear system.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import splu

_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
_MIN_VARIANCE = 2.2e-6  # lower bound of the variance of brightness (0..255); keeps weights finite on flat colour


def inpaint_depth(depth: NDArray[np.floating], rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the depth image with every missing pixel filled.

    Args:
        depth: (h, w), metres, 0 = missing. At least one pixel must be known.
        rgb: (h, w, 3).

    Returns:
        (h, w) float32. Filled values lie between the smallest and the largest known depth.

    Raises:
        ValueError: no pixel is known.
    """
    missing = depth <= 0
    if missing.all():
        raise ValueError("a depth image without any valid pixel cannot be inpainted")
    filled = depth.astype(np.float64)
    if missing.any():
        brightness = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float64)
        system, known_part = _weighted_mean_system(missing, brightness, filled)
        filled[missing] = _solve(system, known_part)
    return filled.astype(np.float32)


def _solve(system: csr_array, known_part: NDArray[Any]) -> NDArray[Any]:
    """Solve without pivoting: the system has a symmetric pattern and is diagonally dominant."""
    symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    return splu(system.tocsc(), **symmetric).solve(known_part)


def _weighted_mean_system(
    missing: NDArray[Any], brightness: NDArray[Any], depth: NDArray[Any]
) -> tuple[csr_array, NDArray[Any]]:
    """Return (I - W) over the m missing pixels (m, m), and the contribution of their known neighbours (m,)."""
    height, width = missing.shape
    rows, columns = np.nonzero(missing)
    weights, neighbours = _neighbour_weights(rows, columns, brightness)

    unknown_index = np.full(height * width, -1)
    unknown_index[missing.ravel()] = np.arange(len(rows))
    column = unknown_index[neighbours]
    row = np.broadcast_to(np.arange(len(rows))[:, None], column.shape)
    between_unknowns = (column >= 0) & (weights > 0)
    known_part = np.where(column < 0, weights * depth.ravel()[neighbours], 0).sum(axis=1)

    diagonal = np.arange(len(rows))
    values = np.concatenate([np.ones(len(rows)), -weights[between_unknowns]])
    at = (np.concatenate([diagonal, row[between_unknowns]]), np.concatenate([diagonal, column[between_unknowns]]))
    return csr_array((values, at), shape=(len(rows), len(rows))), known_part


def _neighbour_weights(
    rows: NDArray[Any], columns: NDArray[Any], brightness: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return normalised weights (m, 8) of the eight neighbours, 0 outside the image, and their flat indices (m, 8)."""
    height, width = brightness.shape
    y = rows[:, None] + np.array([dy for dy, _ in _NEIGHBOURS])
    x = columns[:, None] + np.array([dx for _, dx in _NEIGHBOURS])
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    neighbours = np.where(inside, y * width + x, 0)

    difference = np.where(inside, brightness.ravel()[neighbours] - brightness[rows, columns][:, None], 0)
    squared = difference**2
    count = 1 + inside.sum(axis=1)  # pixels in the window, including the pixel itself
    spread = squared.sum(axis=1) / count - (difference.sum(axis=1) / count) ** 2
    squared[~inside] = np.inf
    # The lower bound of the variance gives the most similar neighbour a weight of at least 0.01.
    variance = np.maximum(0.6 * spread, squared.min(axis=1) / -np.log(0.01))
    variance = np.maximum(variance, _MIN_VARIANCE)
    weights = np.exp(-squared / variance[:, None])
    return weights / weights.sum(axis=1, keepdims=True), neighbours
